import type { Budget } from "./budget.js";
import { canTest, type EntryWriter } from "./entries.js";
import { buildFieldNode, commonField, type FieldTest, fieldsOf } from "./field-node.js";
import { buildPortTree, type PortInterval, portChanges } from "./port-tree.js";
import { CLASS_PING, CLASSES } from "./program.js";
import {
  covers,
  DESTINATION,
  DIMENSIONS,
  DPORT,
  firstBit,
  PROTOCOL,
  portsOf,
  type RuleCode,
  SOURCE,
  SPORT,
} from "./rule-code.js";
import { forGraft, sortItems, TrieBuilder, type TrieItem, type TrieTarget } from "./trie.js";
import type { WordWriter } from "./word-writer.js";

/** Up to so many rules a leaf tests for protocol and ports by itself. */
const TESTED_IN_LEAF = 2;
/** Of up to so many rules each is compared with those before it. */
const COMPARED_RULES = 24;
/** From so many byte matches of one field on its value is looked up. */
const FIELD_RULES = 4;

const EVERY_DIMENSION = (1 << DIMENSIONS) - 1;
const ADDRESSES = (1 << DESTINATION) | (1 << SOURCE);

/** What is known of the packets that come to a node. */
type State = {
  /** Bit set of the dimensions in which nothing is known yet. */
  readonly open: number;
  /** The packets are echo requests under promiscuous ping: only addresses matter. */
  readonly isPing: boolean;
  readonly family: 4 | 6;
  /** Fields whose byte matches are settled: the rules that are left fit in them. */
  readonly fields: readonly FieldTest[];
  /** Node for IPv4 addresses in the next address node, or 0. */
  readonly graft: number;
};

/**
 * Writes a decision graph for rules: a tree whose equal branches are written once.
 *
 * Each node asks one dimension, that in which most of the rules still possible ask for something, and tells exactly
 * which of them remain. A set of rules ends behind the first that takes every packet that gets there. The cost of a packet
 * is the depth; what grows with nasty rules is the number of nodes, and that is what the budget bounds.
 */
export class Graph {
  readonly #codes: readonly RuleCode[];
  readonly #entries: EntryWriter;
  readonly #words: WordWriter;
  readonly #budget: Budget;
  /** What roots wrote for IPv4: where only destinations matter they serve IPv4 addresses in IPv6 packets too. */
  readonly #roots4: number[] = [];
  /** Nodes by state and rules. */
  readonly #known = new Map<number, { readonly state: string; readonly rules: readonly number[]; node: number }[]>();

  constructor(codes: readonly RuleCode[], entries: EntryWriter, words: WordWriter, budget: Budget) {
    this.#codes = codes;
    this.#entries = entries;
    this.#words = words;
    this.#budget = budget;
  }

  /** The nodes where packets of a family begin, per protocol class. @throws {BudgetExceeded} */
  roots(rules: readonly number[], family: 4 | 6): readonly number[] {
    const hasSources = rules.some((rule) => ((this.#codes[rule]!.asks >> SOURCE) & 1) === 1);
    return Array.from({ length: CLASSES }, (_, protocolClass) => {
      const isPing = protocolClass === CLASS_PING;
      const fitting = rules.filter((rule) => ((this.#codes[rule]!.classes >> protocolClass) & 1) === 1);
      const open = isPing ? ADDRESSES : EVERY_DIMENSION & ~(1 << PROTOCOL);
      const graft = family === 6 && !hasSources ? this.#roots4[protocolClass]! : 0;
      const node = this.#node(fitting, { open, isPing, family, fields: [], graft });
      if (family === 4) this.#roots4.push(node);
      return node;
    });
  }

  #node(candidates: readonly number[], state: State): number {
    const rules = this.#cut(candidates, state);
    const asked = this.#asked(rules, state);
    const { isPing, family, fields } = state;
    const text = `${asked} ${isPing} ${(asked & ADDRESSES) === 0 ? 0 : family} ${fields.map(({ key }) => key).join(" ")}`;
    const hash = hashOf(rules);
    const sameHash = this.#known.get(hash) ?? [];
    const before = sameHash.find((known) => known.state === text && isEqual(known.rules, rules));
    this.#budget.spend(rules.length + 1, this.#words.length);
    if (before !== undefined) return before.node;
    const node = this.#write(rules, asked, state);
    sameHash.push({ state: text, rules, node });
    this.#known.set(hash, sameHash);
    return node;
  }

  #write(rules: readonly number[], asked: number, state: State): number {
    if (asked === 0) return this.#fieldNode(rules, state);
    if (this.#isLeaf(rules, asked, state.family)) return this.#entries.leaf(rules, asked, state.family);
    const isFew = rules.length <= TESTED_IN_LEAF;
    const isGrafted = state.graft !== 0 && ((asked >> DESTINATION) & 1) === 1;
    const next = isGrafted
      ? DESTINATION
      : this.#next(rules, isFew && (asked & ADDRESSES) !== 0 ? asked & ADDRESSES : asked);
    if (next === DESTINATION || next === SOURCE) return this.#addressNode(rules, next, state);
    return this.#portNode(rules, next, state);
  }

  /** Whether a leaf can test what the rules still ask. */
  #isLeaf(rules: readonly number[], asked: number, family: 4 | 6): boolean {
    return rules.length <= TESTED_IN_LEAF && rules.every((rule) => canTest(this.#codes[rule]!, asked, family));
  }

  /**
   * The rules that can be reached: up to the first that takes every packet, and of few rules only those that no earlier
   * one covers.
   */
  #cut(rules: readonly number[], state: State): readonly number[] {
    const mask = state.isPing ? state.open & ADDRESSES : state.open;
    for (let i = 0; i < rules.length - 1; i++) {
      const code = this.#codes[rules[i]!]!;
      if ((code.asks & mask) === 0 && takesAll(code, state)) return this.#uncovered(rules.slice(0, i + 1), mask, state);
    }
    return this.#uncovered(rules, mask, state);
  }

  #uncovered(rules: readonly number[], mask: number, state: State): readonly number[] {
    if (rules.length < 2 || rules.length > COMPARED_RULES) return rules;
    const left: number[] = [];
    for (const rule of rules) {
      const code = this.#codes[rule]!;
      const isCovered = left.some((before) => {
        const earlier = this.#codes[before]!;
        return takesAll(earlier, state) && covers(earlier, code, mask);
      });
      if (!isCovered) left.push(rule);
    }
    return left.length === rules.length ? rules : left;
  }

  /** Bit set of the dimensions that are open and in which a rule asks for something. */
  #asked(rules: readonly number[], { open, isPing }: State): number {
    let asked = 0;
    for (const rule of rules) asked |= this.#codes[rule]!.asks;
    return asked & (isPing ? open & ADDRESSES : open);
  }

  /** The dimension that divides the rules best: into many values, and few rules that take them all. */
  #next(rules: readonly number[], asked: number): number {
    for (const dimension of [DESTINATION, DPORT, SOURCE, SPORT]) if (asked === 1 << dimension) return dimension;
    let best = DESTINATION;
    let most = -1;
    for (const dimension of [DESTINATION, DPORT, SOURCE, SPORT]) {
      if (((asked >> dimension) & 1) === 0) continue;
      const values = new Set<string>();
      let any = 0;
      for (const rule of rules) {
        const { asks, texts } = this.#codes[rule]!;
        if (((asks >> dimension) & 1) === 0) any++;
        else values.add(texts[dimension]!);
      }
      const score = values.size / (any + 1);
      if (score > most) {
        most = score;
        best = dimension;
      }
    }
    return best;
  }

  #addressNode(rules: readonly number[], dimension: typeof DESTINATION | typeof SOURCE, state: State): number {
    const { family } = state;
    const items: TrieItem[] = [];
    const settled: number[] = [];
    for (const rule of rules) {
      const code = this.#codes[rule]!;
      const prefixes = (dimension === DESTINATION ? code.destinations : code.sources)[family];
      if (prefixes === null) settled.push(rule);
      else for (const prefix of prefixes) items.push({ prefix, rule });
    }
    const inside: State = { ...state, open: state.open & ~(1 << dimension), graft: 0 };
    const target: TrieTarget<readonly number[]> = {
      add: (set, more) => {
        this.#budget.spend(set.length + more.length, this.#words.length);
        return this.#cut(merge(set, more), inside);
      },
      leaf: (set) => this.#node(set, inside),
      isEmpty: (set) => set.length === 0,
      spend: (prefixes) => this.#budget.spend(prefixes, this.#words.length),
      checkedLeaf: (set, check) => {
        const left = this.#cut(set, inside);
        const asked = this.#asked(left, inside);
        const isLeaf = (asked & ADDRESSES) === 0 && this.#isLeaf(left, asked, family);
        return isLeaf ? this.#entries.leaf(left, asked, family, { check }) : null;
      },
    };
    const firstWord = dimension === DESTINATION ? 4 : 0;
    const trie = new TrieBuilder(
      sortItems(state.graft === 0 ? items : forGraft(items)),
      firstWord,
      this.#words,
      target,
      state.graft,
    );
    return trie.build(firstBit(family), settled);
  }

  #portNode(rules: readonly number[], dimension: number, state: State): number {
    const inside: State = { ...state, open: state.open & ~(1 << dimension) };
    let present: readonly number[] = [];
    const intervals: PortInterval[] = [];
    for (const { first, enter, leave } of portChanges(rules, (rule) => portsOf(this.#codes[rule]!, dimension))) {
      this.#budget.spend(present.length + enter.length, this.#words.length);
      if (leave.length > 0) present = present.filter((rule) => !leave.includes(rule));
      present = merge(present, enter);
      intervals.push({ first, node: this.#node(present, inside) });
    }
    return buildPortTree(this.#words, intervals, dimension === SPORT);
  }

  /** The end, but for byte matches: where many rules ask for values of one field, its value is looked up. */
  #fieldNode(rules: readonly number[], state: State): number {
    const field = state.isPing
      ? null
      : commonField(
          rules.map((rule) => this.#codes[rule]!),
          state.fields,
          FIELD_RULES,
        );
    if (field === null) {
      const isSettledByFields = rules.every((rule) =>
        fieldsOf(this.#codes[rule]!).every((one) => isSettled(one, state.fields)),
      );
      return this.#entries.leaf(rules, 0, state.family, { isMatched: isSettledByFields });
    }
    const fields = [...state.fields, field];
    return buildFieldNode(this.#words, field, rules, this.#codes, (left) => this.#node(left, { ...state, fields }));
  }
}

/** Whether the rule takes every packet for which what it asks in the open dimensions holds. */
function takesAll(code: RuleCode, { isPing, fields }: State): boolean {
  if (code.isLast) return true;
  if (code.rule.target === "") return false;
  return isPing || (fields.length > 0 && fieldsOf(code).every((field) => isSettled(field, fields)));
}

function isSettled(field: FieldTest, fields: readonly FieldTest[]): boolean {
  return fields.some(({ key }) => key === field.key);
}

/** Union of two ascending lists, the second perhaps with repetitions. */
function merge(a: readonly number[], b: readonly number[]): readonly number[] {
  const result: number[] = [];
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    const isA = j >= b.length || (i < a.length && a[i]! <= b[j]!);
    const next = isA ? a[i++]! : b[j++]!;
    if (result.length === 0 || result[result.length - 1] !== next) result.push(next);
  }
  return result;
}

function hashOf(rules: ArrayLike<number>): number {
  let hash = rules.length;
  for (let i = 0; i < rules.length; i++) hash = (Math.imul(hash, 0x9e37_79b1) ^ rules[i]!) | 0;
  return hash;
}

function isEqual(a: ArrayLike<number>, b: ArrayLike<number>): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
