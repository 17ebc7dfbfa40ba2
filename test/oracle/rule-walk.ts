import type { Rule } from "#netlink/route";

/**
 * The routing table that decides a packet with that mark, as the kernel walks its rules (fib_rules_lookup and
 * fib_rule_match, net/core/fib_rules.c, v6.18), or null when no rule of these decides it.
 *
 * A goto leads to the first rule of exactly its target's priority, and is passed over while there is none. A rule whose
 * table has no route for the packet is passed over too.
 */
export function walkRules(rules: readonly Rule[], fwmark: number, hasRoute: (table: number) => boolean): number | null {
  for (let at = 0; at < rules.length; at++) {
    const rule = rules[at]!;
    if (((fwmark ^ (rule.fwmark ?? 0)) & (rule.fwmark === null ? 0 : rule.fwmask)) !== 0) continue;
    if (rule.action === "table" && hasRoute(rule.table)) return rule.table;
    if (rule.action !== "goto") continue;
    const target = rules.findIndex(({ priority }) => priority === rule.goto);
    if (target >= 0) at = target - 1; // the loop's step leads to the target itself
  }
  return null;
}
