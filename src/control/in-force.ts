import type { Configuration } from "#model";
import { type DesiredTable, ruleName, tableName } from "./desired.js";
import type { Offsets } from "./offsets.js";
import type { Status } from "./status.js";
import type { KnownTarget, KnownTargets } from "./targets.js";

/** What packets meet: the last that was published, also where a later change of it failed. */
export type InForce = {
  /** Tables by region name. */
  readonly tables: ReadonlyMap<string, Pick<DesiredTable, "targets">>;
  /** Names of flow rules. */
  readonly rules: ReadonlySet<string>;
  /** By name, why a flow rule could not be put in force beside the others; what was in force of that name still is. */
  readonly refusedRules: ReadonlyMap<string, string>;
};

/** Whether its stream's table has the target. */
export function isInTable({ target: { stream, identifier, fwmark } }: KnownTarget, { tables }: InForce): boolean {
  return tables.get(tableName(stream))?.targets.get(identifier - 1) === fwmark;
}

/** A stream in force. */
export type StreamCount = { readonly name: string; readonly flows: number; readonly ready: number };

/** Streams whose table is in force, with the flows whose rules are, and the targets that are ready and in the table. */
export function countStreams(
  { streams, flows }: Configuration,
  offsets: Offsets,
  known: KnownTargets,
  inForce: InForce,
): readonly StreamCount[] {
  const counts = new Map<string, { flows: number; ready: number; readonly table: Pick<DesiredTable, "targets"> }>();
  for (const { name } of streams) {
    const table = inForce.tables.get(tableName(name));
    if (offsets.has(name) && table !== undefined) counts.set(name, { flows: 0, ready: 0, table });
  }
  for (const flow of flows) {
    const count = counts.get(flow.stream);
    if (count !== undefined && inForce.rules.has(ruleName(flow))) count.flows++;
  }
  for (const { target, state } of known.values()) {
    const count = state.kind === "ready" ? counts.get(target.stream) : undefined;
    if (count?.table.targets.get(target.identifier - 1) === target.fwmark) count.ready++;
  }
  return [...counts].map(([name, { flows: count, ready }]) => ({ name, flows: count, ready }));
}

/** Flows whose rules are too much beside the others. */
export function refusedFlows({ refusedRules }: InForce): Status["refusals"] {
  return [...refusedRules].map(([name, reason]) => ({ what: "flow", name, reason, fwmark: null }));
}

/** What is told as served after a turn in which something could not be published. */
export function withoutUnpublished<C extends Pick<Configuration, "streams" | "flows">>(
  wanted: C,
  known: KnownTargets,
  inForce: InForce,
): { readonly wanted: C; readonly known: KnownTargets } {
  const streams = wanted.streams.filter(({ name }) => inForce.tables.has(tableName(name)));
  const isAsWanted = (name: string) => inForce.rules.has(name) && !inForce.refusedRules.has(name);
  const flows = wanted.flows.filter((flow) => isAsWanted(ruleName(flow)));
  const told = [...known].filter(([, one]) => one.state.kind !== "ready" || isInTable(one, inForce));
  return { wanted: { ...wanted, streams, flows }, known: new Map(told) };
}
