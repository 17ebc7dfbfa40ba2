import { CHAIN_LEAST, CHAIN_NEXT, CHAIN_NODE, MORE_CHAIN, moreReference, NONE, recordAt } from "./program.js";
import { WordWriter } from "./word-writer.js";

/** Above every rule. */
export const NO_RULE = 0x7fff_ffff;
const CHAIN_WORDS = Math.max(CHAIN_NODE, CHAIN_NEXT, CHAIN_LEAST) + 1;
/**
 * A set: its own part's node; that part's rules: place in the lists, -2 - rule where it is one, or {@link NO_LIST}; the set
 * around it, or {@link NO_SET}; the first of all its rules; the first that takes all packets; the reference to it, 0 until
 * somebody asks for it.
 */
const SET_NODE = 0;
const SET_LIST = 1;
const SET_REST = 2;
const SET_LEAST = 3;
const SET_CUT = 4;
const SET_LINK = 5;
const SET_WORDS = 6;
const NO_LIST = -1;
const NO_SET = -1;
const ONE_RULE = -2;

/** Rules that are asked together, as part of a set. */
export type Part = {
  readonly node: number;
  /** Ascending; null where the part must stay as it is. */
  readonly rules: readonly number[] | null;
  /** The first of its rules, {@link NO_RULE} if there is none. */
  readonly first: number;
  /** The first that takes all packets, or {@link NO_RULE}. */
  readonly cut: number;
};

/**
 * Sets of rules as parts that are asked one after the other: what a prefix has of its own, and then what the shorter one
 * around it has. So each rule of a prefix is written once, however many prefixes lie within that one.
 */
export class Chains {
  readonly #words: WordWriter;
  /** What is known of each set, SET_*; its number is its place. */
  readonly #sets: WordWriter;
  readonly #lists: (readonly number[])[] = [];
  /** By rule: the last set that was made by adding a part that begins with it, that part's node, and the set it was added to. */
  readonly #made: Int32Array;
  readonly #madeOf: Int32Array;
  readonly #madeFrom: Int32Array;

  constructor(words: WordWriter, rules: number) {
    this.#words = words;
    this.#sets = new WordWriter(rules);
    this.#made = new Int32Array(rules);
    this.#madeOf = new Int32Array(rules);
    this.#madeFrom = new Int32Array(rules).fill(-1);
  }

  /** A set of one part. */
  start({ node, rules, first, cut }: Part): number {
    const list = rules === null ? NO_LIST : this.#lists.push(rules) - 1;
    return this.#set(node, list, NO_SET, first, cut, node);
  }

  /** The set with a part of one rule in it, which is before the set's cut. @param cut as in {@link Part} */
  addOne(set: number, node: number, rule: number, cut: number): number {
    if (this.#madeFrom[rule] === set && this.#madeOf[rule] === node) return this.#made[rule]!;
    const made = this.#add(set, node, ONE_RULE - rule, rule, cut);
    this.#madeFrom[rule] = set;
    this.#madeOf[rule] = node;
    this.#made[rule] = made;
    return made;
  }

  /** The set with a part in it, whose first rule is before the set's cut. */
  add(set: number, { node, rules, first, cut }: Part): number {
    if (this.#madeFrom[first] === set && this.#madeOf[first] === node) return this.#made[first]!;
    const made = this.#add(set, node, rules === null ? NO_LIST : this.#lists.push(rules) - 1, first, cut);
    this.#madeFrom[first] = set;
    this.#madeOf[first] = node;
    this.#made[first] = made;
    return made;
  }

  /** The node where the set is asked. */
  node(set: number): number {
    const link = this.#sets.get(set + SET_LINK);
    if (link !== 0) return link;
    const rest = this.#sets.get(set + SET_REST);
    const next = this.node(rest);
    const at = this.#words.reserveLine(CHAIN_WORDS);
    this.#words.set(at + CHAIN_NODE, this.#sets.get(set + SET_NODE));
    this.#words.set(at + CHAIN_NEXT, next);
    this.#words.set(at + CHAIN_LEAST, recordAt(this.#sets.get(rest + SET_LEAST)));
    const made = moreReference(MORE_CHAIN, at);
    this.#sets.set(set + SET_LINK, made);
    return made;
  }

  isEmpty(set: number): boolean {
    return this.#sets.get(set + SET_NODE) === NONE;
  }

  /** The first rule that takes all packets; those behind it are never asked. */
  cut(set: number): number {
    return this.#sets.get(set + SET_CUT);
  }

  /** The rules of the part that was added last, or null where it must stay as it is. */
  lastPart(set: number): readonly number[] | null {
    const list = this.#sets.get(set + SET_LIST);
    return list === NO_LIST ? null : list <= ONE_RULE ? [ONE_RULE - list] : this.#lists[list]!;
  }

  /** The set without the part that was added last, or null if that is all of it. */
  rest(set: number): number | null {
    const rest = this.#sets.get(set + SET_REST);
    return rest === NO_SET ? null : rest;
  }

  #add(set: number, node: number, list: number, first: number, cut: number): number {
    if (node === NONE) return set; // its rules ask for no port at all
    const least = this.#sets.get(set + SET_LEAST);
    if (this.isEmpty(set) || cut < least) return this.#set(node, list, NO_SET, first, cut, node);
    return this.#set(node, list, set, Math.min(first, least), Math.min(cut, this.cut(set)), 0);
  }

  #set(node: number, list: number, rest: number, least: number, cut: number, link: number): number {
    const set = this.#sets.reserve(SET_WORDS);
    this.#sets.set(set + SET_NODE, node);
    this.#sets.set(set + SET_LIST, list);
    this.#sets.set(set + SET_REST, rest);
    this.#sets.set(set + SET_LEAST, least);
    this.#sets.set(set + SET_CUT, cut);
    this.#sets.set(set + SET_LINK, link);
    return set;
  }
}
