import { type Configuration, ruleName, tableName } from "#model";
import type { Memo } from "#steering";
import type { DesiredTable } from "./desired.js";
import type { Offsets } from "./offsets.js";
import type { Status } from "./status.js";
import type { KnownTarget, KnownTargets } from "./targets.js";

/** What packets meet: the last that was published, also where a later change of it failed. */
export type InForce = {
  /** Tables by region name. */
  readonly tables: ReadonlyMap<string, Pick<DesiredTable, "active">>;
  /** Names of flow rules. */
  readonly rules: ReadonlySet<string>;
  /** By name, why a flow rule could not be put in force beside the others; what was in force of that name still is. */
  readonly refusedRules: ReadonlyMap<string, string>;
};

/** Whether its stream's table has the target. */
export function isInTable({ target: { stream, identifier, fwmark } }: KnownTarget, { tables }: InForce): boolean {
  return tables.get(tableName(stream))?.active[identifier - 1] === fwmark;
}

/** A stream in force. */
export type StreamCount = { readonly name: string; readonly flows: number; readonly ready: number };

/**
 * Streams whose table is in force, with the flows whose rules are, and the targets that are ready and in the table.
 * @param published another object whenever anything in it is another
 */
export function countStreams(
  memo: Memo,
  { streams, flows }: Pick<Configuration, "streams" | "flows">,
  offsets: Offsets,
  known: KnownTargets,
  published: { readonly inForce: InForce },
): readonly StreamCount[] {
  return memo.last("in force", [streams, flows, offsets, known, published], () =>
    count(streams, flows, offsets, known, published.inForce),
  );
}

function count(
  streams: Configuration["streams"],
  flows: Configuration["flows"],
  offsets: Offsets,
  known: KnownTargets,
  inForce: InForce,
): readonly StreamCount[] {
  const counts = new Map<string, { flows: number; ready: number; readonly active: Int32Array }>();
  for (const { name } of streams) {
    const active = inForce.tables.get(tableName(name))?.active;
    if (offsets.has(name) && active !== undefined) counts.set(name, { flows: 0, ready: 0, active });
  }
  for (const flow of flows) {
    const one = counts.get(flow.stream);
    if (one !== undefined && inForce.rules.has(ruleName(flow))) one.flows++;
  }
  for (const { target, state } of known.values()) {
    const one = state.kind === "ready" ? counts.get(target.stream) : undefined;
    if (one?.active[target.identifier - 1] === target.fwmark) one.ready++;
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
