import { hashTable } from "./hash-table.js";
import { type PrefixItems, pickItems } from "./prefix-items.js";
import {
  CHILD_SHIFT,
  COUNT_SHIFT,
  NODE_HASH,
  NODE_PATH,
  NODE_TRIE,
  reference,
  TABLE_UNIT_SHIFT,
  tableReference,
} from "./program.js";
import type { WordWriter } from "./word-writer.js";

/** A node has up to 2^12 children. */
const MAX_WIDTH = 12;
/** Words of a cache line; tables begin on one. */
const TABLE_UNIT = 1 << TABLE_UNIT_SHIFT;
/** With fewer bits at once a node had better follow the longest path. */
const LEAST_WIDTH = 3;
/** From so many different values of a whole word on, and where they are most of the items, they are looked up at once. */
const HASHED_WORDS = 4;
const WORD_BITS = 32;
const ALL_BITS = 128;

/** What a trie does with the rules it finds. A set of rules is a number, which means something to the target alone. */
export type TrieTarget = {
  /** The set with the rules of items [from, to), which are of one prefix, in it. */
  readonly add: (set: number, items: PrefixItems, from: number, to: number) => number;
  /** The set with those of items [from, to) in it whose prefix has to be tested yet. */
  readonly addUntested: (set: number, items: PrefixItems, from: number, to: number) => number;
  /** Up to so many items may be added untested. */
  readonly untested: number;
  /** A node has about so many children for as many items as may be added untested. */
  readonly childrenPerList: number;
  /** The node to go on at when the set is known. */
  readonly leaf: (set: number) => number;
  readonly isEmpty: (set: number) => boolean;
};

/**
 * Writes the nodes that lead from an address to the set of rules whose prefixes contain it. Whole addresses (or 32 bits of
 * them) are looked up by hash. Where shorter prefixes are dense a node compares the bits that all share and takes as many more
 * bits at once as leave at least half of its children in use. Where they are sparse or nested it follows the path of most of
 * them and branches by the number of bits that agree: whoever leaves the path leaves at least half of the prefixes behind.
 * So the number of steps is one to three for what people have, and never above the logarithm of the number of prefixes,
 * per 32-bit word.
 */
export class TrieBuilder {
  readonly #items: PrefixItems;
  readonly #firstWord: number;
  readonly #words: WordWriter;
  readonly #target: TrieTarget;
  /** Set at each item if it is known already, or null. */
  readonly #sets: Int32Array | null;
  /** By number of leading bits of the word: how many items share so many with the one before. */
  readonly #commons = new Int32Array(WORD_BITS + 1);

  /** @param firstWord index of the address's first 32-bit word in the packet's key */
  constructor(
    items: PrefixItems,
    firstWord: number,
    words: WordWriter,
    target: TrieTarget,
    sets: Int32Array | null = null,
  ) {
    this.#items = items;
    this.#firstWord = firstWord;
    this.#words = words;
    this.#target = target;
    this.#sets = sets;
  }

  /** @param depth bits that need not be looked at; @param settled rules that contain every address */
  build(depth: number, settled: number): number {
    return this.#node(0, this.#items.count, depth, settled);
  }

  /** The node for addresses that begin with the first `depth` bits of items [from, to); `settled` contain all of them. */
  #node(from: number, to: number, depth: number, settled: number): number {
    const first = this.#endOf(from, to, depth);
    const set = this.#with(settled, from, first);
    if (first === to) return this.#target.leaf(set);
    const wordEnd = (depth & ~31) + WORD_BITS;
    const isFew = to - first <= this.#target.untested && this.#isPlain(first, to);
    if (isFew && to - first <= HASHED_WORDS) return this.#untested(first, to, set);
    const { shortest, shared, wholeItems, wholeWords } = this.#look(first, to, wordEnd);
    if (wholeWords >= HASHED_WORDS && 2 * wholeItems >= to - first) return this.#hash(first, to, depth, set);
    if (isFew && 2 * wholeItems < to - first) return this.#untested(first, to, set);
    const isEnd = shared === shortest;
    const width = isEnd ? 0 : this.#width(to - first, shared, wordEnd);
    if (isEnd && (shared === wordEnd || this.#endOf(first, to, shared) === to)) {
      return this.#table(first, to, { depth, shared, width }, set);
    }
    return width < LEAST_WIDTH
      ? this.#path(first, to, depth, set)
      : this.#table(first, to, { depth, shared, width }, set);
  }

  /** Whether each item is one rule. */
  #isPlain(from: number, to: number): boolean {
    for (let i = from; i < to; i++) if (this.#items.rules[i]! < 0) return false;
    return true;
  }

  #untested(from: number, to: number, set: number): number {
    return this.#target.leaf(this.#target.addUntested(set, this.#items, from, to));
  }

  /**
   * One look at the items: bits of the shortest one and bits that all share, both up to the end of the word; how many
   * have the whole word, and how many different ones there are. Leaves #commons for {@link #width}.
   */
  #look(from: number, to: number, wordEnd: number) {
    const { bits, common } = this.#items;
    const word = this.#items.words[(wordEnd >> 5) - 1]!;
    const commons = this.#commons.fill(0);
    const start = wordEnd - WORD_BITS;
    let shortest = wordEnd;
    let shared = wordEnd;
    let wholeItems = 0;
    let wholeWords = 0;
    let lastWord = -1;
    for (let i = from; i < to; i++) {
      if (i > from) {
        const agreeing = common[i]!;
        if (agreeing < wordEnd) {
          commons[agreeing - start]!++;
          if (agreeing < shared) shared = agreeing;
        }
      }
      const length = bits[i]!;
      if (length < shortest) shortest = length;
      if (length < wordEnd) continue;
      wholeItems++;
      if (word[i] !== lastWord) wholeWords++;
      lastWord = word[i]!;
    }
    return { shortest, shared: Math.min(shared, shortest), wholeItems, wholeWords };
  }

  /** How many bits behind bit `base` are best looked at at once in so many items, after {@link #look}. */
  #width(items: number, base: number, wordEnd: number): number {
    let best = 1;
    let used = 1; // children
    const most = this.#mostWidth(items);
    for (let width = 1; width <= most && base + width <= wordEnd; width++) {
      used += this.#commons[(base + width - 1) & 31]!;
      if (used * 2 >= 1 << width) best = width;
    }
    return best;
  }

  /** Children with far fewer items than may be asked untested are a waste. */
  #mostWidth(items: number): number {
    const { untested, childrenPerList } = this.#target;
    if (untested === 0) return MAX_WIDTH;
    const children = Math.ceil((items * childrenPerList) / untested);
    return Math.min(MAX_WIDTH, Math.max(LEAST_WIDTH, WORD_BITS - Math.clz32(children)));
  }

  /** Looks whole words up; what shorter prefixes say of others is in a trie of their own. */
  #hash(from: number, to: number, depth: number, settled: number): number {
    const { bits } = this.#items;
    const word = this.#items.words[depth >> 5]!;
    const wordStart = depth & ~31;
    const wordEnd = wordStart + WORD_BITS;
    const values: number[] = [];
    const children: number[] = [];
    const short: number[] = [];
    const shortSets: number[] = [];
    const around: number[] = []; // places in `short` of those that contain the item, outermost first
    for (let i = from; i < to; ) {
      const value = word[i]!;
      while (around.length > 0) {
        const other = short[around.at(-1)!]!;
        if (wordStart + Math.clz32(word[other]! ^ value) >= bits[other]!) break;
        around.pop();
      }
      const set = around.length > 0 ? shortSets[around.at(-1)!]! : settled;
      let end = i + 1;
      if (bits[i]! < wordEnd) {
        while (end < to && bits[end] === bits[i] && word[end] === value) end++;
        const inside = this.#with(set, i, end);
        around.push(short.length);
        for (let k = i; k < end; k++) {
          short.push(k);
          shortSets.push(inside);
        }
      } else {
        while (end < to && word[end] === value) end++;
        values.push(value | 0);
        const isWhole = wordEnd === ALL_BITS;
        children.push(isWhole ? this.#target.leaf(this.#with(set, i, end)) : this.#node(i, end, wordEnd, set));
      }
      i = end;
    }
    const target = this.#target;
    const otherwise =
      short.length === 0
        ? target.leaf(settled)
        : new TrieBuilder(
            pickItems(this.#items, short),
            this.#firstWord,
            this.#words,
            target,
            Int32Array.from(shortSets),
          ).build(depth, settled);
    return reference(NODE_HASH, this.#words.append(hashTable(values, children, otherwise)), this.#keyWord(depth));
  }

  /** Compares bits depth…shared-1 and goes on by the next `width` bits. */
  #table(
    from: number,
    to: number,
    { depth, shared, width }: { readonly depth: number; readonly shared: number; readonly width: number },
    set: number,
  ): number {
    const keyWord = this.#keyWord(depth);
    const mask = bitsBetween(depth & 31, shared - (depth & ~31));
    const value = this.#wordOf(from, depth) & mask;
    // Without rules to fall back on, comparing can be left to what is below.
    const isTable = width > 0 && this.#target.isEmpty(set) && !this.#hasShort(from, to, shared + width);
    const otherwise = shared === depth || isTable ? 0 : this.#target.leaf(set);
    const children: number[] = [];
    if (width === 0) children.push(this.#node(from, to, shared, set));
    else {
      const known = isTable ? depth : shared + width;
      this.#fill(children, from, to, { base: shared, width, high: 1 << width, known }, set);
    }
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
    const at = this.#words.appendLine([...head, ...children]);
    return reference(NODE_TRIE, at, keyWord);
  }

  /** Follows the bits of most of the prefixes; a child per bit at which an address may leave them. */
  #path(from: number, to: number, depth: number, settled: number): number {
    const wordStart = depth & ~31;
    const wordEnd = wordStart + WORD_BITS;
    const children: number[] = [];
    let path = 0;
    let set = settled;
    let low = from;
    let high = to;
    let bit = depth;
    let blank = -1; // the answer where no prefix branches off, until the set changes
    for (; bit < wordEnd; bit++) {
      const first = this.#endOf(low, high, bit);
      if (first > low) {
        set = this.#with(set, low, first);
        low = first;
        blank = -1;
      }
      if (low === high) break;
      const mask = 1 << (31 - (bit & 31));
      const middle = this.#firstOne(low, high, bit);
      const isSplit = middle > low && middle < high;
      if (isSplit && bit > depth) {
        this.#look(low, high, wordEnd);
        if (this.#width(high - low, bit, wordEnd) >= LEAST_WIDTH) break;
      }
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
    const known = this.#wordOf(from, depth) & bitsBetween(0, depth & 31);
    const control = (depth & 31) | (count << COUNT_SHIFT);
    const at = this.#words.appendLine([control, known | path, ...children]);
    return reference(NODE_PATH, at, this.#keyWord(depth));
  }

  /** Adds the children up to `high`, below which items [from, to) lie; `known`: bits that are compared by then. */
  #fill(
    children: number[],
    from: number,
    to: number,
    slots: { readonly base: number; readonly width: number; readonly high: number; readonly known: number },
    settled: number,
  ): void {
    const { bits } = this.#items;
    const { base, width, high, known } = slots;
    let blank = -1;
    const blankUntil = (end: number) => {
      if (children.length < end && blank < 0) blank = this.#target.leaf(settled);
      while (children.length < end) children.push(blank);
    };
    let i = from;
    while (i < to) {
      const slot = this.#slotOf(i, base, width);
      const length = bits[i]!;
      const span = length >= base + width ? 1 : 1 << (base + width - length);
      let end = i + 1;
      while (end < to && this.#slotOf(end, base, width) < slot + span) end++;
      blankUntil(slot);
      if (span === 1) {
        children.push(this.#node(i, end, known, settled));
      } else {
        const next = this.#endOf(i, end, length); // the same prefix in other rules
        this.#fill(children, next, end, { ...slots, high: slot + span }, this.#with(settled, i, next));
      }
      i = end;
    }
    blankUntil(high);
  }

  /** The set with the rules of items [from, to), which are of one prefix. */
  #with(set: number, from: number, to: number): number {
    if (from === to) return set;
    return this.#sets === null ? this.#target.add(set, this.#items, from, to) : this.#sets[from]!;
  }

  /** Where those of items [from, to) end that have just `depth` bits; all share these. */
  #endOf(from: number, to: number, depth: number): number {
    const { bits } = this.#items;
    let at = from;
    while (at < to && bits[at]! <= depth) at++;
    return at;
  }

  /** Where in items [from, to), which share all bits before it, bit `bit` becomes 1. */
  #firstOne(from: number, to: number, bit: number): number {
    const word = this.#items.words[bit >> 5]!;
    const mask = 1 << (31 - (bit & 31));
    let low = from;
    let high = to;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((word[middle]! & mask) === 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Whether a prefix ends before bit `end`. */
  #hasShort(from: number, to: number, end: number): boolean {
    for (let i = from; i < to; i++) if (this.#items.bits[i]! < end) return true;
    return false;
  }

  #keyWord(depth: number): number {
    return this.#firstWord + (depth >> 5);
  }

  #wordOf(item: number, bit: number): number {
    return this.#items.words[bit >> 5]![item]!;
  }

  /** The `width` bits behind bit `base` as a number; both lie in one word. */
  #slotOf(item: number, base: number, width: number): number {
    return (this.#wordOf(item, base) >>> (WORD_BITS - (base & 31) - width)) & ((1 << width) - 1);
  }
}

/** A word with bits from…to-1 set, bit 0 the most significant. */
function bitsBetween(from: number, to: number): number {
  if (from === to) return 0;
  return (-1 >>> from) & (-1 << (WORD_BITS - to));
}
