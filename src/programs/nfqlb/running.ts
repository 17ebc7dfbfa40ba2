import type { DeciderOptions } from "#dataplane";
import { readDataPlane } from "#tables";
import type { FragmentSettings } from "./fragment-options.js";
import { COUNTERS, DEFAULT_FLOWS } from "./names.js";

/** Options of a data plane that decide where packets go, and the queues it serves. It leaves them beside its counters. */
export type RunningOptions = DeciderOptions & {
  readonly queues: readonly number[];
  /** Region of the flow rules; null in `lb` mode. */
  readonly flowsName: string | null;
  /** Table for every packet in `lb` mode, and the UDP port whose payload is SCTP there (0 = none). */
  readonly streamName: string | null;
  readonly udpEncapPort: number;
  /** Table of the load balancer tier, or null. */
  readonly tierName: string | null;
  readonly fragments: FragmentSettings;
};

const DEFAULTS: RunningOptions = {
  queues: [],
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

/** The options of the data plane that runs on this folder, else `flowlb`'s defaults. */
export function runningOptions(folder: string): RunningOptions {
  const running = readDataPlane(folder, COUNTERS);
  if (running === null) return DEFAULTS;
  return { ...DEFAULTS, ...(JSON.parse(running.settings) as Partial<RunningOptions>) };
}
