import { Graph, type GraphLimits } from "./graph.js";
import { ItemGatherer, type ItemMemory } from "./prefix-items.js";
import {
  CLASSES,
  FIRST_RECORD,
  HEADER_ASKS_SOURCES,
  HEADER_HAS_HELPERS,
  HEADER_HELPER_ROOTS,
  HEADER_ROOTS,
  HEADER_RULES,
  MAX_PROGRAM_WORDS,
  NONE,
  RECORD_WORDS,
} from "./program.js";
import { RecordWriter } from "./records.js";
import type { FlowRule } from "./rule.js";
import { asksOf, asksSources, codeOf } from "./rule-code.js";
import { WordWriter } from "./word-writer.js";

/** What the ways of compiling may cost; other values than {@link LIMITS} are for tests. */
export type CompileLimits = GraphLimits & {
  /** Words of a program. */
  readonly words: number;
};

export const LIMITS: CompileLimits = {
  words: MAX_PROGRAM_WORDS,
  listed: 8,
  listedOfFewPorts: 128,
  shared: 1.5,
  copies: 16,
  copiesBesides: 300,
  nested: 8,
  chained: 160,
  untested: 4,
  untestedOfFewPorts: 24,
};

/** What most programs stay below. */
const WORDS_PER_ASK = 8;

/** Names of the tables that the rules refer to, in order of first use; entries hold indices into it. */
export function streamsOf(rules: readonly FlowRule[]): readonly string[] {
  return [...new Set(rules.map(({ target }) => target).filter((target) => target !== ""))];
}

/**
 * Compiles rules into a classifier whose answer is that of the plain scan in evaluation order; decision 0051. Helper rules
 * have a graph of their own: they are counted up to the rule that takes the packet, which is known by then.
 *
 * @param rules in evaluation order; the objects must not change any more
 * @param slots counter slot of each rule
 * @param memory what is worth keeping from one compilation to the next; the result is the same without it
 * @throws {RangeError} rules and slots differ in length; {TooManyRulesError} they ask for too much
 */
export function compile(
  rules: readonly FlowRule[],
  slots: readonly number[],
  limits: CompileLimits = LIMITS,
  memory: ItemMemory = new Map(),
): Int32Array {
  if (rules.length !== slots.length) throw new RangeError(`compile: ${rules.length} rules, ${slots.length} slots`);
  const codes = rules.map(codeOf);
  const streams = new Map(streamsOf(rules).map((name, index) => [name, index]));
  const expected = codes.reduce((sum, code) => sum + RECORD_WORDS + WORDS_PER_ASK * asksOf(code), 0);
  const words = new WordWriter(expected, limits.words);
  words.reserve(FIRST_RECORD);
  const records = new RecordWriter(codes, slots, streams, words);
  const graph = new Graph(codes, records, words, limits, new ItemGatherer(memory));
  const helpers = [...codes.keys()].filter((rule) => rules[rule]!.target === "");
  const others =
    helpers.length === 0 ? [...codes.keys()] : [...codes.keys()].filter((rule) => rules[rule]!.target !== "");
  words.set(HEADER_RULES, rules.length);
  words.set(HEADER_HAS_HELPERS, Number(helpers.length > 0));
  words.set(HEADER_ASKS_SOURCES, Number(asksSources(codes)));
  words.put(HEADER_ROOTS, graph.roots(others));
  words.put(
    HEADER_HELPER_ROOTS,
    helpers.length > 0 ? graph.roots(helpers) : Array.from({ length: 2 * CLASSES }, () => NONE),
  );
  return words.finish();
}
