import type { Failure } from "#steering";

/** Tells failures that merely repeat from those that are new: what failed is tried again for ever. */
export class RetryWatch {
  #last: ReadonlySet<string> = new Set();

  /**
   * @param failed of this turn
   * @returns those that failed in the last turn too, with the same step for the same reason
   */
  turn(failed: readonly Failure[]): readonly Failure[] {
    const repeated = failed.filter(({ message }) => this.#last.has(message));
    this.#last = new Set(failed.map(({ message }) => message));
    return repeated;
  }
}
