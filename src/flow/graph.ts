import { Chains, NO_RULE } from "./chain.js";
import { hasFewPorts, inOrder } from "./dimension.js";
import { buildFieldNode, commonField } from "./field-node.js";
import {
  buildPortTree,
  divide,
  gatherPorts,
  type PortChange,
  type PortInterval,
  type PortItems,
  type PortTarget,
  portChanges,
  weighPorts,
} from "./port-tree.js";
import { gatherItems, type ItemMemory, weigh, withMapped } from "./prefix-items.js";
import { MAPPED_BITS } from "./prefix-list.js";
import {
  CLASS_PING,
  CLASSES,
  INDEX_SHIFT,
  LIST_COUNT_SHIFT,
  LIST_ENTRY_WORDS,
  LIST_FIRST,
  MORE_CLASS,
  moreReference,
  NODE_LIST,
  NONE,
  OPEN_MATCHES,
  recordAt,
  reference,
} from "./program.js";
import type { RecordWriter } from "./records.js";
import {
  ADDRESSES,
  asksOf,
  covers,
  DESTINATION,
  DIMENSIONS,
  DPORT,
  hullOf,
  PROTOCOL,
  portsOf,
  type RuleCode,
  SOURCE,
  SPORT,
  type View,
} from "./rule-code.js";
import { ascending, hashOf, isEqual, merge } from "./rule-list.js";
import { isLast, isSettled, NO_CLASS, type State } from "./state.js";
import { TrieBuilder, type TrieTarget } from "./trie.js";
import type { WordWriter } from "./word-writer.js";

export type GraphLimits = {
  /** Up to so many rules are asked one after the other. */
  readonly listed: number;
  /** The same of rules of few ports, where looking up addresses would leave many of them. */
  readonly listedOfFewPorts: number;
  /** More rules than that around a prefix, on average, make it worth while to write them all there. */
  readonly shared: number;
  /** As long as they are so many at most, per rule and besides; else a set has what is its own, and a link to the next. */
  readonly copies: number;
  readonly copiesBesides: number;
  /** Rules that are asked without having looked at all of their prefix or range, and where most take few ports. */
  readonly untested: number;
  readonly untestedOfFewPorts: number;
};

/** Of up to so many rules each is compared with those before it. */
const COMPARED_RULES = 24;
/** From so many byte matches of one field on its value is looked up. */
const FIELD_RULES = 4;
/** A look-up of a field leads to its rules about so many times. */
const FIELD_COPIES = 4;
/** Where the addresses begin in the packet's key, in words. */
const KEY_SOURCE = 0;
const KEY_DESTINATION = 4;
/** A look-up that leaves more of the rules than that at a hot spot is not worth its cost for few rules. */
const HOT_SHARE = 0.25;
/** A dimension in which a rule in two is left divides badly. */
const BAD_SHARE = 0.5;

const EVERY_DIMENSION = (1 << DIMENSIONS) - 1;
const PORTS = (1 << DPORT) | (1 << SPORT);

/**
 * Writes a decision graph for rules. Each node asks one dimension, that which divides its rules best, and tells which of
 * them remain; where few are left they are asked one after the other. Where the sets of rules that a dimension leads to
 * are bearable all together each is written whole and goes on being divided. Where they are not, as prefixes are nested or rules
 * ask for nothing in that dimension, a set is a chain: what is its own, and then what is around it.
 */
export class Graph {
  readonly #codes: readonly RuleCode[];
  readonly #records: RecordWriter;
  readonly #words: WordWriter;
  readonly #limits: GraphLimits;
  readonly #chains: Chains;
  /** Nodes by state and rules. */
  readonly #known = new Map<number, { readonly state: string; readonly rules: readonly number[]; node: number }[]>();
  readonly #memory: ItemMemory;
  /** Rules that may still be copied. */
  #credit: number;

  constructor(
    codes: readonly RuleCode[],
    records: RecordWriter,
    words: WordWriter,
    limits: GraphLimits,
    memory: ItemMemory,
  ) {
    this.#codes = codes;
    this.#records = records;
    this.#words = words;
    this.#limits = limits;
    this.#memory = memory;
    this.#chains = new Chains(words, codes.length);
    this.#credit = limits.copiesBesides * 64 + limits.copies * codes.reduce((sum, code) => sum + asksOf(code), 0);
  }

  /** The nodes where packets begin: IPv4 by protocol class, then IPv6. @param rules ascending */
  roots(rules: readonly number[]): readonly number[] {
    const hasSources = rules.some((rule) => ((this.#codes[rule]!.asks >> SOURCE) & 1) === 1);
    const of = (view: View, graft: number) => {
      const possible = rules.filter((rule) => this.#codes[rule]!.views[view]);
      return this.#node(possible, { open: EVERY_DIMENSION, protocolClass: NO_CLASS, view, fields: [], graft });
    };
    const v4 = of(4, 0);
    return [v4, of(6, hasSources ? 0 : v4)].flatMap((node) => this.#byClass(node));
  }

  /** The nodes to which a node that asks the protocol class first leads. */
  #byClass(node: number): readonly number[] {
    const isClass = (node & moreReference(0x0f, 0)) === moreReference(MORE_CLASS, 0);
    return Array.from({ length: CLASSES }, (_, i) => (isClass ? this.#words.get((node >>> INDEX_SHIFT) + i) : node));
  }

  #node(candidates: readonly number[], state: State): number {
    const rules = this.#cut(candidates, state);
    if (rules.length === 0) return NONE;
    const asked = this.#asked(rules, state);
    if (rules.length === 1) return this.#records.reference(rules[0]!, this.#open(rules, asked, state), state.view);
    const { protocolClass, view, fields } = state;
    const known = protocolClass === NO_CLASS || protocolClass === CLASS_PING ? protocolClass : CLASSES; // others are alike
    const text = `${asked} ${known} ${(asked & ADDRESSES) === 0 ? 0 : view} ${fields.map(({ key }) => key).join(" ")}`;
    const hash = hashOf(rules);
    const sameHash = this.#known.get(hash) ?? [];
    const before = sameHash.find((other) => other.state === text && isEqual(other.rules, rules));
    if (before !== undefined) return before.node;
    const node =
      rules.length <= this.#limits.listed
        ? this.#list(rules, this.#open(rules, asked, state), view)
        : this.#ask(rules, asked, state);
    sameHash.push({ state: text, rules, node });
    this.#known.set(hash, sameHash);
    return node;
  }

  /** Asks the dimension that divides the rules best. */
  #ask(rules: readonly number[], asked: number, state: State): number {
    const isOpen = state.protocolClass === NO_CLASS;
    const dimensions = state.graft === 0 ? inOrder(this.#codes, rules, asked) : [DESTINATION];
    for (const [i, dimension] of dimensions.entries()) {
      if (((1 << dimension) & PORTS) !== 0)
        return isOpen ? this.#classNode(rules, state) : this.#portNode(rules, dimension, state);
      const node = this.#addressNode(rules, dimension, state, i < dimensions.length - 1);
      if (node !== null) return node;
    }
    if (isOpen && rules.some((rule) => (this.#codes[rule]!.asks >> PROTOCOL) & 1)) return this.#classNode(rules, state);
    return this.#fieldNode(rules, asked, state);
  }

  /**
   * The rules that can be reached: up to the first that takes every packet, and of few rules only those that no earlier
   * one covers.
   */
  #cut(rules: readonly number[], state: State): readonly number[] {
    for (let i = 0; i < rules.length - 1; i++) {
      if (this.#takesAll(rules[i]!, state)) return this.#uncovered(rules.slice(0, i + 1), state);
    }
    return this.#uncovered(rules, state);
  }

  #uncovered(rules: readonly number[], state: State): readonly number[] {
    if (rules.length < 2 || rules.length > COMPARED_RULES) return rules;
    const left: number[] = [];
    for (const rule of rules) {
      const code = this.#codes[rule]!;
      const isCovered = left.some((before) => {
        const earlier = this.#codes[before]!;
        return isLast(earlier, state) && covers(earlier, code, state.open);
      });
      if (!isCovered) left.push(rule);
    }
    return left.length === rules.length ? rules : left;
  }

  #takesAll(rule: number, state: State): boolean {
    const code = this.#codes[rule]!;
    return (code.asks & state.open) === 0 && isLast(code, state);
  }

  /** The first of the rules that takes all packets. */
  #cutOf(rules: readonly number[], state: State): number {
    return rules.find((rule) => this.#takesAll(rule, state)) ?? NO_RULE;
  }

  /** Bit set of the dimensions, without protocol, that are open and in which a rule asks for something. */
  #asked(rules: readonly number[], { open }: State): number {
    let asked = 0;
    for (const rule of rules) asked |= this.#codes[rule]!.asks;
    return asked & open & (ADDRESSES | PORTS);
  }

  /** What rules have to be tested for: OPEN_*. */
  #open(rules: readonly number[], asked: number, { fields }: State): number {
    const isMatched = rules.every((rule) => this.#codes[rule]!.fields.every((field) => isSettled(field, fields)));
    return asked | (isMatched ? 0 : OPEN_MATCHES);
  }

  /** A list of rules, which are tested for what is open (OPEN_*). */
  #list(rules: readonly number[], open: number, view: View): number {
    const words = this.#words;
    for (const rule of rules) this.#records.prepare(rule, open, view);
    const at = words.reserveLine(LIST_FIRST + LIST_ENTRY_WORDS * rules.length);
    words.set(at, (rules.length << LIST_COUNT_SHIFT) | open);
    for (let i = 0; i < rules.length; i++) {
      const entry = at + LIST_FIRST + LIST_ENTRY_WORDS * i;
      words.set(entry, recordAt(rules[i]!));
      words.set(entry + 1, hullOf(this.#codes[rules[i]!]!.dports));
    }
    return reference(NODE_LIST, at);
  }

  #classNode(rules: readonly number[], state: State): number {
    const children = Array.from({ length: CLASSES }, (_, protocolClass) => {
      const open = protocolClass === CLASS_PING ? state.open & ADDRESSES : state.open & ~(1 << PROTOCOL);
      const fitting = rules.filter((rule) => ((this.#codes[rule]!.classes >> protocolClass) & 1) === 1);
      return this.#node(fitting, { ...state, protocolClass, open });
    });
    return moreReference(MORE_CLASS, this.#words.append(children));
  }

  /** @param mayRefuse the answer is null where the dimension divides badly */
  #addressNode(rules: readonly number[], dimension: number, state: State, mayRefuse: boolean): number | null {
    const { view, graft } = state;
    const listOf = (rule: number) => {
      const { destinations, sources } = this.#codes[rule]!;
      const code = dimension === DESTINATION ? destinations : sources;
      return graft === 0 ? code[view] : code.native;
    };
    const { items: own, others } = gatherItems(
      rules,
      view,
      listOf,
      this.#memory,
      `${dimension} ${view} ${graft === 0} ${state.protocolClass}`,
    );
    const { sum, regions, most } = weigh(own, others.length);
    if (this.#isBetterListed(rules, most))
      return this.#list(rules, this.#open(rules, this.#asked(rules, state), state), view);
    if (mayRefuse && sum > BAD_SHARE * regions * rules.length) return null;
    const isCopied = this.#isWorthCopying(sum, regions, rules.length);
    if (isCopied && state.protocolClass === NO_CLASS) return this.#classNode(rules, state);
    const hasMapped = graft !== 0 && rules.some((rule) => (this.#codes[rule]!.destinations[4]?.count ?? 0) > 0);
    const { items, mappedAt } = hasMapped ? withMapped(own) : { items: own, mappedAt: -1 };
    const outside = { ...state, graft: 0 };
    const inside = { ...outside, open: state.open & ~(1 << dimension) };
    const sets = isCopied ? this.#copying(inside) : this.#chaining(inside, outside, this.#untested(rules));
    const target: TrieTarget = {
      ...sets,
      add: (set, { rules: owners }, from, to) =>
        to === from + 1 ? sets.addOne(set, owners[from]!) : sets.add(set, [...owners.subarray(from, to)]),
      addUntested: (set, { rules: owners }, from, to) => sets.addUntested(set, owners, from, to),
    };
    const firstWord = dimension === DESTINATION ? KEY_DESTINATION : KEY_SOURCE;
    const trie = new TrieBuilder(items, firstWord, this.#words, target, { at: mappedAt, node: graft });
    return trie.build(view === 4 ? MAPPED_BITS : 0, sets.start(others));
  }

  #portNode(rules: readonly number[], dimension: number, state: State): number {
    const inside: State = { ...state, open: state.open & ~(1 << dimension) };
    const rangesOf = (rule: number) => portsOf(this.#codes[rule]!, dimension);
    const { items, others } = gatherPorts(rules, rangesOf);
    const { sum } = weighPorts(items, others.length);
    const intervals = this.#isWorthCopying(sum, 0, rules.length)
      ? this.#copyPorts(portChanges(rules, rangesOf), inside)
      : this.#chainPorts(items, others, inside, state);
    return buildPortTree(this.#words, intervals, dimension === SPORT);
  }

  #copyPorts(changes: readonly PortChange[], inside: State): readonly PortInterval[] {
    let present: readonly number[] = [];
    return changes.map(({ first, enter, leave }) => {
      const left = leave.length === 0 ? present : present.filter((rule) => !leave.includes(rule));
      present = merge(left, enter);
      return { first, node: this.#node(present, inside) };
    });
  }

  #chainPorts(items: PortItems, others: readonly number[], inside: State, outside: State): readonly PortInterval[] {
    const sets = this.#chaining(inside, outside, this.#limits.untested);
    return divide(items, sets.start(others), sets);
  }

  /** Whether sets of rules are so large that dividing them further pays, and small enough to be written one by one. */
  #isWorthCopying(sum: number, regions: number, rules: number): boolean {
    const { shared, copies, copiesBesides } = this.#limits;
    return sum > shared * regions && sum <= copies * rules + copiesBesides && this.#mayCopy(sum);
  }

  #mayCopy(rules: number): boolean {
    if (rules > this.#credit) return false;
    this.#credit -= rules;
    return true;
  }

  /** Sets of rules, written whole. */
  #copying(inside: State): RuleSets {
    const sets: (readonly number[])[] = [];
    const start = (rules: readonly number[]) => sets.push(this.#cut(rules, inside)) - 1;
    const add = (set: number, rules: readonly number[]) => (rules.length === 0 ? set : start(merge(sets[set]!, rules)));
    return {
      start,
      add,
      addOne: (set, rule) => add(set, [rule]),
      addUntested: (set, rules, from, to) => add(set, ascending(rules, from, to, NO_RULE)),
      untested: 0,
      leaf: (set) => this.#node(sets[set]!, inside),
      cut: () => NO_RULE,
      isEmpty: (set) => sets[set]!.length === 0,
    };
  }

  /** Sets of rules as chains. @param outside the state of rules that are not yet tested in the dimension */
  #chaining(inside: State, outside: State, untested: number): RuleSets {
    const chains = this.#chains;
    const { view } = inside;
    const open = (inside.open & (ADDRESSES | PORTS)) | OPEN_MATCHES;
    const openUntested = (outside.open & (ADDRESSES | PORTS)) | OPEN_MATCHES;
    return {
      start: (rules) => {
        const left = this.#cut(rules, inside);
        return chains.start(this.#node(left, inside), left[0] ?? NO_RULE, this.#cutOf(left, inside));
      },
      add: (set, rules) => {
        const cut = chains.cut(set);
        const left = this.#cut(rules.every((rule) => rule < cut) ? rules : rules.filter((rule) => rule < cut), inside);
        return left.length === 0 ? set : chains.add(set, this.#node(left, inside), left[0]!, this.#cutOf(left, inside));
      },
      addOne: (set, rule) => {
        if (rule >= chains.cut(set)) return set;
        const node = this.#records.reference(rule, open, view);
        return chains.add(set, node, rule, this.#takesAll(rule, inside) ? rule : NO_RULE);
      },
      addUntested: (set, rules, from, to) => {
        const left = ascending(rules, from, to, chains.cut(set));
        if (left.length === 0) return set;
        const isOne = left.length === 1;
        const node = isOne
          ? this.#records.reference(left[0]!, openUntested, view)
          : this.#list(left, openUntested, view);
        return chains.add(set, node, left[0]!, NO_RULE);
      },
      untested,
      leaf: (set) => chains.node(set),
      cut: (set) => chains.cut(set),
      isEmpty: (set) => chains.isEmpty(set),
    };
  }

  /** Whether a look-up would, where it tells least, leave so many rules that passing over them by their ports costs less. */
  #isBetterListed(rules: readonly number[], most: number): boolean {
    if (rules.length > this.#limits.listedOfFewPorts || most <= HOT_SHARE * rules.length) return false;
    return hasFewPorts(this.#codes, rules);
  }

  /** How many rules may be asked untested: a list passes over those that do not take the packet's port at nearly no cost. */
  #untested(rules: readonly number[]): number {
    const { untested, untestedOfFewPorts } = this.#limits;
    return hasFewPorts(this.#codes, rules) ? untestedOfFewPorts : untested;
  }

  /** The end, but for byte matches: where many rules ask for values of one field, its value is looked up. */
  #fieldNode(rules: readonly number[], asked: number, state: State): number {
    const codes = rules.map((rule) => this.#codes[rule]!);
    const field = state.protocolClass === CLASS_PING ? null : commonField(codes, state.fields, FIELD_RULES);
    if (field === null || !this.#mayCopy(rules.length * FIELD_COPIES))
      return this.#list(rules, this.#open(rules, asked, state), state.view);
    const fields = [...state.fields, field];
    return buildFieldNode(this.#words, field, rules, this.#codes, (left) => this.#node(left, { ...state, fields }));
  }
}

/** What a look-up makes of the rules it finds. A set of rules is a number, that means something here alone. */
type RuleSets = PortTarget & {
  /** The set of rules that what is looked up does not matter for. */
  readonly start: (rules: readonly number[]) => number;
  readonly addOne: (set: number, rule: number) => number;
  readonly isEmpty: (set: number) => boolean;
};
