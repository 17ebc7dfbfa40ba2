import { formatAddress, isIpv4, parseAddress } from "#model";
import type { Family, Route, Rule } from "#netlink/route";
import { formatGateway } from "./nft-format.js";
import { diffTables } from "./nft-tables.js";
import { isTerminator, layOutRules } from "./rule-tree.js";
import type { ActualKernel, DesiredKernel, Plan, Step } from "./state.js";

const DEFAULT_METRIC = { 4: 0, 6: 1024 } as const;

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
  return {
    additions: [...tables.additions, ...additions],
    vips: tables.vips,
    removals: [...removals, ...tables.removals],
  };
}

/** Number of steps in a plan. */
export function planLength({ additions, vips, removals }: Plan): number {
  return additions.length + vips.length + removals.length;
}

function diffRoutes(family: Family, { targets }: DesiredKernel, actual: readonly Route[]) {
  const wanted = new Map(
    targets.flatMap(({ fwmark, addresses }) => gatewayOf(addresses, family).map((gateway) => [fwmark, gateway])),
  );
  const isWanted = (route: Route) => isDefault(route) && gatewayText(route) === wanted.get(route.table);
  const good = new Set(actual.filter(isWanted).map(({ table }) => table));
  // What has the wanted route's place is replaced in one step; deleting it afterwards could hit the new one.
  const isReplaced = (route: Route) => isDefault(route) && wanted.has(route.table) && !good.has(route.table);
  return {
    additions: [...wanted].flatMap(([table, gateway]): Step[] =>
      good.has(table) ? [] : [{ kind: "replaceRoute", family, table, gateway }],
    ),
    removals: actual
      .filter((route) => !isWanted(route) && !isReplaced(route))
      .map((route): Step => ({ kind: "deleteRoute", route })),
  };
}

/** Whether a route has the place of those we make: to everything, with the metric that the kernel gives by itself. */
function isDefault({ family, destinationLength, metric, tos }: Route): boolean {
  return destinationLength === 0 && metric === DEFAULT_METRIC[family] && tos === 0;
}

/** The one gateway of a plain route, or null for any other kind. */
function gatewayText({ type, nextHops }: Route): string | null {
  const [hop, ...others] = nextHops;
  if (type !== "unicast" || hop === undefined || hop.gateway === null || others.length > 0) return null;
  return formatGateway(hop.gateway);
}

function diffRules(family: Family, { targets }: DesiredKernel, actual: readonly Rule[]) {
  const fwmarks = targets
    .filter(({ addresses }) => gatewayOf(addresses, family).length > 0)
    .map(({ fwmark }) => fwmark);
  const { rules, owns, isInForce } = layOutRules(
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
  const missing = rules.filter((rule) => !seen.has(ruleKey(rule)));
  // Left by an earlier attempt to build at this place: it could lead past the members that come there now. And a rule
  // with other selectors keeps the kernel from adding the plain one: it says EEXIST (fib4_rule_compare, v6.18).
  const isInTheWay = (rule: Rule) =>
    rule.selectors !== undefined || (!isInForce && rule.action === "goto" && owns(rule));
  // The way out of another layout hides this one's members, so it goes before the tables are published …
  const isHiding = (rule: Rule) => isTerminator(rule) && !owns(rule);
  const step =
    (kind: "addRule" | "deleteRule") =>
    (rule: Rule): Step => ({ kind, rule, fwmark: rule.action === "table" ? rule.fwmark : null });
  return {
    additions: [
      ...surplus.filter(isInTheWay).map(step("deleteRule")),
      ...missing.filter((rule) => !isTerminator(rule)).map(step("addRule")),
      ...surplus.filter(isHiding).map(step("deleteRule")),
    ],
    // … and this one's hides the others', so it comes afterwards. Then gotos before the rules they lead to: the kernel
    // leaves a goto without its target unresolved.
    removals: [
      ...missing.filter(isTerminator).map(step("addRule")),
      ...surplus
        .filter((rule) => !isInTheWay(rule) && !isHiding(rule))
        .toSorted((a, b) => Number(b.action === "goto") - Number(a.action === "goto") || a.priority - b.priority)
        .map(step("deleteRule")),
    ],
  };
}

/** The family's first address, as the kernel writes it. Dotted text has one spelling only, so it need not be read. */
function gatewayOf(addresses: readonly string[], family: Family): string[] {
  for (const text of addresses) {
    const bytes = text.includes(":") ? parseAddress(text) : null;
    if ((bytes === null || isIpv4(bytes)) === (family === 4)) return [bytes === null ? text : formatAddress(bytes)];
  }
  return [];
}

/** Equal for rules that do the same. We make none with other selectors than the mark, so one that has some is never ours. */
function ruleKey({ priority, fwmark, fwmask, action, table, goto: target, selectors }: Rule): string {
  return `${selectors === undefined ? "" : "not ours "}${priority} ${fwmark} ${fwmask} ${action} ${action === "table" ? table : target}`;
}
