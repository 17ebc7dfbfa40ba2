/** So many targets of a round are asked per second at most: some 50 µs of CPU each, with the answer's event. */
export const MOST_PER_SECOND = 100;

/**
 * When which target is asked whether it is there; each in turn, spread evenly over the interval. The kernel notices the
 * death of a neighbor only when it has packets for it, and then takes some 8 s (delay_first_probe_time 5 s, ucast_solicit
 * 3 × retrans_time 1 s), so an idle target would be found dead by the first packets that it gets.
 */
export class ProbeRound {
  readonly #intervalMs: number;
  #at = 0;
  /** Probes that are due, with the fraction that time has brought. */
  #due = 0;

  /** @param intervalMs each target is asked once in this time, or as often as MOST_PER_SECOND allows; 0: never */
  constructor(intervalMs: number) {
    this.#intervalMs = intervalMs;
  }

  /** Those to be asked now, `passedMs` after the last call. */
  next(fwmarks: readonly number[], passedMs: number): readonly number[] {
    if (this.#intervalMs === 0 || fwmarks.length === 0) return [];
    const perSecond = Math.min(MOST_PER_SECOND, (fwmarks.length * 1000) / this.#intervalMs);
    this.#due = Math.min(this.#due + (perSecond * passedMs) / 1000, fwmarks.length);
    const count = Math.floor(this.#due);
    const first = this.#at;
    this.#due -= count;
    this.#at = (first + count) % fwmarks.length;
    return Array.from({ length: count }, (_, i) => fwmarks[(first + i) % fwmarks.length]!);
  }
}
