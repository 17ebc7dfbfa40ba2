/** Repairs of one thing within WINDOW_MS that are no accident any more. */
const MOST_REPAIRS = 10;
const WINDOW_MS = 60_000;

/** Something that is put right again and again, because somebody undoes it again and again. */
export type RepairStorm = {
  /** The command that puts it right, or the table. */
  readonly what: string;
  /** Repairs in the last minute. */
  readonly count: number;
  readonly lastMs: number;
};

/** Notices repairs that do not last. Times are ms of one clock. */
export class RepairStorms {
  /** Times of each thing's repairs in the last minute, in order. */
  readonly #times = new Map<string, number[]>();
  readonly #told = new Set<string>();

  /** @returns storms that have just begun */
  repaired(things: readonly string[], nowMs: number): readonly RepairStorm[] {
    for (const what of things) {
      const times = this.#times.get(what);
      if (times === undefined) this.#times.set(what, [nowMs]);
      else times.push(nowMs);
    }
    const begun = this.now(nowMs).filter(({ what }) => !this.#told.has(what));
    for (const { what } of begun) this.#told.add(what);
    return begun;
  }

  /** Those that rage. */
  now(nowMs: number): readonly RepairStorm[] {
    const storms: RepairStorm[] = [];
    for (const [what, times] of this.#times) {
      while (times.length > 0 && times[0]! <= nowMs - WINDOW_MS) times.shift();
      if (times.length > MOST_REPAIRS) storms.push({ what, count: times.length, lastMs: times.at(-1)! });
      if (times.length > 0) continue;
      this.#times.delete(what);
      this.#told.delete(what);
    }
    return storms;
  }
}
