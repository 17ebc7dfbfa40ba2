import { isDeepStrictEqual } from "node:util";
import type { DeciderOptions } from "#dataplane";
import { readDataPlane } from "#tables";
import type { FragmentSettings } from "./fragment-options.js";
import { COUNTERS, DEFAULT_FLOWS } from "./names.js";

/** NFQUEUE numbers, both inclusive; none where `last` is below `first`. */
export type QueueRange = { readonly first: number; readonly last: number };

/** Options of a data plane that decide what becomes of packets, and the queues it serves. It leaves them beside its counters. */
export type RunningOptions = DeciderOptions & {
  readonly queues: QueueRange;
  /** Packets that a queue holds, and whether what finds it full passes without a mark. */
  readonly queueLength: number;
  readonly isFailOpen: boolean;
  /** Region of the flow rules; null in `lb` mode. */
  readonly flowsName: string | null;
  /** Table for every packet in `lb` mode, and the UDP port whose payload is SCTP there (0 = none). */
  readonly streamName: string | null;
  readonly udpEncapPort: number;
  /** Table of the load balancer tier, or null. */
  readonly tierName: string | null;
  readonly fragments: FragmentSettings;
};

/** Of `flowlb`, without a queue. */
export const DEFAULT_OPTIONS: RunningOptions = {
  queues: { first: 0, last: -1 },
  queueLength: 1024,
  isFailOpen: false,
  flowsName: DEFAULT_FLOWS,
  streamName: null,
  udpEncapPort: 0,
  hashMode: 1,
  noFlowFwmark: -1,
  noTargetFwmark: -1,
  isPromiscuousPing: false,
  tierName: null,
  fragments: { size: 500, buckets: 500, lifetimeMs: 200, isForgetful: false, mtu: 1500, slots: 0 },
};

/** The options as the text that goes into the counter file. */
export function describeRunning(options: RunningOptions): string {
  return JSON.stringify(options);
}

/** The numbers of a range; the n-th queue is served by the worker n. */
export function queueNumbers({ first, last }: QueueRange): readonly number[] {
  return Array.from({ length: last - first + 1 }, (_, worker) => first + worker);
}

/** The options of the data plane that runs on this folder, else `flowlb`'s defaults. */
export function runningOptions(folder: string): RunningOptions {
  return optionsFrom(readDataPlane(folder, COUNTERS)?.settings ?? "");
}

/** Options as a data plane left them; those it does not tell are `flowlb`'s defaults. */
export function optionsFrom(settings: string): RunningOptions {
  return { ...DEFAULT_OPTIONS, ...(parseOrNothing(settings) as Partial<RunningOptions>) };
}

/**
 * Where a data plane was started otherwise than wanted, each as `hashMode 1 instead of 0`. What only one of both knows is
 * a difference too: it is of another version.
 * @param settings as the data plane left them; empty: it is of another layout version, or has just begun
 */
export function differencesOf(settings: string, wanted: RunningOptions): readonly string[] {
  if (settings === "") return ["it tells no settings that are understood here"];
  const found = flatten(parseOrNothing(settings));
  const asked = flatten(wanted);
  return [...new Set([...found.keys(), ...asked.keys()])]
    .filter((name) => !isDeepStrictEqual(found.get(name), asked.get(name)))
    .map((name) => `${name} ${textOf(found.get(name))} instead of ${textOf(asked.get(name))}`);
}

/** Values by name; those of an inner object as `outer.inner`. */
function flatten(settings: object): ReadonlyMap<string, unknown> {
  const entries = Object.entries(settings).flatMap(([name, value]: [string, unknown]): [string, unknown][] =>
    isPlainObject(value)
      ? Object.entries(value).map(([inner, innerValue]) => [`${name}.${inner}`, innerValue])
      : [[name, value]],
  );
  return new Map(entries);
}

function isPlainObject(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** One that has just begun has not told anything yet. */
function parseOrNothing(settings: string): object {
  try {
    const value: unknown = JSON.parse(settings);
    return isPlainObject(value) ? value : {};
  } catch {
    return {};
  }
}

function textOf(value: unknown): string {
  return value === undefined ? "nothing" : JSON.stringify(value);
}
