import { NO_RULE } from "./chain.js";
import { paint } from "./paint.js";
import { CLASS_PING } from "./program.js";
import { covers, DPORT, PROTOCOL, portsOf, type RuleCode, SPORT } from "./rule-code.js";
import { isLast, NO_CLASS, type State } from "./state.js";

/** Of up to so many rules each is compared with those before it. */
const COMPARED_RULES = 24;

/** Whether a rule takes every packet that comes there. */
export function takesAll(code: RuleCode, state: State): boolean {
  return (code.asks & state.open) === 0 && isLast(code, state);
}

/** The first of the rules that takes all packets. */
export function cutOf(codes: readonly RuleCode[], rules: readonly number[], state: State): number {
  return rules.find((rule) => takesAll(codes[rule]!, state)) ?? NO_RULE;
}

/**
 * The rules that can be reached: up to the first that takes every packet; of few rules only those that no earlier one covers;
 * of many, where nothing but one port is left to be asked, only those that do not lie behind others at every port.
 */
export function reachable(codes: readonly RuleCode[], rules: readonly number[], state: State): readonly number[] {
  for (let i = 0; i < rules.length - 1; i++) {
    if (takesAll(codes[rules[i]!]!, state)) return uncovered(codes, rules.slice(0, i + 1), state);
  }
  return uncovered(codes, rules, state);
}

function uncovered(codes: readonly RuleCode[], rules: readonly number[], state: State): readonly number[] {
  if (rules.length < 2) return rules;
  if (rules.length > COMPARED_RULES) return unhidden(codes, rules, state);
  const left: number[] = [];
  for (const rule of rules) {
    const code = codes[rule]!;
    const isCovered = left.some((before) => {
      const earlier = codes[before]!;
      return isLast(earlier, state) && covers(earlier, code, state.open);
    });
    if (!isCovered) left.push(rule);
  }
  return left.length === rules.length ? rules : left;
}

/** The dimensions that are open and in which one of the rules asks for something. */
export function askedOf(codes: readonly RuleCode[], rules: readonly number[], { open }: State): number {
  let asked = 0;
  for (const rule of rules) asked |= codes[rule]!.asks;
  return asked & open;
}

function unhidden(codes: readonly RuleCode[], rules: readonly number[], state: State): readonly number[] {
  const asked = askedOf(codes, rules, state) & ~(1 << PROTOCOL);
  if (asked !== 1 << DPORT && asked !== 1 << SPORT) return rules;
  const dimension = asked === 1 << DPORT ? DPORT : SPORT;
  const rangesOf = (rule: number) => portsOf(codes[rule]!, dimension);
  const hides = (rule: number) => isLast(codes[rule]!, state);
  const seen: number[] = [];
  if (state.protocolClass !== NO_CLASS) {
    paint(rules, rangesOf, hides, seen);
    return seen.length === rules.length ? rules : seen;
  }
  const first = codes[rules[0]!]!;
  const isOneClass = rules.every((rule) => codes[rule]!.classes === first.classes);
  const last = rules.findIndex((rule) => codes[rule]!.rule.target !== ""); // that a ping may reach
  const all = new Set<number>(rules.slice(0, last < 0 ? rules.length : last + 1));
  for (let protocolClass = 0; protocolClass < (isOneClass ? 1 : CLASS_PING); protocolClass++) {
    seen.length = 0;
    const fitting = isOneClass ? rules : rules.filter((rule) => (codes[rule]!.classes >> protocolClass) & 1);
    paint(fitting, rangesOf, hides, seen);
    for (const rule of seen) all.add(rule);
  }
  return all.size === rules.length ? rules : rules.filter((rule) => all.has(rule));
}

/** Whether nothing but one dimension of ports is asked for, by rules that take every packet that fits. */
export function isLastAsked(
  codes: readonly RuleCode[],
  rules: readonly number[],
  dimension: number,
  state: State,
): boolean {
  if (state.protocolClass === NO_CLASS) return false;
  return askedOf(codes, rules, state) === 1 << dimension && rules.every((rule) => isLast(codes[rule]!, state));
}
