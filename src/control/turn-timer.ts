/** In a storm of wishes a rest grows to so long: what comes meanwhile is done in one turn. */
const STORM_REST_MS = 8;

/**
 * When the next turn begins: as soon as somebody asks for, but after a rest as long as the last turn took. A rest that
 * somebody had to wait for is followed by one of twice that time, up to 8 ms: a change that comes alone is done at once,
 * and hundreds per second cost few turns.
 */
export class TurnTimer {
  readonly #nowMs: () => number;
  readonly #turn: () => void;
  /** Ends the waiting for the next turn. */
  #cancel: (() => void) | null = null;
  #atMs = Number.POSITIVE_INFINITY;
  #restMs = 0;
  #restUntilMs = 0;
  /** Somebody waits for the end of the rest. */
  #isAwaited = false;

  /** @param nowMs a clock that never goes back */
  constructor(nowMs: () => number, turn: () => void) {
    this.#nowMs = nowMs;
    this.#turn = turn;
  }

  /** Asks for a turn in `delayMs`; the earliest wish counts. Infinity asks for none. */
  wake(delayMs: number): void {
    const nowMs = this.#nowMs();
    this.#isAwaited ||= nowMs + delayMs < this.#restUntilMs;
    const atMs = Math.max(nowMs + delayMs, this.#restUntilMs);
    if (atMs >= this.#atMs) return;
    this.#cancel?.();
    this.#atMs = atMs;
    this.#cancel = atMs > nowMs ? callIn(atMs - nowMs, () => this.#run()) : callSoon(() => this.#run());
  }

  #run(): void {
    this.#cancel = null;
    this.#atMs = Number.POSITIVE_INFINITY;
    const startMs = this.#nowMs();
    const leastMs = this.#isAwaited ? Math.min(2 * this.#restMs, STORM_REST_MS) : 0;
    this.#isAwaited = false;
    this.#restUntilMs = startMs; // what the turn itself asks for is moved behind the rest below
    this.#turn();
    const endMs = this.#nowMs();
    this.#restMs = Math.max(endMs - startMs, leastMs);
    this.#restUntilMs = endMs + this.#restMs;
    const wishedMs = this.#atMs;
    this.stop();
    this.wake(wishedMs - endMs);
  }

  /** No turn begins any more unless asked for again. */
  stop(): void {
    this.#cancel?.();
    this.#cancel = null;
    this.#atMs = Number.POSITIVE_INFINITY;
  }
}

function callIn(delayMs: number, call: () => void): () => void {
  const timer = setTimeout(call, delayMs);
  return () => clearTimeout(timer);
}

/** A timer takes a millisecond at least. */
function callSoon(call: () => void): () => void {
  const immediate = setImmediate(call);
  return () => clearImmediate(immediate);
}
