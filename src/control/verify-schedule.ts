/** Reading back waits until the configuration has not changed for so long: a new target must not wait for it. */
const QUIET_MS = 1_000;
/** But not for more than so many intervals. */
const LONGEST_WAIT = 6;

/** When what is otherwise known by events and from memory is read back. Times are ms of one clock. */
export class VerifySchedule {
  readonly #intervalMs: number;
  #dueMs = 0;
  #changedMs = Number.NEGATIVE_INFINITY;

  constructor(intervalMs: number) {
    this.#intervalMs = intervalMs;
  }

  /** The configuration changed. */
  changed(nowMs: number): void {
    this.#changedMs = nowMs;
  }

  /**
   * Whether to do it now; then it is due again after the interval. The first time it is due at once, and what was made then
   * is read back as soon as the configuration stands still.
   */
  take(nowMs: number): boolean {
    if (nowMs < this.atMs) return false;
    this.#dueMs = nowMs + (this.#dueMs === 0 ? Math.min(QUIET_MS, this.#intervalMs) : this.#intervalMs);
    return true;
  }

  /** When it is due next, as far as is known now. */
  get atMs(): number {
    const isFirst = this.#dueMs === 0;
    if (isFirst) return 0;
    const quietMs = Math.max(this.#dueMs, this.#changedMs + QUIET_MS);
    return Math.min(quietMs, this.#dueMs + (LONGEST_WAIT - 1) * this.#intervalMs);
  }
}
