import type { Family, Route, Rule } from "#netlink/route";
import type { Memo } from "./memo.js";
import { diffTables } from "./nft-tables.js";
import { isTerminator, layOutRules, markOfRule, type RuleLayout } from "./rule-tree.js";
import type { ActualKernel, DesiredKernel, Plan, Step } from "./state.js";

const DEFAULT_METRIC = { 4: 0, 6: 1024 } as const;

/**
 * The plan that turns the actual state into the desired one; empty when they are equal. Pure. What carries our protocol
 * number, or our tables' names, and is not desired, goes, whoever left it; nothing else is touched.
 */
export function diff(desired: DesiredKernel, actual: ActualKernel): Plan {
  const additions: Step[] = [];
  const removals: Step[] = [];
  const { targets } = desired;
  const { memo } = actual;
  for (const family of [4, 6] as const) {
    const routes = memo.last(`routes ${family}`, [targets, actual.routes], () => diffRoutes(family, targets, actual));
    const rules = memo.last(`rules ${family}`, [targets, actual.rules], () =>
      diffRules(family, targets, actual.rules, memo),
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

type Targets = DesiredKernel["targets"];
/** Before publishing, and afterwards. */
type Part = Pick<Plan, "additions" | "removals">;

const markOfTarget = ({ fwmark }: Targets[number]) => fwmark;
const markOfRoute = ({ table }: Route) => table;

/** Mark by mark, and only where a target or a route is another one than the last time, or something was to be done then. */
function diffRoutes(family: Family, targets: Targets, { routes, isAstray, memo }: ActualKernel): Part {
  const changed = memo.changedMarks(`routes ${family}`);
  const marks = changed.look({ items: targets, markOf: markOfTarget }, { items: routes, markOf: markOfRoute });
  const isChanged = (mark: number) => marks === null || marks.has(mark);
  const part = diffSomeRoutes(
    family,
    targets.filter((target) => isChanged(markOfTarget(target))),
    routes.filter((route) => route.family === family && isChanged(markOfRoute(route))),
    isAstray,
    memo,
  );
  const tableOf = (step: Step) => (step.kind === "deleteRoute" ? step.route.table : "table" in step ? step.table : 0);
  changed.done([...part.additions, ...part.removals].map(tableOf));
  return part;
}

/** @param actual all of the family */
function diffSomeRoutes(
  family: Family,
  targets: Targets,
  actual: readonly Route[],
  isAstray: ActualKernel["isAstray"],
  memo: Memo,
): Part {
  const wanted = new Map<number, string>();
  for (const { fwmark, addresses } of targets) {
    const gateway = memo.gateways(addresses)[family];
    if (gateway !== null) wanted.set(fwmark, gateway);
  }
  const good = new Set<number>();
  const others: Route[] = [];
  for (const route of actual) {
    const isWanted = memo.gatewayOf(route).text === wanted.get(route.table) && !isAstray(route);
    if (isDefault(route) && isWanted) good.add(route.table);
    else others.push(route);
  }
  const additions: Step[] = [];
  for (const [table, gateway] of wanted) {
    if (!good.has(table)) additions.push({ kind: "replaceRoute", family, table, gateway });
  }
  // What has the wanted route's place is replaced in one step; deleting it afterwards could hit the new one.
  const isReplaced = (route: Route) => isDefault(route) && wanted.has(route.table) && !good.has(route.table);
  const surplus = others.filter((route) => !isReplaced(route));
  return { additions, removals: surplus.map((route) => ({ kind: "deleteRoute", route })) };
}

/**
 * Whether a route has the place of those we make: from everywhere to everything, with the metric that the kernel gives by
 * itself.
 */
function isDefault({ family, destinationLength, metric, tos, extras }: Route): boolean {
  const isForAll = destinationLength === 0 && tos === 0 && (extras?.header.sourceLength ?? 0) === 0;
  return isForAll && metric === DEFAULT_METRIC[family];
}

/** As {@link diffRoutes}; rules that are no mark's, which make the tree, are always looked at. */
function diffRules(family: Family, targets: Targets, all: readonly Rule[], memo: Memo): Part {
  const fwmarks = memo.last(`marks ${family}`, [targets], () => marksWith(family, targets, memo));
  const frame = all.filter((rule) => rule.family === family && markOfRule(rule) === 0);
  const layout = layOutRules(family, fwmarks, frame);
  const changed = memo.changedMarks(`rules ${family}`);
  const marks = changed.look({ items: targets, markOf: markOfTarget }, { items: all, markOf: markOfRule }, layout.text);
  const isChanged = (mark: number) => marks === null || marks.has(mark);
  const members = all.filter((rule) => rule.family === family && markOfRule(rule) !== 0 && isChanged(markOfRule(rule)));
  const part = diffSomeRules(layout, fwmarks.filter(isChanged), [...frame, ...members]);
  const markOf = (step: Step) => ("rule" in step ? markOfRule(step.rule) : 0);
  changed.done([...part.additions, ...part.removals].map(markOf));
  return part;
}

/** Marks of the targets that have an address of the family, ascending. */
function marksWith(family: Family, targets: Targets, memo: Memo): readonly number[] {
  const gateways = memo.gatewaysOf(targets);
  const some = targets.filter((_, i) => gateways[i]![family] !== null);
  return some.map(markOfTarget).sort((a, b) => a - b);
}

function diffSomeRules(
  { first, memberOf, last, owns, isInForce }: RuleLayout,
  fwmarks: readonly number[],
  actual: readonly Rule[],
): Part {
  const rules = [...first, ...fwmarks.map(memberOf), ...last];
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

/** The same for rules of one family that do the same. We make none with other selectors, so one that has some is never ours. */
function ruleKey({ priority, fwmark, fwmask, action, table, goto: target, selectors }: Rule): string {
  const where = action === "table" ? table : target;
  return `${selectors === undefined ? "" : "not ours "}${priority} ${fwmark} ${fwmask} ${action} ${where}`;
}
