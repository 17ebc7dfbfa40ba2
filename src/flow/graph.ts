import { Chains } from "./chain.js";
import { hasFewPorts, inOrder } from "./dimension.js";
import { buildFieldNode, commonField } from "./field-node.js";
import { paint } from "./paint.js";
import {
  buildPortTree,
  divide,
  gatherPorts,
  type PortChange,
  type PortInterval,
  portChanges,
  weighPorts,
} from "./port-tree.js";
import { type ItemGatherer, type PrefixItems, weigh } from "./prefix-items.js";
import { MAPPED, MAPPED_BITS } from "./prefix-list.js";
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
import { askedOf, isLastAsked, reachable } from "./reach.js";
import type { RecordWriter } from "./records.js";
import { listWithin, nestedSpans, type Region, type Span, withSpans } from "./region.js";
import {
  ADDRESSES,
  asksOf,
  asksSources,
  canTake,
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
import { distinct, hashOf, isEqual, merge } from "./rule-list.js";
import { chainedSets, type SetContext, wholeSets } from "./rule-sets.js";
import { isSettled, NO_CLASS, type State } from "./state.js";
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
  /** Where prefixes with more rules than that lie around each other the other addresses are asked first. */
  readonly nested: number;
  /** Words per rule that may be written for longer parts of chains. */
  readonly chained: number;
  /** Rules that are asked without having looked at all of their prefix or range, and where most take few ports. */
  readonly untested: number;
  readonly untestedOfFewPorts: number;
};

/** From so many byte matches of one field on its value is looked up. */
const FIELD_RULES = 4;
/** A look-up of a field leads to its rules about so many times. */
const FIELD_COPIES = 4;
/** Where the addresses begin in the packet's key, in words. */
const KEY_SOURCE = 0;
const KEY_DESTINATION = 4;
/** A look-up that leaves more of the rules than that at a hot spot is not worth its cost for few rules. */
const HOT_SHARE = 0.25;
/** Prefixes around each other are looked for where some address has so many times the rules that one of them has at least. */
const NESTED = 4;
/** More children make shorter lists; fewer save room, where rules ask for so much all together. */
const CHILDREN_PER_LIST = 4;
const CHILDREN_PER_LIST_OF_MANY = 1.5;
const MANY_ASKS = 500_000;
/** What a rule takes about, by what it asks for. */
const WORDS_PER_WEIGHT = 6;
/** A dimension in which a rule in two is left divides badly. */
const BAD_SHARE = 0.5;

const NOTHING_KNOWN = { open: (1 << DIMENSIONS) - 1, protocolClass: NO_CLASS, fields: [], region: null };
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
  readonly #context: SetContext;
  /** Nodes by state and rules. */
  readonly #known = new Map<number, { readonly state: string; readonly rules: readonly number[]; node: number }[]>();
  readonly #gatherer: ItemGatherer;
  readonly #asksSources: boolean;
  /** Prefixes and port ranges of all rules. */
  readonly #asks: number;
  /** Rules that may still be copied. */
  #credit: number;
  /** Words that may still be written for longer parts of chains. */
  #room: number;
  #regions = 0;

  constructor(
    codes: readonly RuleCode[],
    records: RecordWriter,
    words: WordWriter,
    limits: GraphLimits,
    gatherer: ItemGatherer,
  ) {
    this.#codes = codes;
    this.#records = records;
    this.#words = words;
    this.#limits = limits;
    this.#gatherer = gatherer;
    this.#asksSources = asksSources(codes);
    const asks = codes.reduce((sum, code) => sum + asksOf(code), 0);
    this.#asks = asks;
    this.#context = {
      codes,
      chains: new Chains(words, codes.length),
      node: (rules, state) => this.#nodeOf(rules, state),
      tested: (rules, open, state) => this.#tested(rules, open, state),
      listed: limits.listed,
      together: (weight, write) => this.#together(weight, write),
    };
    this.#room = limits.chained * codes.length;
    this.#credit = limits.copiesBesides * 64 + limits.copies * asks;
  }

  /** The nodes where packets begin: IPv4 by protocol class, then IPv6. @param rules ascending */
  roots(rules: readonly number[]): readonly number[] {
    return ([4, 6] as const).flatMap((view) => {
      const possible = rules.filter((rule) => canTake(this.#codes[rule]!, view, this.#asksSources));
      return this.#byClass(this.#node(possible, { ...NOTHING_KNOWN, view }));
    });
  }

  /** The nodes to which a node that asks the protocol class first leads. */
  #byClass(node: number): readonly number[] {
    const isClass = (node & moreReference(0x0f, 0)) === moreReference(MORE_CLASS, 0);
    return Array.from({ length: CLASSES }, (_, i) => (isClass ? this.#words.get((node >>> INDEX_SHIFT) + i) : node));
  }

  #node(candidates: readonly number[], state: State): number {
    return this.#nodeOf(reachable(this.#codes, candidates, state), state);
  }

  /** @param rules that can be reached, see {@link reachable} */
  #nodeOf(rules: readonly number[], state: State): number {
    if (rules.length === 0) return NONE;
    const asked = askedOf(this.#codes, rules, state) & (ADDRESSES | PORTS);
    if (rules.length === 1) return this.#records.reference(rules[0]!, this.#open(rules, asked, state), state.view);
    const { protocolClass, view, fields, region } = state;
    const known = protocolClass === NO_CLASS || protocolClass === CLASS_PING ? protocolClass : CLASSES; // others are alike
    const where = (asked & ADDRESSES) === 0 ? 0 : `${view} ${region?.id ?? ""}`;
    const text = `${asked} ${known} ${where} ${fields.map(({ key }) => key).join(" ")}`;
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

  /** Asks the dimension that divides the rules best; that of a region after the other addresses. */
  #ask(rules: readonly number[], asked: number, state: State): number {
    const isOpen = state.protocolClass === NO_CLASS;
    const dimensions = this.#inOrder(rules, asked, state);
    for (const [i, dimension] of dimensions.entries()) {
      if (((1 << dimension) & PORTS) !== 0)
        return isOpen ? this.#classNode(rules, state) : this.#portNode(rules, dimension, state);
      const node = this.#addressNode(rules, dimension, state, i < dimensions.length - 1);
      if (node !== null) return node;
    }
    if (isOpen && rules.some((rule) => (this.#codes[rule]!.asks >> PROTOCOL) & 1)) return this.#classNode(rules, state);
    return this.#fieldNode(rules, asked, state);
  }

  #inOrder(rules: readonly number[], asked: number, { region }: State): readonly number[] {
    const other = region === null ? 0 : ADDRESSES & ~(1 << region.dimension) & asked;
    return other === 0 ? inOrder(this.#codes, rules, asked) : [other === 1 << SOURCE ? SOURCE : DESTINATION];
  }

  /** What rules have to be tested for: OPEN_*. */
  #open(rules: readonly number[], asked: number, { fields }: State): number {
    const isMatched = rules.every((rule) => this.#codes[rule]!.fields.every((field) => isSettled(field, fields)));
    return asked | (isMatched ? 0 : OPEN_MATCHES);
  }

  /** One rule or a list of some, which are tested for what is open (OPEN_*). */
  #tested(rules: readonly number[], open: number, { view }: State): number {
    return rules.length === 1 ? this.#records.reference(rules[0]!, open, view) : this.#list(rules, open, view);
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
    const { view, region } = state;
    const listOf = (rule: number) => {
      const { destinations, sources } = this.#codes[rule]!;
      const code = dimension === DESTINATION ? destinations : sources;
      const list = view === 6 && !this.#asksSources ? code.native : code[view];
      return region?.dimension === dimension ? listWithin(list, region) : list;
    };
    const name = `${dimension} ${view} ${state.protocolClass} ${region?.id ?? ""}`;
    const { items: own, others } = this.#gatherer.gather(rules, view, listOf, name);
    const { sum, regions, most } = weigh(own, others.length);
    if (this.#isBetterListed(rules, most)) {
      const asked = askedOf(this.#codes, rules, state) & (ADDRESSES | PORTS);
      return this.#list(rules, this.#open(rules, asked, state), view);
    }
    if (mayRefuse && sum > BAD_SHARE * regions * rules.length) return null;
    const spans = most > NESTED * this.#limits.nested ? this.#spans(own, dimension, state) : [];
    const isCopied = spans.length === 0 && this.#isWorthCopying(sum, regions, rules.length);
    if (isCopied && state.protocolClass === NO_CLASS) return this.#classNode(rules, state);
    const outside = state;
    const inside: State = {
      ...outside,
      open: state.open & ~(1 << dimension),
      region: region?.dimension === dimension ? null : region,
    };
    const sets = isCopied
      ? wholeSets(this.#context, inside)
      : chainedSets(this.#context, inside, outside, this.#untested(rules));
    const addSpan = (set: number, { from, to }: Span) => {
      return sets.addApart(set, distinct(own.rules.subarray(from, to)), {
        ...outside,
        region: this.#region(own, from, dimension),
      });
    };
    const target: TrieTarget = {
      ...sets,
      childrenPerList: this.#asks > MANY_ASKS ? CHILDREN_PER_LIST_OF_MANY : CHILDREN_PER_LIST,
      add: (set, { rules: owners }, from, to) => {
        const owner = owners[from]!;
        if (owner < 0) return addSpan(set, spans[-1 - owner]!);
        return to === from + 1 ? sets.addOne(set, owner) : sets.add(set, [...owners.subarray(from, to)]);
      },
      addUntested: (set, { rules: owners }, from, to) => sets.addUntested(set, owners, from, to),
    };
    const firstWord = dimension === DESTINATION ? KEY_DESTINATION : KEY_SOURCE;
    const trie = new TrieBuilder(withSpans(own, spans), firstWord, this.#words, target);
    return trie.build(view === 4 ? MAPPED_BITS : 0, sets.start(others));
  }

  /** Where the other addresses had better be asked first: these are asked for by most rules whose prefixes lie within each other. */
  #spans(items: PrefixItems, dimension: number, { open, region }: State): readonly Span[] {
    const other = dimension === DESTINATION ? SOURCE : DESTINATION;
    if (region !== null || ((open >> other) & 1) === 0) return [];
    return nestedSpans(items, this.#limits.nested).filter(({ from, to }) => {
      let asking = 0;
      for (let i = from; i < to; i++) asking += (this.#codes[items.rules[i]!]!.asks >> other) & 1;
      return 2 * asking > to - from;
    });
  }

  #region({ words, bits }: PrefixItems, item: number, dimension: number): Region {
    const prefix = words.map((column, k) => (column.length > 0 ? column[item]! : (MAPPED[k] ?? 0)));
    return { id: this.#regions++, dimension, words: prefix, bits: bits[item]!, known: new Map() };
  }

  #portNode(rules: readonly number[], dimension: number, state: State): number {
    const inside: State = { ...state, open: state.open & ~(1 << dimension) };
    const rangesOf = (rule: number) => portsOf(this.#codes[rule]!, dimension);
    return buildPortTree(
      this.#words,
      this.#portIntervals(rules, dimension, rangesOf, inside, state),
      dimension === SPORT,
    );
  }

  #portIntervals(
    rules: readonly number[],
    dimension: number,
    rangesOf: (rule: number) => Int32Array | null,
    inside: State,
    outside: State,
  ): readonly PortInterval[] {
    if (isLastAsked(this.#codes, rules, dimension, outside)) {
      const { first, owner } = paint(rules, rangesOf, () => true, []);
      return Array.from(first, (port, i) => ({ first: port, node: this.#ownerNode(owner[i]!, inside) }));
    }
    const { items, others } = gatherPorts(rules, rangesOf);
    const { sum } = weighPorts(items, others.length);
    if (this.#isWorthCopying(sum, 0, rules.length)) return this.#copyPorts(portChanges(rules, rangesOf), inside);
    const sets = chainedSets(this.#context, inside, outside, this.#limits.untested);
    return divide(items, sets.start(others), sets);
  }

  #ownerNode(owner: number, inside: State): number {
    return owner < 0 ? NONE : this.#tested([owner], 0, inside);
  }

  /** Writes rules of some weight together, as long as there is room: what comes of it is counted. */
  #together(weight: number, write: () => number): number | null {
    if (weight * WORDS_PER_WEIGHT > this.#room) return null;
    const room = this.#room + this.#words.length;
    const made = write();
    this.#room = room - this.#words.length;
    return made;
  }

  #copyPorts(changes: readonly PortChange[], inside: State): readonly PortInterval[] {
    let present: readonly number[] = [];
    return changes.map(({ first, enter, leave }) => {
      const left = leave.length === 0 ? present : present.filter((rule) => !leave.includes(rule));
      present = merge(left, enter);
      return { first, node: this.#node(present, inside) };
    });
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
