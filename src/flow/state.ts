import { CLASS_PING } from "./program.js";
import type { Region } from "./region.js";
import { DESTINATION, DPORT, type FieldTest, type RuleCode, SOURCE, SPORT, type View } from "./rule-code.js";

/** It is not known yet which protocol class a packet is of. */
export const NO_CLASS = -1;

/** What is known of the packets that come to a node. */
export type State = {
  /** Bit set of the dimensions in which nothing is known yet. */
  readonly open: number;
  /** Protocol class, or {@link NO_CLASS}. */
  readonly protocolClass: number;
  readonly view: View;
  /** Fields whose byte matches are settled: the rules that are left fit in them. */
  readonly fields: readonly FieldTest[];
  /** What is known of an address in a dimension that is open nevertheless, or null: nothing. */
  readonly region: Region | null;
};

/** Whether the rule takes every packet for which what it asks in the open dimensions holds. */
export function isLast(code: RuleCode, { protocolClass, fields }: State): boolean {
  if (code.isLast) return true;
  if (code.rule.target === "") return false;
  if (protocolClass === CLASS_PING) return true;
  return fields.length > 0 && code.fields.every((field) => isSettled(field, fields));
}

export function isSettled(field: FieldTest, fields: readonly FieldTest[]): boolean {
  return fields.some(({ key }) => key === field.key);
}

/** How many prefixes and port ranges of rules are still to be looked up, and one for each rule. */
export function weightOf(codes: readonly RuleCode[], rules: readonly number[], { open, region }: State): number {
  let sum = rules.length;
  for (const rule of rules) {
    const { destinations, sources, dports, sports } = codes[rule]!;
    if (((open >> DESTINATION) & 1) === 1) sum += region?.dimension === DESTINATION ? 1 : (destinations[6]?.count ?? 0);
    if (((open >> SOURCE) & 1) === 1) sum += region?.dimension === SOURCE ? 1 : (sources[6]?.count ?? 0);
    if (((open >> DPORT) & 1) === 1) sum += dports?.length ?? 0;
    if (((open >> SPORT) & 1) === 1) sum += sports?.length ?? 0;
  }
  return sum;
}
