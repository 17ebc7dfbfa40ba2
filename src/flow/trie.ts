import {
  CHILD_SHIFT,
  COUNT_SHIFT,
  NODE_PATH,
  NODE_TRIE,
  reference,
  TABLE_UNIT_SHIFT,
  tableReference,
} from "./program.js";
import type { WordCheck } from "./rule-code.js";
import type { WordWriter } from "./word-writer.js";

/** A bit string: its first `bits` bits count, the others are 0. `words` are four u32, most significant first. */
export type BitString = { readonly words: readonly number[]; readonly bits: number };

/** A rule that takes everything below a prefix. */
export type TrieItem = { readonly prefix: BitString; readonly rule: number };

/** A node has up to 2^12 children. */
const MAX_WIDTH = 12;
/** Words of a cache line; tables begin on one. */
const TABLE_UNIT = 1 << TABLE_UNIT_SHIFT;
/** With fewer bits at once a node had better follow the longest path. */
const LEAST_WIDTH = 3;
const MAPPED_BITS = 96;

/** What a trie does with the rules it finds; S is a set of rules, never changed in place. */
export type TrieTarget<S> = {
  /** The set with more rules in it. */
  readonly add: (set: S, rules: readonly number[]) => S;
  /** The node to go on at when the set is known. */
  readonly leaf: (set: S) => number;
  readonly isEmpty: (set: S) => boolean;
  /** So many prefixes are about to be looked at. */
  readonly spend: (prefixes: number) => void;
  /** A leaf that compares a word before it takes the set, and takes none else; or null if it is no leaf. */
  readonly checkedLeaf: (set: S, check: WordCheck) => number | null;
};

/**
 * Writes the nodes that lead from an address to the set of rules whose prefixes contain it. Where prefixes are dense a
 * node compares the bits that all share and takes as many more bits at once as leave at least half of its children in
 * use. Where they are sparse or nested it follows the path of most of them and branches by the number of bits that
 * agree: whoever leaves the path leaves at least half of the prefixes behind. So the number of steps is one to three for
 * what people have, and never above the logarithm of the number of prefixes, per 32-bit word.
 */
export class TrieBuilder<S> {
  readonly #items: readonly TrieItem[];
  readonly #firstWord: number;
  readonly #words: WordWriter;
  readonly #target: TrieTarget<S>;

  /** Node for all addresses ::ffff:0:0/96, or 0. */
  readonly #graft: number;

  /**
   * @param sorted prefixes as {@link sortItems} sorts them
   * @param firstWord index of the address's first 32-bit word in the packet's key
   * @param graft node to use for the IPv4 addresses in a trie of IPv6 packets, or 0
   */
  constructor(sorted: readonly TrieItem[], firstWord: number, words: WordWriter, target: TrieTarget<S>, graft = 0) {
    this.#items = sorted;
    this.#firstWord = firstWord;
    this.#words = words;
    this.#target = target;
    this.#graft = graft;
  }

  /** @param depth bits that need not be looked at; @param settled rules that contain every address */
  build(depth: number, settled: S): number {
    return this.#node(0, this.#items.length, depth, settled);
  }

  /** The node for addresses that begin with the first `depth` bits of items [from, to); `settled` contain all of them. */
  #node(from: number, to: number, depth: number, settled: S): number {
    const items = this.#items;
    if (depth === MAPPED_BITS && this.#graft !== 0 && from < to && isMapped(items[to - 1]!.prefix)) return this.#graft;
    this.#target.spend(to - from);
    const first = this.#endOf(from, to, depth);
    const set = this.#with(settled, from, first);
    if (first === to) return this.#target.leaf(set);
    const wordEnd = (depth & ~31) + 32;
    let shortest = wordEnd;
    for (let i = first; i < to; i++) if (items[i]!.prefix.bits < shortest) shortest = items[i]!.prefix.bits;
    const shared = Math.min(shortest, commonBits(items[first]!.prefix, items[to - 1]!.prefix));
    const isEnd = shared === shortest;
    const width = isEnd ? 0 : this.#width(first, to, shared, wordEnd);
    if (isEnd && (shared === wordEnd || this.#endOf(first, to, shared) === to)) {
      return this.#table(first, to, { depth, shared, width }, set);
    }
    return width < LEAST_WIDTH
      ? this.#path(first, to, depth, set)
      : this.#table(first, to, { depth, shared, width }, set);
  }

  /** Compares bits depth…shared-1 and goes on by the next `width` bits. */
  #table(
    from: number,
    to: number,
    { depth, shared, width }: { readonly depth: number; readonly shared: number; readonly width: number },
    set: S,
  ): number {
    const { prefix } = this.#items[from]!;
    const keyWord = this.#keyWord(depth);
    const mask = bitsBetween(depth & 31, shared - (depth & ~31));
    const value = wordOf(prefix, depth) & mask;
    const isEmpty = this.#target.isEmpty(set);
    if (width === 0 && isEmpty && this.#endOf(from, to, shared) === to) {
      const leaf = this.#target.checkedLeaf(this.#with(set, from, to), { keyWord, mask, value });
      if (leaf !== null) return leaf;
    }
    // Without rules to fall back on, comparing can be left to what is below.
    const isTable = width > 0 && isEmpty && !this.#hasShort(from, to, shared + width);
    const otherwise = shared === depth || isTable ? 0 : this.#target.leaf(set);
    const children: number[] = [];
    if (width === 0) children.push(this.#node(from, to, shared, set));
    else
      this.#fill(
        children,
        from,
        to,
        { base: shared, width, high: 1 << width, known: isTable ? depth : shared + width },
        set,
      );
    const shift = -(shared + width) & 31;
    const control = shift | (((1 << width) - 1) << CHILD_SHIFT);
    if (isTable) {
      const at = this.#words.align(TABLE_UNIT);
      const table = tableReference(at, keyWord, shift, width);
      if (table !== null) {
        this.#words.append(children);
        return table;
      }
    }
    const head = isTable ? [control, 0, 0, 0] : [control, mask, value, otherwise];
    return reference(NODE_TRIE, this.#words.append([...head, ...children]), keyWord);
  }

  /** Follows the bits of most of the prefixes; a child per bit at which an address may leave them. */
  #path(from: number, to: number, depth: number, settled: S): number {
    const items = this.#items;
    const wordStart = depth & ~31;
    const children: number[] = [];
    let path = 0;
    let set = settled;
    let low = from;
    let high = to;
    let bit = depth;
    let blank = -1; // the answer where no prefix branches off, until the set changes
    for (; bit < wordStart + 32; bit++) {
      const first = this.#endOf(low, high, bit);
      if (first > low) {
        set = this.#with(set, low, first);
        low = first;
        blank = -1;
      }
      if (low === high) break;
      const mask = 1 << (31 - (bit & 31));
      let middle = low; // where bit `bit` becomes 1
      while (middle < high && (wordOf(items[middle]!.prefix, bit) & mask) === 0) middle++;
      const isSplit = middle > low && middle < high;
      if (isSplit && bit > depth && this.#width(low, high, bit, wordStart + 32) >= LEAST_WIDTH) break;
      const isOne = high - middle > middle - low;
      if (isSplit) {
        children.push(isOne ? this.#node(low, middle, bit + 1, set) : this.#node(middle, high, bit + 1, set));
      } else {
        if (blank < 0) blank = this.#target.leaf(set);
        children.push(blank);
      }
      if (isOne) {
        path |= mask;
        low = middle;
      } else {
        high = middle;
      }
    }
    children.push(this.#node(low, high, bit, set));
    while (children.length > 1 && children.at(-1) === children.at(-2)) children.pop(); // the last bits tell nothing
    const count = children.length - 1;
    if (count === 0) return children[0]!;
    const known = wordOf(items[from]!.prefix, depth) & bitsBetween(0, depth & 31);
    const control = (depth & 31) | (count << COUNT_SHIFT);
    const at = this.#words.append([control, known | path, ...children]);
    return reference(NODE_PATH, at, this.#keyWord(depth));
  }

  /** Whether a prefix ends before bit `end`. */
  #hasShort(from: number, to: number, end: number): boolean {
    for (let i = from; i < to; i++) if (this.#items[i]!.prefix.bits < end) return true;
    return false;
  }

  #keyWord(depth: number): number {
    return this.#firstWord + (depth >> 5);
  }

  /** Where in [from, to) the prefixes that end within `depth` bits end: sorted, they come before longer ones. */
  #endOf(from: number, to: number, depth: number): number {
    let end = from;
    while (end < to && this.#items[end]!.prefix.bits <= depth) end++;
    return end;
  }

  #with(set: S, from: number, to: number): S {
    return from === to ? set : this.#target.add(set, this.#rulesOf(from, to));
  }

  #rulesOf(from: number, to: number): number[] {
    const rules: number[] = [];
    for (let i = from; i < to; i++) rules.push(this.#items[i]!.rule);
    return rules;
  }

  /** How many bits to take at once behind `base`, at least 1: the most that leave half of the children in use. */
  #width(from: number, to: number, base: number, wordEnd: number): number {
    let best = 1;
    const most = Math.min(MAX_WIDTH, wordEnd - base);
    for (let width = 2; width <= most && 1 << (width - 1) <= to - from; width++) {
      let used = 0;
      let before = -1;
      for (let i = from; i < to; i++) {
        const slot = slotOf(this.#items[i]!.prefix, base, width);
        if (slot !== before) used++;
        before = slot;
      }
      if (used * 2 >= 1 << width) best = width;
    }
    return best;
  }

  /** Adds the children up to `high`, below which items [from, to) lie; `known`: bits that are compared by then. */
  #fill(
    children: number[],
    from: number,
    to: number,
    slots: { readonly base: number; readonly width: number; readonly high: number; readonly known: number },
    settled: S,
  ): void {
    const items = this.#items;
    const { base, width, high, known } = slots;
    let blank = -1;
    const blankUntil = (end: number) => {
      if (children.length < end && blank < 0) blank = this.#target.leaf(settled);
      while (children.length < end) children.push(blank);
    };
    let i = from;
    while (i < to) {
      const { prefix } = items[i]!;
      const slot = slotOf(prefix, base, width);
      const span = prefix.bits >= base + width ? 1 : 1 << (base + width - prefix.bits);
      let end = i + 1;
      while (end < to && slotOf(items[end]!.prefix, base, width) < slot + span) end++;
      blankUntil(slot);
      if (span === 1) {
        children.push(this.#node(i, end, known, settled));
      } else {
        let next = i + 1; // the same prefix in other rules
        while (next < end && compareBitStrings(items[next]!.prefix, prefix) === 0) next++;
        const set = this.#target.add(settled, this.#rulesOf(i, next));
        this.#fill(children, next, end, { ...slots, high: slot + span }, set);
      }
      i = end;
    }
    blankUntil(high);
  }
}

/** Sorts prefixes, in place, so that each stands before everything it contains. */
export function sortItems(items: TrieItem[]): TrieItem[] {
  return items.sort((a, b) => compareBitStrings(a.prefix, b.prefix));
}

/** Whether a prefix lies within ::ffff:0:0/96, the IPv4 addresses, and is longer. */
function isMapped({ words, bits }: BitString): boolean {
  return bits > MAPPED_BITS && words[0] === 0 && words[1] === 0 && words[2] === 0xffff;
}

/** The prefixes with one of all those of IPv4 addresses: enough for a trie that has a graft for these. */
export function forGraft(items: readonly TrieItem[]): TrieItem[] {
  const first = items.find(({ prefix }) => isMapped(prefix));
  return items.filter((item) => item === first || !isMapped(item.prefix));
}

/** Order in which a prefix stands before everything it contains. */
function compareBitStrings({ words: a, bits }: BitString, { words: b, bits: otherBits }: BitString): number {
  return a[3]! === b[3]! && a[2]! === b[2]! && a[1]! === b[1]! && a[0]! === b[0]!
    ? bits - otherBits
    : a[0]! - b[0]! || a[1]! - b[1]! || a[2]! - b[2]! || a[3]! - b[3]!;
}

/** How many leading bits two strings share, whatever their lengths; 0…128. */
export function commonBits(a: BitString, b: BitString): number {
  for (let word = 0; word < 4; word++) {
    const difference = a.words[word]! ^ b.words[word]!;
    if (difference !== 0) return word * 32 + Math.clz32(difference);
  }
  return 128;
}

function wordOf({ words }: BitString, bit: number): number {
  return words[bit >> 5]!;
}

/** The `width` bits behind bit `base` as a number; both lie in one word. */
function slotOf(prefix: BitString, base: number, width: number): number {
  return (wordOf(prefix, base) >>> (32 - (base & 31) - width)) & ((1 << width) - 1);
}

/** A word with bits from…to-1 set, bit 0 the most significant. */
function bitsBetween(from: number, to: number): number {
  if (from === to) return 0;
  return (-1 >>> from) & (-1 << (32 - to));
}
