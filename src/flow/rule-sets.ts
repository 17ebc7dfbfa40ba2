import { type Chains, NO_RULE, type Part } from "./chain.js";
import type { PortTarget } from "./port-tree.js";
import { OPEN_MATCHES } from "./program.js";
import { cutOf, reachable, takesAll } from "./reach.js";
import { ADDRESSES, DPORT, type RuleCode, SPORT } from "./rule-code.js";
import { ascending, merge } from "./rule-list.js";
import { type State, weightOf } from "./state.js";

/** What a look-up makes of the rules it finds. A set of rules is a number, that means something here alone. */
export type RuleSets = PortTarget & {
  /** The set of rules that what is looked up does not matter for. */
  readonly start: (rules: readonly number[]) => number;
  readonly addOne: (set: number, rule: number) => number;
  /** The set with rules that are still to be told apart in what is looked up, in a state of their own. */
  readonly addApart: (set: number, rules: readonly number[], state: State) => number;
  readonly isEmpty: (set: number) => boolean;
};

/** What sets need of the graph. */
export type SetContext = {
  readonly codes: readonly RuleCode[];
  readonly chains: Chains;
  /** The node for rules that can all be reached. */
  readonly node: (rules: readonly number[], state: State) => number;
  /** The reference to one rule, or to a list of some, that are tested for what is open (OPEN_*). */
  readonly tested: (rules: readonly number[], open: number, state: State) => number;
  /** Up to so many rules are a list. */
  readonly listed: number;
  /** What `write` returns, if there is room to write rules of that weight in one part; else null. */
  readonly together: (weight: number, write: () => number) => number | null;
};

/** A part is written together with the one around it where that is at most so many times heavier than it is by then, */
const HEAVIER = 2;
/** and as long as it gets at most so many times as heavy as it began. */
const MOST_GROWTH = 16;
/** Few rules are not worth it, unless they are so light on average. */
const LIGHT = 4;
const PORTS = (1 << DPORT) | (1 << SPORT);

/** Sets of rules, written whole. */
export function wholeSets({ codes, node }: SetContext, inside: State): RuleSets {
  const sets: (readonly number[])[] = [];
  const start = (rules: readonly number[]) => sets.push(reachable(codes, rules, inside)) - 1;
  const add = (set: number, rules: readonly number[]) => (rules.length === 0 ? set : start(merge(sets[set]!, rules)));
  return {
    start,
    add,
    addOne: (set, rule) => add(set, [rule]),
    addUntested: (set, rules, from, to) => add(set, ascending(rules, from, to, NO_RULE)),
    addApart: (set) => set, // there are none where sets are written whole
    untested: 0,
    leaf: (set) => node(sets[set]!, inside),
    cut: () => NO_RULE,
    isEmpty: (set) => sets[set]!.length === 0,
  };
}

/**
 * Sets of rules as chains. Parts that are about as heavy are written together, so that a chain has few; each rule is written
 * a few times more for that.
 * @param outside the state of rules that are not yet tested in the dimension
 */
export function chainedSets(context: SetContext, inside: State, outside: State, untested: number): RuleSets {
  const { codes, chains, node, tested, listed, together } = context;
  const open = openOf(inside);
  const openUntested = openOf(outside);
  const partOf = (rules: readonly number[], reference: number): Part => ({
    node: reference,
    rules,
    first: rules[0] ?? NO_RULE,
    cut: cutOf(codes, rules, inside),
  });
  const put = (set: number, own: readonly number[]) => {
    let rules = own;
    let rest: number | null = set;
    let weight = weightOf(codes, own, inside);
    const most = MOST_GROWTH * weight;
    while (rest !== null) {
      const around = chains.lastPart(rest);
      if (around === null || around.length === 0 || around.length > most) break;
      const isList = rules.length + around.length < listed;
      if (!isList && own.length <= listed && most > LIGHT * MOST_GROWTH * own.length) break;
      const more = weightOf(codes, around, inside);
      if (!isList && (more > HEAVIER * weight || weight + more > most)) break;
      rules = reachable(codes, merge(rules, around), inside);
      weight += more;
      rest = chains.rest(rest);
    }
    const made = rules === own ? null : together(weight, () => node(rules, inside));
    if (made === null) return chains.add(set, partOf(own, node(own, inside)));
    const part = partOf(rules, made);
    return rest === null ? chains.start(part) : chains.add(rest, part);
  };
  return {
    start: (rules) => {
      const left = reachable(codes, rules, inside);
      return chains.start(partOf(left, node(left, inside)));
    },
    add: (set, rules) => {
      const own = reachable(codes, before(rules, chains.cut(set)), inside);
      return own.length === 0 ? set : put(set, own);
    },
    addOne: (set, rule) => {
      if (rule >= chains.cut(set)) return set;
      return chains.addOne(set, tested([rule], open, inside), rule, takesAll(codes[rule]!, inside) ? rule : NO_RULE);
    },
    addUntested: (set, rules, from, to) => {
      const left = ascending(rules, from, to, chains.cut(set));
      if (left.length === 0) return set;
      const reference = tested(left, openUntested, inside);
      return chains.add(set, { node: reference, rules: null, first: left[0]!, cut: NO_RULE });
    },
    addApart: (set, rules, state) => {
      const left = reachable(codes, before(rules, chains.cut(set)), state);
      if (left.length === 0) return set;
      return chains.add(set, { node: node(left, state), rules: null, first: left[0]!, cut: NO_RULE });
    },
    untested,
    leaf: (set) => chains.node(set),
    cut: (set) => chains.cut(set),
    isEmpty: (set) => chains.isEmpty(set),
  };
}

/** The rules before a limit. */
function before(rules: readonly number[], limit: number): readonly number[] {
  return rules.every((rule) => rule < limit) ? rules : rules.filter((rule) => rule < limit);
}

/** OPEN_* where rules are tested one by one. */
function openOf({ open }: State): number {
  return (open & (ADDRESSES | PORTS)) | OPEN_MATCHES;
}
