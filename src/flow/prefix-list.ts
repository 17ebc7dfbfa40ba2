import type { Prefix } from "#model";

/** Prefixes in ascending order, none within another. Prefix i has four u32 words, most significant first, from 4·i on. */
export type PrefixList = { readonly count: number; readonly words: Uint32Array; readonly bits: Uint8Array };

const WORDS = 4;
/** The 96 bits before an IPv4 address, and how many they are. */
export const MAPPED = [0, 0, 0xffff] as const;
export const MAPPED_BITS = 96;

/** The prefixes without those that lie within another one. */
export function prefixList(prefixes: readonly Prefix[]): PrefixList {
  const count = prefixes.length;
  const words = new Uint32Array(WORDS * count);
  const bits = new Uint8Array(count);
  const order = new Uint16Array(count);
  for (let i = 0; i < count; i++) {
    const { address, bits: length } = prefixes[i]!;
    for (let word = 0; word < WORDS; word++) {
      const at = word * 4;
      words[i * WORDS + word] =
        (address[at]! << 24) | (address[at + 1]! << 16) | (address[at + 2]! << 8) | address[at + 3]!;
    }
    bits[i] = length;
    let place = i;
    for (; place > 0 && compare(words, bits, order[place - 1]!, i) > 0; place--) order[place] = order[place - 1]!;
    order[place] = i;
  }
  const list = { words: new Uint32Array(WORDS * count), bits: new Uint8Array(count) };
  let kept = 0;
  for (const i of order) {
    const word = i * WORDS;
    if (kept > 0 && isWithin(list.words, (kept - 1) * WORDS, list.bits[kept - 1]!, words, word)) continue;
    for (let k = 0; k < WORDS; k++) list.words[kept * WORDS + k] = words[word + k]!;
    list.bits[kept++] = bits[i]!;
  }
  return slice({ count, ...list }, 0, kept);
}

/** Order in which a prefix stands before everything it contains. */
function compare(words: Uint32Array, bits: Uint8Array, a: number, b: number): number {
  for (let k = 0; k < WORDS; k++) {
    const difference = words[a * WORDS + k]! - words[b * WORDS + k]!;
    if (difference !== 0) return difference;
  }
  return bits[a]! - bits[b]!;
}

/** Whether the address at `inner` has the first `bits` bits of the one at `outer`. */
function isWithin(
  outerWords: Uint32Array,
  outer: number,
  bits: number,
  innerWords: Uint32Array,
  inner: number,
): boolean {
  for (let k = 0; k * 32 < bits; k++) {
    const mask = bits - k * 32 >= 32 ? -1 : -1 << (32 - (bits - k * 32));
    if (((outerWords[outer + k]! ^ innerWords[inner + k]!) & mask) !== 0) return false;
  }
  return true;
}

function slice({ words, bits }: PrefixList, from: number, to: number): PrefixList {
  return { count: to - from, words: words.subarray(from * WORDS, to * WORDS), bits: bits.subarray(from, to) };
}

/** The prefixes that IPv4 addresses, ::ffff:0:0/96, can be told apart by; null = one contains all of them. */
export function mappedPart(list: PrefixList): PrefixList | null {
  const { count, words, bits } = list;
  const mapped = Uint32Array.from([...MAPPED, 0]);
  let from = 0;
  while (from < count && (bits[from]! <= MAPPED_BITS || !isWithin(mapped, 0, MAPPED_BITS, words, from * WORDS))) {
    if (bits[from]! <= MAPPED_BITS && isWithin(words, from * WORDS, bits[from]!, mapped, 0)) return null;
    from++;
  }
  let to = from;
  while (to < count && isWithin(mapped, 0, MAPPED_BITS, words, to * WORDS)) to++;
  return slice(list, from, to);
}

/** The list without those of a part of it that {@link mappedPart} gave; null stands for none. */
export function withoutPart(list: PrefixList, part: PrefixList | null): PrefixList {
  if (part === null || part.count === 0) return list;
  const from = part.bits.byteOffset - list.bits.byteOffset;
  const words = new Uint32Array(WORDS * (list.count - part.count));
  const bits = new Uint8Array(list.count - part.count);
  words.set(list.words.subarray(0, WORDS * from));
  words.set(list.words.subarray(WORDS * (from + part.count)), WORDS * from);
  bits.set(list.bits.subarray(0, from));
  bits.set(list.bits.subarray(from + part.count), from);
  return { count: bits.length, words, bits };
}

/** One text for equal lists. */
export function textOf({ words, bits }: PrefixList): string {
  return latin1(words) + latin1(bits);
}

function latin1({ buffer, byteOffset, byteLength }: Uint32Array | Uint8Array): string {
  return Buffer.from(buffer, byteOffset, byteLength).toString("latin1");
}
