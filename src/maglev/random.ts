const WORDS = 31;
const DISCARDED = 310;

/**
 * glibc's `rand()` with its default seed 1, the generator behind nfqlb's tables: nfqlb never seeds it, and every `init`
 * starts it anew, which is the only reason why all instances agree. Additive feedback over a ring of 31 words
 * (glibc stdlib/random_r.c, TYPE_3).
 */
export class GlibcRandom {
  readonly #ring = new Uint32Array(WORDS);
  #front = 3;
  #rear = 0;

  constructor() {
    let word = 1;
    for (let i = 0; i < WORDS; i++) {
      this.#ring[i] = word;
      word = Number((16_807n * BigInt(word)) % 2_147_483_647n);
    }
    for (let i = 0; i < DISCARDED; i++) this.next();
  }

  /** The next number, 0…2³¹−1. */
  next(): number {
    const sum = (this.#ring[this.#front]! + this.#ring[this.#rear]!) >>> 0;
    this.#ring[this.#front] = sum;
    this.#front = (this.#front + 1) % WORDS;
    this.#rear = (this.#rear + 1) % WORDS;
    return sum >>> 1;
  }
}
