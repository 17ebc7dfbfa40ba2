import type { ProgramLog } from "./log.js";

/**
 * What signals do. Set up before anything else: until then SIGUSR1 opens node's debugger, and SIGUSR2, which a
 * program in Go survives, ends the process.
 */
export class Signals {
  #log: ProgramLog | null = null;
  #reload: (() => void) | null = null;
  /** Begins the orderly end; while the program still starts there is nothing to bring in order. */
  #end: () => void = () => process.exit(0);
  readonly #hurry = new AbortController();
  #signals = 0;
  /** Of the whole program: 1 after {@link fail}, whose reason `failure` is. */
  exitCode = 0;
  failure: string | null = null;

  constructor() {
    process.on("SIGUSR1", () => this.#log?.setLevel("configured"));
    process.on("SIGUSR2", () => this.#log?.setLevel("TRACE"));
  }

  /** From now on SIGUSR1 and SIGUSR2 change the level. */
  levelsOf(log: ProgramLog): void {
    this.#log = log;
  }

  /** For the control plane: besides, those that ask for an end exit with 0. */
  serve(log: ProgramLog): void {
    this.levelsOf(log);
    for (const name of ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP"] as const)
      process.on(name, () => this.#received(name));
  }

  /**
   * From now on there is something to bring in order: the first signal begins, the second one ends {@link wait}, the third
   * one the program.
   * @param reload what SIGHUP does; null: it ends in order too, as in the reference
   * @returns resolves when an end is asked for, by a signal or by {@link fail}
   */
  untilEnd(reload: (() => void) | null): Promise<void> {
    this.#reload = reload;
    return new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  #received(name: string): void {
    if (name === "SIGHUP" && this.#reload !== null) {
      this.#reload();
      return;
    }
    this.#signals++;
    if (this.#signals >= 3) process.exit(1);
    this.#log?.info("ending", { signal: name, ...(this.#signals === 2 ? { inHurry: true } : {}) });
    if (this.#signals === 2) this.#hurry.abort();
    this.#end();
  }

  /** Ends the program in order, as a failure. */
  fail(reason: string): void {
    this.#log?.error("ending", { reason });
    this.exitCode = 1;
    this.failure = reason;
    this.#hurry.abort();
    this.#end();
  }

  /** Resolves after `ms`, or as soon as somebody is in a hurry. */
  wait(ms: number): Promise<void> {
    const { signal } = this.#hurry;
    if (ms === 0 || signal.aborted) return Promise.resolve();
    this.#log?.info("draining", { forMs: ms });
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      signal.addEventListener("abort", () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
}
