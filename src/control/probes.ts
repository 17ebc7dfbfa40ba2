/** So many targets of a round are asked per second at most: some 20 µs of CPU each, with the answers' events. */
export const MOST_PER_SECOND = 100;
/** Those that are ready are asked in lots: every wake-up costs as much as some questions. */
const READY_TICK_MS = 1_000;
const LOST_TICK_MS = 200;
/** A target that is lost is asked so often, to come back soon. */
const LOST_INTERVAL_MS = 1_000;

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

/** Has targets asked, those that are ready and those that are lost; nothing wakes up for those that are lost while there is none. */
export class Probing {
  readonly #rounds: { readonly ready: ProbeRound; readonly lost: ProbeRound };
  readonly #usable: () => { readonly ready: readonly number[]; readonly lost: readonly number[] };
  readonly #ask: (fwmarks: readonly number[]) => void;
  #readyTimer: NodeJS.Timeout | null = null;
  #lostTimer: NodeJS.Timeout | null = null;

  /**
   * @param intervalMs of those that are ready, as in {@link ProbeRound}
   * @param usable fwmarks of the targets that have a way
   * @param ask has these asked
   */
  constructor(
    intervalMs: number,
    usable: () => { readonly ready: readonly number[]; readonly lost: readonly number[] },
    ask: (fwmarks: readonly number[]) => void,
  ) {
    this.#rounds = { ready: new ProbeRound(intervalMs), lost: new ProbeRound(LOST_INTERVAL_MS) };
    this.#usable = usable;
    this.#ask = ask;
  }

  start(): void {
    this.#readyTimer ??= setInterval(() => this.#tick("ready", READY_TICK_MS), READY_TICK_MS).unref();
  }

  /** Targets were judged: some of them may be lost now. */
  judged(): void {
    if (this.#readyTimer === null || this.#lostTimer !== null || this.#usable().lost.length === 0) return;
    this.#lostTimer = setInterval(() => this.#tick("lost", LOST_TICK_MS), LOST_TICK_MS).unref();
  }

  #tick(kind: "ready" | "lost", passedMs: number): void {
    const fwmarks = this.#usable()[kind];
    if (kind === "lost" && fwmarks.length === 0) this.#stopLost();
    const asked = this.#rounds[kind].next(fwmarks, passedMs);
    if (asked.length > 0) this.#ask(asked);
  }

  #stopLost(): void {
    if (this.#lostTimer !== null) clearInterval(this.#lostTimer);
    this.#lostTimer = null;
  }

  /** Nobody is asked any more unless started again. */
  stop(): void {
    if (this.#readyTimer !== null) clearInterval(this.#readyTimer);
    this.#readyTimer = null;
    this.#stopLost();
  }
}
