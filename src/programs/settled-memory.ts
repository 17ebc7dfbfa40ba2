import { getHeapStatistics } from "node:v8";
import { releaseFreedMemory, releaseProgramPages } from "#sys";

/** So long nothing has to happen. */
const QUIET_MS = 3_000;
/** Not more often than this: the collection of garbage takes some 30 ms with 1,000 targets. */
const LEAST_INTERVAL_MS = 20_000;
/** Idle work leaves garbage too, slowly: it is collected when there is so much, looked for in the same interval. */
const WORTH_COLLECTING_BYTES = 3 << 20;

/**
 * Gives memory back when work is over: garbage that lies around until the heap has grown enough to be looked at, what the
 * C library keeps of freed memory, and the pages of node that only the work needed. See decision 0056.
 */
export class SettledMemory implements Disposable {
  #timer: NodeJS.Timeout | null = null;
  readonly #beforehand: () => Promise<void>;
  #notBeforeMs = 0;
  #settledBytes = 0;

  /** @param beforehand done when work is over, before memory is given back: what can be prepared for later; never fails */
  constructor(beforehand: () => Promise<void> = async () => {}) {
    this.#beforehand = beforehand;
  }

  /** Work was done that leaves garbage behind. */
  stir(): void {
    const waitMs = Math.max(QUIET_MS, this.#notBeforeMs - performance.now());
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#finish(), waitMs).unref();
  }

  async #finish(): Promise<void> {
    const timer = this.#timer;
    await this.#beforehand();
    if (this.#timer === timer) this.#settle(); // else work has begun again, or all is over
  }

  #settle(): void {
    this.#timer = null;
    this.#notBeforeMs = performance.now() + LEAST_INTERVAL_MS;
    globalThis.gc?.(); // there where node was started with --expose-gc, as our programs are
    releaseFreedMemory();
    releaseProgramPages();
    this.#settledBytes = usedBytes();
    this.#look();
  }

  #look(): void {
    this.#timer = setTimeout(() => {
      if (usedBytes() > this.#settledBytes + WORTH_COLLECTING_BYTES) this.#settle();
      else this.#look();
    }, LEAST_INTERVAL_MS).unref();
  }

  [Symbol.dispose](): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }
}

const usedBytes = () => getHeapStatistics().used_heap_size;
