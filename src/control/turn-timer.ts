/** When the next turn begins: as soon as somebody asks for, but after a rest as long as the last turn took. */
export class TurnTimer {
  readonly #nowMs: () => number;
  readonly #turn: () => void;
  #timer: NodeJS.Timeout | null = null;
  #atMs = Number.POSITIVE_INFINITY;
  #restUntilMs = 0;

  /** @param nowMs a clock that never goes back */
  constructor(nowMs: () => number, turn: () => void) {
    this.#nowMs = nowMs;
    this.#turn = turn;
  }

  /** Asks for a turn in `delayMs`; the earliest wish counts. Infinity asks for none. */
  wake(delayMs: number): void {
    const nowMs = this.#nowMs();
    const atMs = Math.max(nowMs + delayMs, this.#restUntilMs);
    if (atMs >= this.#atMs) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#atMs = atMs;
    this.#timer = setTimeout(() => this.#run(), atMs - nowMs);
  }

  #run(): void {
    this.#timer = null;
    this.#atMs = Number.POSITIVE_INFINITY;
    const startMs = this.#nowMs();
    this.#restUntilMs = startMs; // what the turn itself asks for is moved behind the rest below
    this.#turn();
    const endMs = this.#nowMs();
    this.#restUntilMs = endMs + (endMs - startMs);
    const wishedMs = this.#atMs;
    this.stop();
    this.wake(wishedMs - endMs);
  }

  /** No turn begins any more unless asked for again. */
  stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#atMs = Number.POSITIVE_INFINITY;
  }
}
