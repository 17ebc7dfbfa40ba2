import { CHAIN_LEAST, CHAIN_NEXT, CHAIN_NODE, MORE_CHAIN, moreReference, NONE, recordAt } from "./program.js";
import { WordWriter } from "./word-writer.js";

/** Above every rule. */
export const NO_RULE = 0x7fff_ffff;
const CHAIN_WORDS = Math.max(CHAIN_NODE, CHAIN_NEXT, CHAIN_LEAST) + 1;
/** A set: its node, the first of its rules, and the first that takes all packets. */
const SET_NODE = 0;
const SET_LEAST = 1;
const SET_CUT = 2;
const SET_WORDS = 3;

/**
 * Sets of rules as nodes that are asked one after the other: what a prefix has of its own, and then what the shorter one
 * around it has. So each rule of a prefix is written once, however many prefixes lie within that one.
 */
export class Chains {
  readonly #words: WordWriter;
  /** What is known of each set, SET_*; its number is its place. */
  readonly #sets: WordWriter;
  /** By rule: the last set that was made by adding a node that begins with it, that node, and the set it was added to. */
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

  /** A set. @param first of its rules, {@link NO_RULE} in an empty one; @param cut the first that takes all packets, or {@link NO_RULE} */
  start(node: number, first: number, cut: number): number {
    const set = this.#sets.reserve(SET_WORDS);
    this.#sets.set(set + SET_NODE, node);
    this.#sets.set(set + SET_LEAST, first);
    this.#sets.set(set + SET_CUT, cut);
    return set;
  }

  node(set: number): number {
    return this.#sets.get(set + SET_NODE);
  }

  isEmpty(set: number): boolean {
    return this.node(set) === NONE;
  }

  /** The first rule that takes all packets; those behind it are never asked. */
  cut(set: number): number {
    return this.#sets.get(set + SET_CUT);
  }

  /** The set with the rules of a node in it. @param first of these, before the set's cut; @param cut as in {@link start} */
  add(set: number, node: number, first: number, cut: number): number {
    if (this.#madeFrom[first] === set && this.#madeOf[first] === node) return this.#made[first]!;
    const made = this.#link(set, node, first, cut);
    this.#madeFrom[first] = set;
    this.#madeOf[first] = node;
    this.#made[first] = made;
    return made;
  }

  #link(set: number, node: number, first: number, cut: number): number {
    const least = this.#sets.get(set + SET_LEAST);
    if (this.isEmpty(set) || cut < least) return this.start(node, first, cut);
    const at = this.#words.reserveLine(CHAIN_WORDS);
    this.#words.set(at + CHAIN_NODE, node);
    this.#words.set(at + CHAIN_NEXT, this.#sets.get(set + SET_NODE));
    this.#words.set(at + CHAIN_LEAST, recordAt(least));
    return this.start(
      moreReference(MORE_CHAIN, at),
      Math.min(first, least),
      Math.min(cut, this.#sets.get(set + SET_CUT)),
    );
  }
}
