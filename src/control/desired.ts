import { isDeepStrictEqual } from "node:util";
import { type FlowRule, parseFlowRule } from "#flow";
import { type Configuration, type Flow, formatPrefix, ruleName, type Target, tableName } from "#model";
import type { DesiredKernel } from "#steering";
import type { Offsets } from "./offsets.js";

/** Everything one instance wants, derived from the configuration and whether a frontend asks for it. */
export type Desired = {
  readonly kernel: DesiredKernel;
  /** Lookup tables by region name. */
  readonly tables: ReadonlyMap<string, DesiredTable>;
  /** Flow rules, in an order that gives their evaluation order by priority. The same array as long as nothing differs. */
  readonly flows: readonly FlowRule[];
  readonly targets: readonly DesiredTarget[];
};

export type DesiredTable = {
  /** Positions asked for. */
  readonly size: number;
  readonly maxTargets: number;
  /** fwmark per target index, -1 = none. */
  readonly active: Int32Array;
};

export const countTargets = ({ active }: DesiredTable) => active.filter((fwmark) => fwmark >= 0).length;

/** A target with the mark of its packets. */
export type DesiredTarget = Target & { readonly fwmark: number };

/** Positions per target: a Maglev table is even within 1 % from 100 on. Meridio's choice. */
export const POSITIONS_PER_TARGET = 100;
const ANY_PORT = "0-65535";
/** Lists of VIPs that are remembered beyond those that can be in use. */
const MOST_UNUSED = 64;

/** Where in the kernel this instance works; given by settings. */
export type KernelPlace = {
  readonly queue: NonNullable<DesiredKernel["queue"]>;
  readonly targetInterfaces: DesiredKernel["targetInterfaces"];
};

/**
 * What is left of a configuration while no frontend is announced: nothing is served. The VIPs stay, for their packets have
 * to be dropped here; unqueued they would be routed somewhere.
 */
export function evicted(configuration: Configuration): Configuration {
  return { ...configuration, streams: [], flows: [], targets: [] };
}

/** Streams without an offset, and what belongs to them, are left out. Pure, but for what `known` remembers. */
export function toDesired(
  configuration: Configuration,
  offsets: Offsets,
  place: KernelPlace,
  known = { flows: new FlowRules(), targets: new MarkedTargets() },
): Desired {
  const byStream = new Map<string, DesiredTable>();
  for (const { name, maxTargets } of configuration.streams) {
    const table = { size: maxTargets * POSITIONS_PER_TARGET, maxTargets, active: new Int32Array(maxTargets).fill(-1) };
    if (offsets.has(name)) byStream.set(name, table);
  }
  const isPlaced = ({ stream }: { readonly stream: string }) => byStream.has(stream);
  const targets = known.targets.of(configuration.targets.filter(isPlaced), offsets);
  for (const { stream, identifier, fwmark } of targets) byStream.get(stream)!.active[identifier - 1] = fwmark;
  const tables = new Map([...byStream].map(([name, table]) => [tableName(name), table]));
  const flows = known.flows.of(configuration.flows.filter(isPlaced));
  const vips = configuration.vips.map(({ prefix }) => prefix);
  const portNats = configuration.conduit.portNats.map((nat) => ({
    ...nat,
    vips: nat.vips.map(({ prefix }) => prefix),
  }));
  return { kernel: { targets, vips, portNats, ...place }, tables, flows, targets };
}

/** Targets with their marks. Equal ones stay the same objects, so that `===` tells whether there is anything to do. */
export class MarkedTargets {
  /** Also some of earlier configurations; all of these are forgotten when they are more than those in use. */
  #known = new Map<Target, DesiredTarget>();
  #last: readonly DesiredTarget[] = [];

  /** Returns the same array when the targets and their marks are the same. */
  of(targets: readonly Target[], offsets: Offsets): readonly DesiredTarget[] {
    const marked = targets.map((target): DesiredTarget => {
      const fwmark = offsets.get(target.stream)!.offset + target.identifier;
      const known = this.#known.get(target);
      if (known?.fwmark === fwmark) return known;
      const { stream, identifier, addresses, ips = addresses } = target;
      const one = { stream, identifier, addresses, ips, fwmark }; // field by field: see decision 0080
      this.#known.set(target, one);
      return one;
    });
    const isSame = marked.length === this.#last.length && marked.every((target, i) => target === this.#last[i]);
    if (isSame) return this.#last;
    if (this.#known.size > 2 * targets.length) this.#known = new Map(targets.map((target, i) => [target, marked[i]!]));
    this.#last = marked;
    return marked;
  }
}

/** Flows as rules of the data plane. A flow that is the same object as before is not read again. */
export class FlowRules {
  #known: ReadonlyMap<Flow, FlowRule> = new Map();
  #last: readonly FlowRule[] = [];
  /** Lists of VIPs by their text: a thousand flows have few of them, and all that is worked out of one is kept with it. */
  readonly #vips = new Map<string, FlowRule["destinations"]>();

  /** Returns the same array when the flows are the same. */
  readonly of = (flows: readonly Flow[]): readonly FlowRule[] => {
    if (this.#vips.size > flows.length + MOST_UNUSED) this.#vips.clear();
    const rules = flows.map((flow) => this.#known.get(flow) ?? this.#withSharedVips(toRule(flow)));
    this.#known = new Map(flows.map((flow, i) => [flow, rules[i]!]));
    const isSame = rules.length === this.#last.length && rules.every((rule, i) => rule === this.#last[i]);
    if (!isSame) this.#last = rules;
    return this.#last;
  };

  #withSharedVips(rule: FlowRule): FlowRule {
    const text = rule.destinations.map(formatPrefix).join();
    const shared = this.#vips.get(text);
    if (shared !== undefined) return { ...rule, destinations: shared };
    this.#vips.set(text, rule.destinations);
    return rule;
  }
}

/** A flow as a rule of the data plane. */
function toRule(flow: Flow): FlowRule {
  const { prio: priority, ...others } = flowOptions(flow);
  return parseFlowRule({ ...others, priority });
}

/** The command that would set a flow's rule. */
export function flowCommand(flow: Flow): string {
  return `nfqlb flow-set ${Object.entries(flowOptions(flow))
    .map(([name, value]) => `--${name}=${value}`)
    .join(" ")}`;
}

/** Options of `nfqlb flow-set` for a flow, with the names and omissions of the reference. */
function flowOptions(flow: Flow): Readonly<Record<string, string>> & { readonly prio: string } {
  const isAnySource = flow.sourcePrefixes.every((prefix) => prefix.endsWith("/0"));
  const ports = (ranges: readonly string[]) =>
    ranges.length === 0 || ranges.includes(ANY_PORT) ? undefined : ranges.join(",");
  const dports = ports(flow.destinationPorts);
  const sports = ports(flow.sourcePorts);
  return {
    name: ruleName(flow),
    target: tableName(flow.stream),
    prio: String(flow.priority),
    protocols: flow.protocols.join(","),
    ...(flow.vips.length === 0 ? {} : { dsts: flow.vips.map(({ prefix }) => prefix).join(",") }),
    ...(isAnySource ? {} : { srcs: flow.sourcePrefixes.join(",") }),
    ...(dports === undefined ? {} : { dports }),
    ...(sports === undefined ? {} : { sports }),
    ...(flow.byteMatches.length === 0 ? {} : { match: flow.byteMatches.join(",") }),
  };
}

/**
 * The rules in force with ours made to be exactly `wanted`. Ours are those whose name begins with a table's name; a rule
 * that an operator set by hand stays. Equal rules stay the same objects, and with that keep their counters.
 */
export function mergeFlows(present: readonly FlowRule[], wanted: readonly FlowRule[]): readonly FlowRule[] {
  const names = new Set(wanted.map(({ name }) => name));
  const kept = present.filter(({ name }) => !name.startsWith(tableName("")) || names.has(name));
  const before = new Map(kept.map((rule) => [rule.name, rule]));
  const now = new Map(
    wanted.map((rule) => [rule.name, isDeepStrictEqual(before.get(rule.name), rule) ? before.get(rule.name)! : rule]),
  );
  const replaced = kept.map((rule) => now.get(rule.name) ?? rule);
  const added = [...now.values()].filter(({ name }) => !before.has(name));
  // Among equal priorities ours stand in the configuration's order, however they came: all instances agree.
  const place = new Map(wanted.map(({ name }, i) => [name, i]));
  const rules = [...replaced, ...added].toSorted(
    (a, b) => b.priority - a.priority || (place.get(a.name) ?? -1) - (place.get(b.name) ?? -1),
  );
  return rules.length === present.length && rules.every((rule, i) => rule === present[i]) ? present : rules;
}
