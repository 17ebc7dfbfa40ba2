import { isDeepStrictEqual } from "node:util";
import { type FlowRule, parseFlowRule } from "#flow";
import type { Configuration, Flow } from "#model";
import type { DesiredKernel } from "#steering";
import type { Offsets } from "./offsets.js";

/** Everything one instance wants, derived from the configuration alone. */
export type Desired = {
  readonly kernel: DesiredKernel;
  /** Lookup tables by region name. */
  readonly tables: ReadonlyMap<string, DesiredTable>;
  /** Flow rules, in an order that gives their evaluation order by priority. */
  readonly flows: readonly FlowRule[];
};

export type DesiredTable = {
  /** Positions asked for. */
  readonly size: number;
  readonly maxTargets: number;
  /** fwmark per target index. */
  readonly targets: ReadonlyMap<number, number>;
};

/** Positions per target: a Maglev table is even within 1 % from 100 on. Meridio's choice. */
const POSITIONS_PER_TARGET = 100;
const ANY_PORT = "0-65535";

/** Region of a stream's lookup table; operators know it by this name. */
export const tableName = (stream: string) => `tshm-${stream}`;

/** Where in the kernel this instance works; given by settings. */
export type KernelPlace = {
  readonly queue: NonNullable<DesiredKernel["queue"]>;
  readonly targetInterfaces: DesiredKernel["targetInterfaces"];
};

/** Streams without an offset, and what belongs to them, are left out. Pure. */
export function toDesired(configuration: Configuration, offsets: Offsets, place: KernelPlace): Desired {
  const tables = new Map<string, DesiredTable>();
  const kernelTargets: { fwmark: number; addresses: readonly string[] }[] = [];
  for (const { name, maxTargets } of configuration.streams) {
    const range = offsets.get(name);
    if (range === undefined) continue;
    const targets = new Map<number, number>();
    for (const { stream, identifier, addresses } of configuration.targets) {
      if (stream !== name) continue;
      const fwmark = range.offset + identifier;
      targets.set(identifier - 1, fwmark);
      kernelTargets.push({ fwmark, addresses });
    }
    tables.set(tableName(name), { size: maxTargets * POSITIONS_PER_TARGET, maxTargets, targets });
  }
  const flows = configuration.flows.filter(({ stream }) => offsets.has(stream)).map(toRule);
  const vips = configuration.vips.map(({ prefix }) => prefix);
  const portNats = configuration.conduit.portNats.map((nat) => ({
    ...nat,
    vips: nat.vips.map(({ prefix }) => prefix),
  }));
  return { kernel: { targets: kernelTargets, vips, portNats, ...place }, tables, flows };
}

/** A flow as a rule of the data plane, with the names and omissions of the reference. */
function toRule(flow: Flow): FlowRule {
  const isAnySource = flow.sourcePrefixes.every((prefix) => prefix.endsWith("/0"));
  const ports = (ranges: readonly string[]) =>
    ranges.length === 0 || ranges.includes(ANY_PORT) ? undefined : ranges.join(",");
  const dports = ports(flow.destinationPorts);
  const sports = ports(flow.sourcePorts);
  return parseFlowRule({
    name: `${tableName(flow.stream)}-${flow.name}`,
    target: tableName(flow.stream),
    priority: String(flow.priority),
    protocols: flow.protocols.join(","),
    ...(flow.vips.length === 0 ? {} : { dsts: flow.vips.map(({ prefix }) => prefix).join(",") }),
    ...(isAnySource ? {} : { srcs: flow.sourcePrefixes.join(",") }),
    ...(dports === undefined ? {} : { dports }),
    ...(sports === undefined ? {} : { sports }),
    ...(flow.byteMatches.length === 0 ? {} : { match: flow.byteMatches.join(",") }),
  });
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
