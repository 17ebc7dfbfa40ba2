/** From so many words on copying them at once is faster. */
const LONG = 24;
const LEAST = 1024;
/** Words of a cache line. */
const LINE = 16;

/** A growing array of 32-bit words. */
export class WordWriter {
  #words: Int32Array;
  #length = 0;

  /** @param expected words that are likely to be written */
  constructor(expected: number) {
    this.#words = new Int32Array(Math.max(LEAST, expected));
  }

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

  /** As reserve, so that up to a line of words lies in one. */
  reserveLine(count: number): number {
    const used = this.#length % LINE;
    if (count <= LINE && used + count > LINE) this.reserve(LINE - used);
    return this.reserve(count);
  }

  /** As append, so that up to a line of words lies in one. */
  appendLine(words: ArrayLike<number>): number {
    const used = this.#length % LINE;
    if (words.length <= LINE && used + words.length > LINE) this.reserve(LINE - used);
    return this.append(words);
  }

  /** Adds words at the end and returns the index of the first. */
  append(words: ArrayLike<number>): number {
    const at = this.reserve(words.length);
    if (words.length >= LONG) this.#words.set(words, at);
    else for (let i = 0; i < words.length; i++) this.#words[at + i] = words[i]!;
    return at;
  }

  /** Overwrites a word written before. */
  set(index: number, word: number): void {
    this.#words[index] = word;
  }

  /** Overwrites words written before, from `index` on. */
  put(index: number, words: readonly number[]): void {
    for (let i = 0; i < words.length; i++) this.#words[index + i] = words[i]!;
  }

  /** A word written before. */
  get(index: number): number {
    return this.#words[index]!;
  }

  /** All words, in the writer's own memory. */
  finish(): Int32Array {
    return this.#words.subarray(0, this.#length);
  }

  #grow(count: number): void {
    if (this.#length + count <= this.#words.length) return;
    const larger = new Int32Array(Math.max(this.#words.length * 2, this.#length + count));
    larger.set(this.#words);
    this.#words = larger;
  }
}
