import { formatAddress, isIpv4, parseAddress } from "#model";
import type { Family, ListedRoute, Rule } from "#netlink/route";
import { diffCounters, diffTables, diffVips } from "./nft-tables.js";
import { layOutRules } from "./rule-tree.js";
import type { ActualKernel, DesiredKernel, Plan, Step } from "./state.js";

/**
 * The plan that turns the actual state into the desired one; empty when they are equal. Pure. What carries our protocol
 * number, or our tables' names, and is not desired, goes, whoever left it; nothing else is touched.
 */
export function diff(desired: DesiredKernel, actual: ActualKernel): Plan {
  const additions: Step[] = [];
  const removals: Step[] = [];
  for (const family of [4, 6] as const) {
    const routes = diffRoutes(
      family,
      desired,
      actual.routes.filter((route) => route.family === family),
    );
    const rules = diffRules(
      family,
      desired,
      actual.rules.filter((rule) => rule.family === family),
    );
    additions.push(...routes.additions, ...rules.additions); // a route before the rule that leads to it
    removals.push(...rules.removals, ...routes.removals); // and the other way round
  }
  const tables = diffTables(desired, actual);
  const counters = diffCounters(desired, actual);
  return {
    additions: [...tables.additions, ...additions, ...counters.additions],
    vips: diffVips(desired, actual),
    removals: [...counters.removals, ...removals, ...tables.removals],
  };
}

/** Number of steps in a plan. */
export function planLength({ additions, vips, removals }: Plan): number {
  return additions.length + vips.length + removals.length;
}

function diffRoutes(family: Family, { targets }: DesiredKernel, actual: readonly ListedRoute[]) {
  const wanted = new Map(
    targets.flatMap(({ fwmark, addresses }) => gatewayOf(addresses, family).map((gateway) => [fwmark, gateway])),
  );
  const isWanted = (route: ListedRoute) =>
    route.destinationLength === 0 && route.gateway !== null && wanted.get(route.table) === formatGateway(route.gateway);
  const good = new Set(actual.filter(isWanted).map(({ table }) => table));
  // IPv6 keeps a route with another gateway beside a new one where IPv4 replaces it: the wrong one goes afterwards.
  const stale = actual.filter((route) => !isWanted(route) && (family === 6 || !wanted.has(route.table)));
  return {
    additions: [...wanted].flatMap(([table, gateway]): Step[] =>
      good.has(table) ? [] : [{ kind: "replaceRoute", family, table, gateway }],
    ),
    removals: stale.map((route): Step => ({ kind: "deleteRoute", route })),
  };
}

function diffRules(family: Family, { targets }: DesiredKernel, actual: readonly Rule[]) {
  const fwmarks = targets
    .filter(({ addresses }) => gatewayOf(addresses, family).length > 0)
    .map(({ fwmark }) => fwmark);
  const { rules, owns } = layOutRules(
    family,
    fwmarks.toSorted((a, b) => a - b),
    actual,
  );
  const wanted = new Set(rules.map(ruleKey));
  const seen = new Set<string>();
  const surplus: Rule[] = [];
  for (const rule of actual) {
    const key = ruleKey(rule);
    if (!wanted.has(key) || seen.has(key)) surplus.push(rule);
    else seen.add(key);
  }
  // Where another layout takes over, its ways in go before the tables are published: they may hide the new one's members.
  const isWayIn = (rule: Rule) => rule.action === "goto" && !owns(rule);
  const step =
    (kind: "addRule" | "deleteRule") =>
    (rule: Rule): Step => ({ kind, rule, fwmark: rule.action === "table" ? rule.fwmark : null });
  const terminatorsFirst = (a: Rule, b: Rule) => Number(a.fwmark !== null) - Number(b.fwmark !== null);
  return {
    additions: [
      ...rules.filter((rule) => !seen.has(ruleKey(rule))).map(step("addRule")),
      ...surplus.filter(isWayIn).toSorted(terminatorsFirst).map(step("deleteRule")),
    ],
    // Gotos before the rules they lead to: the kernel leaves a goto without its target unresolved.
    removals: surplus
      .filter((rule) => !isWayIn(rule))
      .toSorted((a, b) => Number(b.action === "goto") - Number(a.action === "goto") || a.priority - b.priority)
      .map(step("deleteRule")),
  };
}

function gatewayOf(addresses: readonly string[], family: Family): string[] {
  return addresses
    .filter((text) => isIpv4(parseAddress(text)) === (family === 4))
    .map((text) => formatAddress(parseAddress(text)))
    .slice(0, 1);
}

/** Text of a gateway as the kernel gives it, 4 or 16 bytes. */
export function formatGateway(gateway: Uint8Array): string {
  return gateway.length === 4 ? gateway.join(".") : formatAddress(gateway);
}

function ruleKey({ priority, fwmark, fwmask, action, table, goto: target }: Rule): string {
  return `${priority} ${fwmark} ${fwmask} ${action} ${action === "table" ? table : target}`;
}
