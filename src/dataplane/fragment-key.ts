import type { Packet } from "#packet";

/** Words of a key: source and destination address, 4 words each, then identification and protocol. */
export const KEY_WORDS = 9;

/**
 * What makes a fragment part of one packet and no other: source, destination, identification and, for IPv4, the
 * protocol (RFC 791; RFC 8200 section 4.5). One object per thread, reused; allocates nothing after construction.
 *
 * The hashes are keyed with a number that is drawn when the program starts, so that nobody can aim at a place.
 */
export class FragmentKey {
  readonly words = new Int32Array(KEY_WORDS);
  /** Hash of the whole key, u32 but never 0. */
  hash = 0;
  /** Hash of the source address, u32. */
  sourceHash = 0;
  readonly #seed: number;

  constructor(seed: number) {
    this.#seed = seed | 0;
  }

  /** Takes the key of a first or later fragment. */
  load({ key, fragmentId, l3Protocol }: Packet): void {
    const { words } = this;
    let hash = this.#seed;
    for (let word = 0; word < 8; word++) {
      const at = word * 4;
      const value = (key[at]! << 24) | (key[at + 1]! << 16) | (key[at + 2]! << 8) | key[at + 3]!;
      words[word] = value;
      hash = mix(hash, value);
      if (word === 3) this.sourceHash = finish(hash);
    }
    words[8] = fragmentId ^ (l3Protocol << 24);
    this.hash = finish(mix(hash, words[8]!)) || 1;
  }

  /** Takes a key that stands in `words` from index `at` on, with its hash; `sourceHash` is not restored. */
  restore(words: Int32Array, at: number, hash: number): void {
    for (let word = 0; word < KEY_WORDS; word++) this.words[word] = words[at + word]!;
    this.hash = hash;
  }

  /** Whether the key stands in `words` from index `at` on. */
  isAt(words: Int32Array, at: number): boolean {
    for (let word = 0; word < KEY_WORDS; word++) if (words[at + word] !== this.words[word]) return false;
    return true;
  }
}

/** The steps of MurmurHash3 (32 bit, public domain, A. Appleby). */
function mix(hash: number, value: number): number {
  let word = Math.imul(value, 0xcc9e2d51);
  word = Math.imul((word << 15) | (word >>> 17), 0x1b873593);
  const sum = hash ^ word;
  return (Math.imul((sum << 13) | (sum >>> 19), 5) + 0xe6546b64) | 0;
}

function finish(hash: number): number {
  let bits = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return (bits ^ (bits >>> 16)) >>> 0;
}
