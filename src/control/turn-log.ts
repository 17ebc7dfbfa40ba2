import { type Failure, formatPlan, formatStep, type Plan, planLength } from "#steering";
import type { Repairs } from "./repairs.js";
import type { Refused } from "./status.js";

/** What the loop may log; the keys of `data` are for machines. */
export type Log = {
  /** Everything that happens, one by one; `data` is asked for only where it is written. */
  readonly trace: (message: string, data: () => Readonly<Record<string, unknown>>) => void;
  readonly debug: (message: string, data?: Readonly<Record<string, unknown>>) => void;
  readonly info: (message: string, data?: Readonly<Record<string, unknown>>) => void;
  /** Something is missing, and will come by itself. */
  readonly warning: (message: string, data?: Readonly<Record<string, unknown>>) => void;
  readonly error: (message: string, data?: Readonly<Record<string, unknown>>) => void;
};

/** Lines of one turn's log; a link may take a thousand targets with it. */
const MAX_LINES = 100;

/** Tells what turns do and leave undone; each distinct set of failures and refusals once. */
export class TurnLog {
  readonly #log: Log;
  #toldFailures = "";
  #toldRefusals = "";

  constructor(log: Log) {
    this.#log = log;
  }

  failures(failures: readonly string[]): void {
    const text = failures.join("\n");
    if (text !== this.#toldFailures && text !== "")
      this.#log.error("not everything is in place", { failures: failures.slice(0, MAX_LINES) });
    this.#toldFailures = text;
  }

  /** They are not tried again: only another configuration helps. */
  refusals(refusals: readonly Refused[]): void {
    const text = JSON.stringify(refusals);
    if (text === this.#toldRefusals) return;
    for (const { what, name, fwmark, reason } of refusals)
      this.#log.error(`${what} refused`, { name, ...(fwmark === null ? {} : { fwmark }), error: reason });
    this.#toldRefusals = text;
  }

  /**
   * Tells what was done. A turn that only tried again in vain is none for people: that targets are pending, and that they
   * are tried again, is told by itself.
   * @param repairsInAll since the start, these among them
   * @param repeated those of the failed steps that failed in the last turn too
   */
  work(
    done: Plan,
    changes: readonly string[],
    repairs: Repairs,
    repairsInAll: number,
    { failed, repeated }: { readonly failed: readonly Failure[]; readonly repeated: readonly Failure[] },
  ): void {
    for (const step of [...done.additions, ...done.vips, ...done.removals])
      this.#log.trace("kernel changed", () => ({ commands: formatStep(step) }));
    const { kernel, tables, storms } = repairs;
    if (kernel.length + tables.length > 0) {
      const all = { kernel: kernel.slice(0, MAX_LINES), ...(tables.length === 0 ? {} : { tables }) };
      this.#log.info("repaired", { ...all, repairs: repairsInAll });
      for (const { what, count } of storms)
        this.#log.error("repaired again and again, another program undoes it", { what, timesInAMinute: count });
    } else if (changes.length === 0 && planLength(done) === repeated.length) {
      const others = repeated.filter(({ fwmark }) => fwmark === null);
      if (others.length > 0) this.#log.debug("tried again in vain", { failures: others.map(({ message }) => message) });
    } else {
      this.#log.info("reconciled", { changes, kernel: formatPlan(done).slice(0, MAX_LINES), failures: failed.length });
    }
  }
}
