import type { FlowRule } from "#flow";
import { formatPrefix, parsePrefix } from "#model";
import type { StoredRule } from "./flow-table.js";

/** Rules as JSON, prefixes as text: readable with any tool, and the source of truth from which the program is compiled. */
export function encodeRules(rules: readonly StoredRule[]): string {
  return JSON.stringify(
    rules.map(({ rule, slot, base }) => ({
      ...rule,
      destinations: rule.destinations.map(formatPrefix),
      sources: rule.sources.map(formatPrefix),
      slot,
      base,
    })),
  );
}

type RuleText = Omit<FlowRule, "destinations" | "sources"> & {
  readonly destinations: readonly string[];
  readonly sources: readonly string[];
  readonly slot: number;
  readonly base: number;
};

/** @throws {SyntaxError}, {ConfigError} the text is not what `encodeRules` wrote */
export function decodeRules(text: string): readonly StoredRule[] {
  return (JSON.parse(text) as readonly RuleText[]).map(({ slot, base, ...rule }) => ({
    rule: { ...rule, destinations: rule.destinations.map(parsePrefix), sources: rule.sources.map(parsePrefix) },
    slot,
    base,
  }));
}
