import { Budget, BudgetExceeded } from "./budget.js";
import { EntryWriter } from "./entries.js";
import { Graph } from "./graph.js";
import { CLASSES, HEADER_PARTS, HEADER_RULES, HEADER_WORDS, MAX_PROGRAM_WORDS, PART_WORDS } from "./program.js";
import type { FlowRule } from "./rule.js";
import { codeOf, PROTOCOL, type RuleCode } from "./rule-code.js";
import { Vector } from "./vector.js";
import { WordWriter } from "./word-writer.js";

/** What the ways of compiling may cost; other values than {@link LIMITS} are for tests. */
export type CompileLimits = {
  /** Steps of a decision graph, some ns each: a base, and more for each prefix, range or byte match that rules ask for. */
  readonly graphSteps: number;
  readonly graphStepsPerAsk: number;
  /** Words of a decision graph. */
  readonly graphWords: number;
  readonly graphWordsPerAsk: number;
  /** Words of the bit sets of one part, and per rule where rules are few. */
  readonly vectorWords: number;
  readonly vectorWordsPerRule: number;
};

/** A graph takes some ten ms and some hundred KiB at most for 2,000 rules, bit sets 8 MiB. */
export const LIMITS: CompileLimits = {
  graphSteps: 1_000_000,
  graphStepsPerAsk: 40,
  graphWords: 64 * 1024,
  graphWordsPerAsk: 64,
  vectorWords: 2 << 20,
  vectorWordsPerRule: 1024,
};
/** More parts than this there cannot be: subsets of four dimensions, and helper rules. */
const MAX_PARTS = 17;

/** Names of the tables that the rules refer to, in order of first use; entries hold indices into it. */
export function streamsOf(rules: readonly FlowRule[]): readonly string[] {
  return [...new Set(rules.map(({ target }) => target).filter((target) => target !== ""))];
}

/**
 * Compiles rules into a classifier whose answer is that of the plain scan in evaluation order; decision 0013.
 *
 * Tried in this order: one decision graph for all rules; a part for each combination of dimensions in which rules ask for
 * something, each with a graph of its own; for a part whose graph would be too large, bit sets.
 *
 * @param rules in evaluation order; the objects must not change any more
 * @param slots counter slot of each rule
 * @throws {RangeError} rules and slots differ in length
 */
export function compile(
  rules: readonly FlowRule[],
  slots: readonly number[],
  limits: CompileLimits = LIMITS,
): Int32Array {
  if (rules.length !== slots.length) throw new RangeError(`compile: ${rules.length} rules, ${slots.length} slots`);
  const codes = rules.map(codeOf);
  const streams = new Map(streamsOf(rules).map((name, index) => [name, index]));
  const words = new WordWriter();
  words.reserve(HEADER_WORDS + MAX_PARTS * PART_WORDS);
  const work: Work = { codes, words, entries: new EntryWriter(codes, slots, streams, words), limits };
  const all = reachable(codes);
  const whole = tryGraph(work, all);
  const parts = whole === null ? divide(work, all) : [whole];
  words.set(HEADER_RULES, rules.length);
  words.set(HEADER_PARTS, parts.length);
  for (const [i, root] of parts.flat().entries()) words.set(HEADER_WORDS + i, root);
  if (words.length > MAX_PROGRAM_WORDS) throw new RangeError(`compile: ${words.length} words`);
  return words.finish();
}

/** Parts for rules that are too much for one graph. */
function divide(work: Work, rules: readonly number[]): readonly Part[] {
  const all = groups(work.codes, rules);
  if (all.length === 1) return [asVector(work, rules)];
  return all.map((group) => tryGraph(work, group) ?? asVector(work, group));
}

/** Rules behind one that takes everything are never asked. */
function reachable(codes: readonly RuleCode[]): readonly number[] {
  const last = codes.findIndex(({ asks, isLast }) => asks === 0 && isLast);
  return [...codes.keys()].slice(0, last < 0 ? codes.length : last + 1);
}

/** What all ways of compiling work with. */
type Work = {
  readonly codes: readonly RuleCode[];
  readonly words: WordWriter;
  readonly entries: EntryWriter;
  readonly limits: CompileLimits;
};

/** Roots by family and protocol class. */
type Part = readonly number[];

/** A graph for these rules, or null if it would cost too much. */
function tryGraph({ codes, words, entries, limits }: Work, rules: readonly number[]): Part | null {
  const start = words.length;
  const asks = rules.reduce((sum, rule) => sum + asksOf(codes[rule]!.rule), 0);
  const steps = limits.graphSteps + asks * limits.graphStepsPerAsk;
  const budget = new Budget(steps, start + limits.graphWords + asks * limits.graphWordsPerAsk);
  const graph = new Graph(codes, entries, words, budget);
  try {
    return [...graph.roots(rules, 4), ...graph.roots(rules, 6)];
  } catch (error) {
    if (!(error instanceof BudgetExceeded)) throw error;
    entries.truncate(start);
    return null;
  }
}

function asVector({ codes, words, entries, limits }: Work, rules: readonly number[]): Part {
  const room = Math.min(limits.vectorWords, rules.length * limits.vectorWordsPerRule);
  const [v4, v6] = new Vector(codes, rules, entries, words).build(room);
  return Array.from({ length: PART_WORDS }, (_, i) => (i < CLASSES ? v4 : v6));
}

/** How many prefixes, port ranges and byte matches a rule has, and one for itself. */
function asksOf({ destinations, sources, destinationPorts, sourcePorts, byteMatches }: FlowRule): number {
  const ports = (destinationPorts?.length ?? 0) + (sourcePorts?.length ?? 0);
  return 1 + destinations.length + sources.length + ports + byteMatches.length;
}

/**
 * Rules that ask in the same dimensions, the group with the first rule first. Helper rules are one group, the last: they
 * are counted up to the rule that takes the packet, which is known by then.
 */
function groups(codes: readonly RuleCode[], rules: readonly number[]): readonly (readonly number[])[] {
  const byDimensions = new Map<number, number[]>();
  const helpers: number[] = [];
  for (const rule of rules) {
    const { asks, rule: flow } = codes[rule]!;
    const key = asks & ~(1 << PROTOCOL);
    if (flow.target === "") helpers.push(rule);
    else if (byDimensions.has(key)) byDimensions.get(key)!.push(rule);
    else byDimensions.set(key, [rule]);
  }
  return [...byDimensions.values(), ...(helpers.length > 0 ? [helpers] : [])];
}
