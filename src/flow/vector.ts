import { Budget, BudgetExceeded } from "./budget.js";
import type { EntryWriter } from "./entries.js";
import { buildPortTree, type PortInterval, portChanges } from "./port-tree.js";
import { BLOCK_RULES, ENTRY_WORDS, NODE_SET, NODE_VECTOR, reference, SET_BLOCK_WORDS } from "./program.js";
import { DESTINATION, DPORT, firstBit, PROTOCOL, portsOf, type RuleCode, SOURCE, SPORT } from "./rule-code.js";
import {
  type BitString,
  commonBits,
  forGraft,
  sortItems,
  TrieBuilder,
  type TrieItem,
  type TrieTarget,
} from "./trie.js";
import type { WordWriter } from "./word-writer.js";

const BLOCK_WORDS = BLOCK_RULES / 32;
/** Bits of addresses and ports that are looked at, level by level coarser until the sets have room; 0 asks nothing. */
const ADDRESS_BITS = { 4: [128, 120, 116, 112, 108, 104, 100], 6: [128, 64, 48, 40, 32, 24, 16, 8] } as const;
const PORT_BITS = [16, 14, 12, 10, 8, 6, 4] as const;
const ADDRESS_DIMENSIONS = [DESTINATION, SOURCE] as const;
const PORT_DIMENSIONS = [DPORT, SPORT] as const;

/** 1024 rules, never changed in place; `at`: word index where its words that are not 0 were written, or -1. */
type Block = { readonly words: Int32Array; at: number };
/** A set of rules by their place in the vector; `node`: where it was written, or 0. */
type RuleSet = { readonly blocks: readonly Block[]; node: number };

const NO_RULES: Block = { words: new Int32Array(BLOCK_WORDS), at: 0 };

/**
 * Writes the rules as bit sets, for rule sets whose decision graph would be too large. Where one dimension alone has more
 * sets of rules than the room allows it is looked at with fewer bits, so that sets hold more rules than fit; then each rule is
 * tested as a whole.
 */
export class Vector {
  readonly #codes: readonly RuleCode[];
  readonly #entries: EntryWriter;
  readonly #words: WordWriter;
  /** Rules in evaluation order, by place in the sets. */
  readonly #rules: readonly number[];
  readonly #blocks: number;

  constructor(codes: readonly RuleCode[], rules: readonly number[], entries: EntryWriter, words: WordWriter) {
    this.#codes = codes;
    this.#rules = rules;
    this.#entries = entries;
    this.#words = words;
    this.#blocks = Math.ceil(rules.length / BLOCK_RULES);
  }

  /** The nodes for IPv4 and IPv6 packets. @param room words that the sets may take */
  build(room: number): readonly [number, number] {
    const dimensions = 2 * ADDRESS_DIMENSIONS.length + PORT_DIMENSIONS.length;
    const share = Math.floor(room / dimensions);
    const addresses4 = ADDRESS_DIMENSIONS.map((dimension) => this.#addresses(dimension, 4, share));
    const addresses6 = ADDRESS_DIMENSIONS.map((dimension, i) =>
      this.#addresses(dimension, 6, share, addresses4[i]!.root),
    );
    const ports = PORT_DIMENSIONS.map((dimension) => this.#ports(dimension, share));
    const isExact = [...addresses4, ...addresses6, ...ports].every((part) => part.isExact);
    const all = this.#write(this.#add(this.#none(), this.#rules.keys()));
    const at = this.#words.reserve(this.#rules.length * ENTRY_WORDS);
    for (const [place, rule] of this.#rules.entries()) {
      this.#entries.write(at + place * ENTRY_WORDS, rule, 1 << PROTOCOL, { isWhole: !isExact });
    }
    const [v4, v6] = [addresses4, addresses6].map((addresses) => {
      const roots = [...addresses, ...ports].map(({ root }) => root);
      return reference(NODE_VECTOR, this.#words.append([this.#blocks, at, all, ...roots]));
    });
    return [v4!, v6!];
  }

  /** The first level whose sets have room. */
  #coarsen(levels: readonly number[], share: number, write: (bits: number, budget: Budget) => number) {
    const start = this.#words.length;
    for (const [level, bits] of levels.entries()) {
      try {
        const budget = new Budget(Number.POSITIVE_INFINITY, start + share);
        return { root: write(bits, budget), isExact: level === 0 };
      } catch (error) {
        if (!(error instanceof BudgetExceeded)) throw error;
        this.#words.truncate(start);
        this.#forget(start);
      }
    }
    return { root: 0, isExact: false };
  }

  /** @param graft root for IPv4 addresses in IPv6 packets, or 0 */
  #addresses(dimension: (typeof ADDRESS_DIMENSIONS)[number], family: 4 | 6, share: number, graft = 0) {
    const all: TrieItem[] = [];
    const settled: number[] = [];
    for (const [place, rule] of this.#rules.entries()) {
      const code = this.#codes[rule]!;
      const prefixes = (dimension === DESTINATION ? code.destinations : code.sources)[family];
      if (prefixes === null) settled.push(place);
      else for (const prefix of prefixes) all.push({ prefix, rule: place });
    }
    if (settled.length === this.#rules.length) return { root: 0, isExact: true };
    const always = this.#add(this.#none(), settled);
    const whole = sortItems(all);
    const levels: readonly number[] = ADDRESS_BITS[family];
    return this.#coarsen(levels, share, (bits, budget) => {
      const isWhole = bits === levels[0];
      const items = isWhole && graft !== 0 ? forGraft(whole) : whole;
      if (!this.#hasRoom(countPrefixes(items, bits), share)) throw new BudgetExceeded();
      const cut = isWhole ? items : items.map(({ prefix, rule }) => ({ prefix: shorten(prefix, bits), rule }));
      const target: TrieTarget<RuleSet> = {
        add: (set, rules) => this.#add(set, rules),
        leaf: (set) => this.#write(set),
        spend: () => budget.spend(0, this.#words.length),
        isEmpty: () => false,
        checkedLeaf: () => null,
      };
      const firstWord = dimension === DESTINATION ? 4 : 0;
      const trie = new TrieBuilder<RuleSet>(cut, firstWord, this.#words, target, isWhole ? graft : 0);
      return trie.build(firstBit(family), always);
    });
  }

  #ports(dimension: (typeof PORT_DIMENSIONS)[number], share: number) {
    const places = [...this.#rules.keys()];
    const rangesOf = (place: number) => portsOf(this.#codes[this.#rules[place]!]!, dimension);
    if (places.every((place) => rangesOf(place) === null)) return { root: 0, isExact: true };
    return this.#coarsen(PORT_BITS, share, (bits, budget) => {
      const rest = (1 << (16 - bits)) - 1;
      const coarse = (place: number) =>
        rangesOf(place)?.map(({ first, last }) => ({ first: first & ~rest, last: last | rest })) ?? null;
      const counts = new Int32Array(places.length); // coarse ranges of a rule may overlap
      let set = this.#none();
      const intervals: PortInterval[] = [];
      for (const { first, enter, leave } of portChanges(places, bits === 16 ? rangesOf : coarse)) {
        for (const place of enter) counts[place]!++;
        for (const place of leave) counts[place]!--;
        set = this.#add(set, enter);
        const gone = leave.filter((place) => counts[place] === 0);
        set = this.#remove(set, gone);
        budget.spend(0, this.#words.length);
        intervals.push({ first, node: this.#write(set) });
      }
      return buildPortTree(this.#words, intervals, dimension === SPORT);
    });
  }

  /** Whether so many different sets, each with a word or two of its own, may have room. */
  #hasRoom(sets: number, share: number): boolean {
    return sets * (SET_BLOCK_WORDS * this.#blocks + 1) <= share;
  }

  #none(): RuleSet {
    return { blocks: Array.from({ length: this.#blocks }, () => NO_RULES), node: 0 };
  }

  #add(set: RuleSet, places: Iterable<number>): RuleSet {
    return this.#change(set, places, true);
  }

  #remove(set: RuleSet, places: Iterable<number>): RuleSet {
    return this.#change(set, places, false);
  }

  #change(set: RuleSet, places: Iterable<number>, isIn: boolean): RuleSet {
    const blocks = [...set.blocks];
    let hasChanged = false;
    for (const place of places) {
      const index = Math.floor(place / BLOCK_RULES);
      const word = (place % BLOCK_RULES) >> 5;
      const bit = 1 << (place & 31);
      if (((blocks[index]!.words[word]! & bit) !== 0) === isIn) continue;
      hasChanged = true;
      if (blocks[index] === set.blocks[index]) blocks[index] = { words: blocks[index]!.words.slice(), at: -1 };
      blocks[index]!.words[word]! ^= bit;
    }
    return hasChanged ? { blocks, node: 0 } : set;
  }

  readonly #written: (Block | RuleSet)[] = [];

  #write(set: RuleSet): number {
    if (set.node !== 0) return set.node;
    const heads = set.blocks.flatMap((block) => {
      if (block.at < 0) {
        block.at = this.#words.append(block.words.filter((word) => word !== 0));
        this.#written.push(block);
      }
      return [block.words.reduce((summary, word, i) => (word === 0 ? summary : summary | (1 << i)), 0), block.at];
    });
    set.node = reference(NODE_SET, this.#words.append(heads));
    this.#written.push(set);
    return set.node;
  }

  /** What was written is taken back. */
  #forget(start: number): void {
    for (const one of this.#written) {
      if ("node" in one) one.node = 0;
      else if (one.at >= start) one.at = -1;
    }
    this.#written.length = 0;
  }
}

/** Different prefixes among sorted ones when they are cut to `bits` bits. */
function countPrefixes(items: readonly TrieItem[], bits: number): number {
  let count = 0;
  let before: BitString | null = null;
  for (const { prefix } of items) {
    const isSame = before !== null && Math.min(bits, before.bits) === Math.min(bits, prefix.bits);
    if (!isSame || commonBits(before!, prefix) < Math.min(bits, prefix.bits)) count++;
    before = prefix;
  }
  return count;
}

/** The prefix with at most `bits` bits; it contains the longer one. */
function shorten(prefix: BitString, bits: number): BitString {
  if (prefix.bits <= bits) return prefix;
  const words = prefix.words.map((word, i) => {
    const kept = Math.min(32, Math.max(0, bits - i * 32));
    return kept === 0 ? 0 : (word & (-1 << (32 - kept))) >>> 0;
  });
  return { words, bits };
}
