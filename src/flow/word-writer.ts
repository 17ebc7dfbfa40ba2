/** A growing array of 32-bit words. */
export class WordWriter {
  #words = new Int32Array(4096);
  #length = 0;

  /** Words written so far. */
  get length(): number {
    return this.#length;
  }

  /** Adds `count` zero words at the end and returns the index of the first. */
  reserve(count: number): number {
    const at = this.#length;
    this.#grow(count);
    this.#length += count;
    return at;
  }

  /** Adds zero words up to a multiple of `unit` words and returns the length. */
  align(unit: number): number {
    this.reserve((unit - (this.#length % unit)) % unit);
    return this.#length;
  }

  /** Adds words at the end and returns the index of the first. */
  append(words: ArrayLike<number>): number {
    const at = this.reserve(words.length);
    for (let i = 0; i < words.length; i++) this.#words[at + i] = words[i]!;
    return at;
  }

  /** Overwrites a word written before. */
  set(index: number, word: number): void {
    this.#words[index] = word;
  }

  /** Takes back everything from `length` on. */
  truncate(length: number): void {
    this.#words.fill(0, length, this.#length);
    this.#length = length;
  }

  /** The words; copies. */
  finish(): Int32Array {
    return this.#words.slice(0, this.#length);
  }

  #grow(count: number): void {
    if (this.#length + count <= this.#words.length) return;
    const larger = new Int32Array(Math.max(this.#words.length * 2, this.#length + count));
    larger.set(this.#words);
    this.#words = larger;
  }
}
