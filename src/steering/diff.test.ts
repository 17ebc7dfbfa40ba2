// What is remembered from turn to turn must change no plan: random histories of targets, of what is done of the plans and
// of what others do in between, each turn planned with the memo of all turns before and with a fresh one.
import fc from "fast-check";
import { expect, test } from "vitest";
import { parseAddress } from "#model";
import { defaultRoute, type Route, type Rule } from "#netlink/route";
import { diff } from "./diff.js";
import { formatPlan } from "./format.js";
import { Memo } from "./memo.js";
import { afterCommands } from "./nft-apply.js";
import type { ActualTable } from "./nft-objects.js";
import { type DesiredKernel, NOTHING_DESIRED, OUR_PROTOCOL, type Step } from "./state.js";

type Target = DesiredKernel["targets"][number];
const FEATURES = { queueStatement: "native", hasConntrack: true, hasSctpChecksum: true } as const;
const FIRST = 5_000;
const MOST = 100;

/** What the kernel holds: objects that nobody touches stay the same ones. */
class World {
  rules: readonly Rule[] = [];
  routes: readonly Route[] = [];
  tables: ReadonlyMap<string, ActualTable> = new Map();

  plan(targets: readonly Target[], memo: Memo) {
    const queue = { first: 0, last: 0, isFanout: false };
    const { rules, routes, tables } = this;
    const desired = { ...NOTHING_DESIRED, targets, vips: ["10.0.0.1/32"], queue };
    return diff(desired, { rules, routes, isAstray: () => false, tables, features: FEATURES, memo });
  }

  apply(step: Step): void {
    switch (step.kind) {
      case "addRule":
        this.rules = [...this.rules, step.rule].toSorted((a, b) => a.priority - b.priority);
        break;
      case "deleteRule":
        this.rules = this.rules.filter((rule) => rule !== step.rule);
        break;
      case "replaceRoute": {
        const address = parseAddress(step.gateway);
        const bytes = step.family === 4 ? address.slice(12) : address;
        const made = defaultRoute(step.table, bytes, OUR_PROTOCOL);
        const route: Route = { ...made, metric: step.family === 4 ? 0 : 1_024 };
        const others = this.routes.filter(({ family, table }) => family !== step.family || table !== step.table);
        this.routes = [...others, route];
        break;
      }
      case "deleteRoute":
        this.routes = this.routes.filter((route) => route !== step.route);
        break;
      case "nft":
        this.tables = afterCommands(this.tables, step.commands);
        break;
    }
  }

  /** Somebody takes away the rule, the route, the chain or the map's element at this place, or all tables, or moves a hook. */
  disturb(what: "rule" | "route" | "chain" | "element" | "hook" | "tables", at: number): void {
    if (what === "tables") this.tables = new Map();
    if (what === "rule") this.rules = this.rules.filter((_, i) => i !== at % this.rules.length);
    if (what === "route") this.routes = this.routes.filter((_, i) => i !== at % this.routes.length);
    const table = this.tables.get("meridio-metrics");
    if (table === undefined) return;
    const [chains, sets] = [new Map(table.chains), new Map(table.sets)];
    if (what === "chain") chains.delete([...chains.keys()][at % Math.max(1, chains.size)] ?? "");
    const hits = chains.get("target-hits");
    if (what === "hook" && hits?.hook) chains.set("target-hits", { ...hits, hook: { ...hits.hook, priority: 7 } });
    for (const [name, set] of what === "element" ? sets : [])
      sets.set(name, { ...set, elements: set.elements.filter((_, i) => i !== at % set.elements.length) });
    this.tables = new Map(this.tables).set("meridio-metrics", { flags: 0, chains, sets });
  }
}

const all = Array.from({ length: MOST }, (_, i): Target => {
  const addresses = [`10.1.${i >> 8}.${i & 255}`, `fd00::${(i + 1).toString(16)}`];
  return { fwmark: FIRST + i, addresses: i % 7 === 0 ? addresses.slice(i % 2, (i % 2) + 1) : addresses };
});
/** Another address at the same mark. */
const moved = all.map(({ fwmark }): Target => ({ fwmark, addresses: [`10.2.0.${fwmark & 255}`] }));

const turn = fc.record({
  isThere: fc.oneof(
    fc.constant((i: number) => i < MOST),
    fc.nat(MOST).map((gone) => (i: number) => i !== gone),
    fc.integer({ min: 2, max: 9 }).map((one) => (i: number) => i % one !== 0),
    fc.nat(MOST).map((most) => (i: number) => i < most),
  ),
  isMoved: fc.nat(2 * MOST).map((at) => (i: number) => i === at),
  done: fc.oneof({ weight: 3, arbitrary: fc.constant(Number.POSITIVE_INFINITY) }, { weight: 1, arbitrary: fc.nat(40) }),
  disturbances: fc.array(
    fc.tuple(
      fc.constantFrom<Parameters<World["disturb"]>[0][]>("rule", "route", "chain", "element", "hook", "tables"),
      fc.nat(),
    ),
    { maxLength: 2 },
  ),
});

test("with what earlier turns have remembered, every plan is the one that a fresh start would make", () => {
  const holds = fc.property(fc.array(turn, { minLength: 3, maxLength: 8 }), (turns) => {
    const world = new World();
    const memo = new Memo();
    for (const { isThere, isMoved, done, disturbances } of turns) {
      const targets = all
        .filter((_, i) => isThere(i))
        .map((one) => (isMoved(one.fwmark - FIRST) ? moved[one.fwmark - FIRST]! : one));
      for (const [what, at] of disturbances) world.disturb(what, at);
      const plan = world.plan(targets, memo);
      const text = formatPlan(plan).toSorted();
      expect(text).toEqual(formatPlan(world.plan(targets, new Memo())).toSorted());
      const steps = [...plan.additions, ...plan.vips, ...plan.removals];
      for (const step of steps.slice(0, done)) world.apply(step);
      if (done < steps.length) continue;
      expect(formatPlan(world.plan(targets, memo))).toEqual([]);
      expect(formatPlan(world.plan(targets, new Memo()))).toEqual([]);
    }
  });
  fc.assert(holds, { numRuns: 12 });
});
