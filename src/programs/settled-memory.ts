import { getHeapStatistics, setFlagsFromString } from "node:v8";
import { releaseFreedMemory, releaseProgramPages } from "#sys";

/** So long nothing has to happen. */
const QUIET_MS = 3_000;
/** So long after the first collection, another one finds that little was allocated since, and makes the young generation small. */
const AGAIN_MS = 4_000;
/**
 * Bytes of code that a function runs before the engine looks whether it is worth optimizing: its default, and what it is at rest.
 * What is done a few times a second is not worth 10 ms of compiling, nor the memory for it (decision 0076).
 */
const BUDGET_BYTES = { work: 67_584, rest: 1_000_000 } as const;
/** Not more often than this: the collection of garbage takes some 30 ms with 1,000 targets. */
const LEAST_INTERVAL_MS = 20_000;
/** Idle work leaves garbage too, slowly: it is collected when there is so much, looked for in the same interval. */
const WORTH_COLLECTING_BYTES = 3 << 20;

type SettledOptions = {
  readonly prepare?: () => Promise<void>;
  readonly isSettledAgain?: boolean;
  readonly isSlowToOptimize?: boolean;
};

/**
 * Gives memory back when work is over: garbage that lies around until the heap has grown enough to be looked at, what the
 * C library keeps of freed memory, and the pages of node that only the work needed. See decision 0056.
 */
export class SettledMemory implements Disposable {
  /** Once more after AGAIN_MS. */
  #isAgainDue: boolean;
  readonly #isSlowToOptimize: boolean;
  #timer: NodeJS.Timeout | null = null;
  readonly #prepare: () => Promise<void>;
  #notBeforeMs = 0;
  #settledBytes = 0;

  /**
   * @param prepare what can be prepared for later; done when work is over, before memory is given back, and once more after it,
   * for the collection takes away compiled code too; never fails
   * @param isSettledAgain what is done after a start is done once more, for who is at rest then for good
   * @param isSlowToOptimize while nothing happens hardly any function is optimized, in all threads of the process
   */
  constructor({ prepare = async () => {}, isSettledAgain = false, isSlowToOptimize = false }: SettledOptions = {}) {
    this.#prepare = prepare;
    this.#isAgainDue = isSettledAgain;
    this.#isSlowToOptimize = isSlowToOptimize;
  }

  /** Work was done that leaves garbage behind. */
  stir(): void {
    this.#setBudget("work");
    const waitMs = Math.max(QUIET_MS, this.#notBeforeMs - performance.now());
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#finish(), waitMs).unref();
  }

  async #finish(): Promise<void> {
    const timer = this.#timer;
    await this.#prepare();
    if (this.#timer !== timer) return; // work has begun again, or all is over
    this.#settle();
    await this.#prepare();
  }

  #settle(): void {
    this.#timer = null;
    this.#notBeforeMs = performance.now() + LEAST_INTERVAL_MS;
    this.#setBudget("rest");
    globalThis.gc?.(); // there where node was started with --expose-gc, as our programs are
    releaseFreedMemory();
    releaseProgramPages();
    this.#settledBytes = usedBytes();
    if (this.#isAgainDue) {
      this.#isAgainDue = false;
      this.#timer = setTimeout(() => this.#settle(), AGAIN_MS).unref();
    } else this.#look();
  }

  #look(): void {
    this.#timer = setTimeout(() => {
      if (usedBytes() > this.#settledBytes + WORTH_COLLECTING_BYTES) this.#settle();
      else this.#look();
    }, LEAST_INTERVAL_MS).unref();
  }

  #setBudget(state: keyof typeof BUDGET_BYTES): void {
    if (this.#isSlowToOptimize) setFlagsFromString(`--interrupt-budget=${BUDGET_BYTES[state]}`);
  }

  [Symbol.dispose](): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }
}

const usedBytes = () => getHeapStatistics().used_heap_size;
