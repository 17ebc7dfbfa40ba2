import type { FlowRule } from "#flow";
import { formatPrefix, parsePrefix } from "#model";
import type { StoredRule } from "./flow-table.js";

/** Text of each rule object without its slot: a change writes anew only what changed. */
const texts = new WeakMap<FlowRule, string>();
/** What this process read or wrote last: most changes follow one of its own. */
let last: { readonly text: Buffer; readonly rules: readonly StoredRule[] } | null = null;

/**
 * Rules as JSON in UTF-8, prefixes as text: readable with any tool, and the source of truth from which the program is
 * compiled. The rule objects must not be changed any more.
 */
export function encodeRules(rules: readonly StoredRule[]): Uint8Array {
  const items = rules.map(({ rule, slot, base }) => `${textOf(rule)},"slot":${slot},"base":${base}}`);
  const text = Buffer.from(`[${items.join(",")}]`);
  last = { text, rules };
  return text;
}

/** A rule as JSON without the closing brace. */
function textOf(rule: FlowRule): string {
  const known = texts.get(rule);
  if (known !== undefined) return known;
  const { destinations, sources } = rule;
  const plain = { ...rule, destinations: destinations.map(formatPrefix), sources: sources.map(formatPrefix) };
  const text = JSON.stringify(plain).slice(0, -1);
  texts.set(rule, text);
  return text;
}

type RuleText = Omit<FlowRule, "destinations" | "sources"> & {
  readonly destinations: readonly string[];
  readonly sources: readonly string[];
  readonly slot: number;
  readonly base: number;
};

/**
 * The rules of a text; of the text that this process read or wrote last the same objects again.
 * @throws {SyntaxError}, {ConfigError} the text is not what `encodeRules` wrote
 */
export function decodeRules(bytes: Uint8Array): readonly StoredRule[] {
  if (last?.text.equals(bytes) === true) return last.rules;
  const text = Buffer.from(bytes);
  const rules = (JSON.parse(text.toString()) as readonly RuleText[]).map(({ slot, base, ...rule }) => ({
    rule: { ...rule, destinations: rule.destinations.map(parsePrefix), sources: rule.sources.map(parsePrefix) },
    slot,
    base,
  }));
  last = { text, rules };
  return rules;
}
