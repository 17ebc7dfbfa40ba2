const NONE = -1;

/**
 * Queues of slot numbers 0…slots-1: first in, first out, and a slot can leave from the middle. A slot is in one queue at
 * a time. All steps take constant time; nothing is allocated after construction.
 */
export class SlotLists {
  readonly #head: Int32Array;
  readonly #tail: Int32Array;
  readonly #length: Int32Array;
  readonly #next: Int32Array;
  readonly #previous: Int32Array;

  constructor(lists: number, slots: number) {
    this.#head = new Int32Array(lists).fill(NONE);
    this.#tail = new Int32Array(lists).fill(NONE);
    this.#length = new Int32Array(lists);
    this.#next = new Int32Array(slots);
    this.#previous = new Int32Array(slots);
  }

  length(list: number): number {
    return this.#length[list]!;
  }

  /** The slot that is in the queue for longest, or -1. */
  oldest(list: number): number {
    return this.#head[list]!;
  }

  /** The slot that came after `slot`, or -1. */
  next(slot: number): number {
    return this.#next[slot]!;
  }

  append(list: number, slot: number): void {
    const tail = this.#tail[list]!;
    this.#previous[slot] = tail;
    this.#next[slot] = NONE;
    if (tail === NONE) this.#head[list] = slot;
    else this.#next[tail] = slot;
    this.#tail[list] = slot;
    this.#length[list]!++;
  }

  /** `slot` must be in `list`. */
  remove(list: number, slot: number): void {
    const next = this.#next[slot]!;
    const previous = this.#previous[slot]!;
    if (previous === NONE) this.#head[list] = next;
    else this.#next[previous] = next;
    if (next === NONE) this.#tail[list] = previous;
    else this.#previous[next] = previous;
    this.#length[list]!--;
  }
}
