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
  #isEnding = false;

  constructor() {
    process.on("SIGUSR1", () => this.#log?.setLevel("configured"));
    process.on("SIGUSR2", () => this.#log?.setLevel("TRACE"));
  }

  /** For the control plane: from now on SIGUSR1 and SIGUSR2 change the level, and those that ask for an end exit with 0. */
  serve(log: ProgramLog): void {
    this.#log = log;
    for (const name of ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP"] as const)
      process.on(name, () => this.#received(name));
  }

  /**
   * From now on there is something to bring in order: the first signal begins, the second one ends at once.
   * @param reload what SIGHUP does; null: it ends in order too, as in the reference
   * @returns resolves with the first signal that asks for an end
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
    if (this.#isEnding) process.exit(1);
    this.#isEnding = true;
    this.#log?.info("ending", { signal: name });
    this.#end();
  }
}
