/** From so many words on copying them at once is faster. */
const LONG = 24;
const LEAST = 1024;
/** Words of a cache line. */
const LINE = 16;

/** More rules than a classifier can hold, or rules that ask for more. Without some of them the others can be compiled. */
export class TooManyRulesError extends Error {
  readonly code = "ERR_TOO_MANY_RULES";
}

/** A growing array of 32-bit words. */
export class WordWriter {
  #words: Int32Array;
  #length = 0;
  readonly #most: number;

  /**
   * @param expected words that are likely to be written
   * @param most words that may be written
   */
  constructor(expected: number, most = Number.POSITIVE_INFINITY) {
    this.#words = new Int32Array(Math.min(most, Math.max(LEAST, expected)));
    this.#most = most;
  }

  /** Words written so far. */
  get length(): number {
    return this.#length;
  }

  /** Adds `count` zero words at the end and returns the index of the first. @throws {TooManyRulesError} as all that add */
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
    const needed = this.#length + count;
    if (needed <= this.#words.length) return;
    if (needed > this.#most)
      throw new TooManyRulesError(`the rules ask for too much: compiled they need more than ${this.#most * 4} bytes`);
    const larger = new Int32Array(Math.min(this.#most, Math.max(this.#words.length * 2, needed)));
    larger.set(this.#words);
    this.#words = larger;
  }
}
