import { createRecordMemory, FragmentRecords, type RecordOptions } from "./fragment-records.js";
import { createSignalMemory } from "./fragment-signals.js";

/** Places looked at in one step of the sweep, some 100 us of work at most. */
const PLACES_PER_STEP = 8_192;

/** What the threads of a data plane share about fragments; made once by the program, handed to every worker. */
export type FragmentMemory = RecordOptions & {
  readonly recordMemory: SharedArrayBuffer;
  readonly signalMemory: SharedArrayBuffer;
  readonly workers: number;
  /** Key of the hashes, so that nobody can choose packets that meet at one place. */
  readonly seed: number;
};

/** @param seed a number that nobody can guess, u32 */
export function createFragmentMemory(options: RecordOptions, workers: number, seed: number): FragmentMemory {
  return {
    ...options,
    recordMemory: createRecordMemory(options),
    signalMemory: createSignalMemory(workers),
    workers,
    seed,
  };
}

/** A clock in ms that reads the same in all threads of this machine: CLOCK_MONOTONIC. Its readings allocate nothing. */
export function monotonicClock(): () => number {
  const offsetMs = Number(process.hrtime.bigint()) / 1e6 - performance.now();
  return () => performance.now() + offsetMs;
}

/** Frees records by time alone, whether packets come or not, and counts the live ones. */
export class FragmentSweeper {
  /** Records freed so far. */
  expired = 0;
  /** Records alive at the end of the last round, and those of them beyond the share of `--ft_size`. */
  live = 0;
  liveExtra = 0;
  readonly #records: FragmentRecords;
  readonly #nowMs = monotonicClock();
  readonly #count = { live: 0, extra: 0 };
  #next = 0;

  constructor(memory: FragmentMemory) {
    this.#records = new FragmentRecords(memory.recordMemory, memory, memory.workers + 1);
  }

  /** One step; a large table takes several for a round. @returns whether it was a round's last */
  step(): boolean {
    const to = Math.min(this.#next + PLACES_PER_STEP, this.#records.places);
    this.expired += this.#records.sweep(this.#next, to, this.#nowMs(), this.#count);
    this.#next = to;
    if (to < this.#records.places) return false;
    this.live = this.#count.live;
    this.liveExtra = this.#count.extra;
    this.#next = 0;
    this.#count.live = 0;
    this.#count.extra = 0;
    return true;
  }
}
