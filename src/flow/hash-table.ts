import { HASH_ELSE, HASH_FACTOR, HASH_PROBES, HASH_SHIFT, HASH_SLOTS } from "./program.js";

/** Load of the slots is between a third and two thirds. */
const SLOTS_PER_VALUE = 1.5;
/** Probes that need no other multiplier, and most that are borne. */
const FEW_PROBES = 8;
const MOST_PROBES = 48;
/** Multipliers that are tried before there are more slots. */
const TRIES = 3;
const FIRST_FACTOR = 0x9e37_79b1;
/** So many times there are twice as many slots; then any number of probes is borne. */
const MOST_DOUBLINGS = 3;

/**
 * The words of a hash table (HASH_*) of different values: the multiplier that needs the fewest probes, so that no
 * value, and no packet, costs more than a few of them.
 * @param children node of each value, not 0
 */
export function hashTable(values: ArrayLike<number>, children: ArrayLike<number>, otherwise: number): Int32Array {
  const least = bitsOf(values.length);
  let factor = FIRST_FACTOR;
  for (let bits = least; ; bits++) {
    let best: Int32Array | null = null;
    const most = bits - least < MOST_DOUBLINGS ? MOST_PROBES : values.length;
    let limit = Math.min(most, Math.max(1, values.length));
    for (let i = 0; i < TRIES && (best === null || limit >= FEW_PROBES); i++) {
      const words = fill(values, children, { factor, bits, limit });
      if (words !== null) {
        best = words;
        limit = words[HASH_PROBES]! - 1;
      }
      factor = nextFactor(factor, values);
    }
    if (best === null) continue;
    best[HASH_ELSE] = otherwise;
    return best;
  }
}

/** log2 of the slots for so many values. */
function bitsOf(values: number): number {
  return values < 2 ? 1 : 32 - Math.clz32(Math.ceil(values * SLOTS_PER_VALUE) - 1);
}

/** Another multiplier, which depends on the values: none can be chosen so that they collide under each of them. */
function nextFactor(factor: number, values: ArrayLike<number>): number {
  let hash = factor;
  for (let i = 0; i < values.length; i++) hash = Math.imul(hash ^ values[i]!, FIRST_FACTOR) ^ (hash >>> 15);
  return hash | 1;
}

/** The table with a multiplier; null where a value would take more than `limit` probes. */
function fill(
  values: ArrayLike<number>,
  children: ArrayLike<number>,
  { factor, bits, limit }: { readonly factor: number; readonly bits: number; readonly limit: number },
): Int32Array | null {
  const words = new Int32Array(HASH_SLOTS + 2 * (2 ** bits + limit));
  const shift = 32 - bits;
  let most = 2; // words that are looked at
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    const first = HASH_SLOTS + 2 * (Math.imul(value, factor) >>> shift);
    const end = first + 2 * limit;
    let at = first;
    while (at < end && words[at + 1] !== 0) at += 2;
    if (at === end) return null;
    words[at] = value;
    words[at + 1] = children[i]!;
    if (at - first >= most) most = at - first + 2;
  }
  words[HASH_FACTOR] = factor;
  words[HASH_SHIFT] = shift;
  words[HASH_PROBES] = most / 2;
  return words.subarray(0, HASH_SLOTS + 2 * 2 ** bits + most);
}
