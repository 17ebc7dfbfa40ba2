/** A growing array of 32-bit words. */
export class WordWriter {
  #words = new Int32Array(1024);
  #length = 0;

  /** Words written so far. */
  get length(): number {
    return this.#length;
  }

  /** Adds `count` zero words at the end. */
  reserve(count: number): void {
    this.#grow(count);
    this.#length += count;
  }

  /** Adds words at the end and returns the index of the first. */
  append(words: readonly number[]): number {
    this.#grow(words.length);
    const at = this.#length;
    for (let i = 0; i < words.length; i++) this.#words[at + i] = words[i]!;
    this.#length += words.length;
    return at;
  }

  /** Overwrites a word written before. */
  set(index: number, word: number): void {
    this.#words[index] = word;
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
