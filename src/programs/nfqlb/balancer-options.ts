import { CommandError, numberOption, regionName } from "./command.js";
import { FRAGMENT_OPTIONS, readFragmentSettings } from "./fragment-options.js";
import { DEFAULT_FLOWS, MAX_QUEUES } from "./names.js";
import type { OptionSpec, ParsedOptions } from "./options.js";
import type { QueueRange, RunningOptions } from "./running.js";

const MAX_FWMARK = 2 ** 31 - 1;
const MAX_U32 = 2 ** 32 - 1;
/**
 * Bytes of a packet that the kernel copies out. Enough for an IPv6 header, as many bytes of extension headers as `packet`
 * walks (152) and the ports, or an ICMPv6 error that has so many together with what it quotes; the decision needs no more.
 * Where fragments are held whole packets are copied.
 */
const COPY_BYTES = 256;

const commonOptions: readonly OptionSpec[] = [
  { name: "queue", kind: "value", default: "2", help: "NFQUEUE number, or a range first:last" },
  { name: "qlength", kind: "value", default: "1024", help: "Packets a queue holds" },
  {
    name: "fail_open",
    kind: "switch",
    isOwn: true,
    help: "Packets that find a queue full pass without a mark; else they are dropped",
  },
  { name: "hash_mode", kind: "value", default: "1", help: "1 = SCTP on its ports only, else the whole tuple" },
  { name: "notargets_fwmark", kind: "value", default: "-1", help: "fwmark when no target is active; -1 drops" },
  ...FRAGMENT_OPTIONS,
  {
    name: "trace_rate",
    kind: "value",
    isOwn: true,
    default: "1000",
    help: "Packets a second that a queue records per selection",
  },
  { name: "trace_address", kind: "value", help: "Accepted; trace reads shared memory and needs no socket" },
];

export const LB_OPTIONS: readonly OptionSpec[] = [
  ...commonOptions,
  { name: "tshm", kind: "value", default: "nfqlb", help: "The table" },
  { name: "sctp_encap", kind: "value", default: "0", help: "UDP port whose payload is SCTP" },
];

export const FLOWLB_OPTIONS: readonly OptionSpec[] = [
  ...commonOptions,
  { name: "promiscuous_ping", kind: "switch", help: "Echo requests match flows by addresses alone" },
  { name: "nolb_fwmark", kind: "value", default: "-1", help: "fwmark when no flow matches; -1 drops" },
  { name: "flow_shm", kind: "value", isOwn: true, default: DEFAULT_FLOWS, help: "Region of the flow rules" },
];

/** What a data plane leaves beside its counters. @throws {CommandError} */
export function readRunningOptions(options: ParsedOptions, mode: "lb" | "flowlb"): RunningOptions {
  const queues = parseQueues(options.values.get("queue") ?? "2");
  return {
    queues,
    queueLength: numberOption(options, "qlength", 1024, 1, MAX_U32),
    isFailOpen: options.values.has("fail_open"),
    flowsName: mode === "flowlb" ? regionName(options, "flow_shm", DEFAULT_FLOWS) : null,
    streamName: mode === "lb" ? regionName(options, "tshm", "nfqlb") : null,
    udpEncapPort: mode === "lb" ? numberOption(options, "sctp_encap", 0, 0, 65_535) : 0,
    hashMode: numberOption(options, "hash_mode", 1, 0, 65_535),
    noFlowFwmark: numberOption(options, "nolb_fwmark", -1, -1, MAX_FWMARK),
    noTargetFwmark: numberOption(options, "notargets_fwmark", -1, -1, MAX_FWMARK),
    isPromiscuousPing: options.values.has("promiscuous_ping"),
    tierName: options.values.has("lbshm") ? regionName(options, "lbshm", "") : null,
    fragments: readFragmentSettings(options, queues.last - queues.first + 1),
  };
}

/** Bytes of a packet that are copied out: whole packets only where some are held. */
export function copyRange({ fragments: { mtu, slots } }: RunningOptions): number {
  return slots > 0 ? mtu : Math.min(mtu, COPY_BYTES);
}

/** `n` or `first:last`, inclusive, 0…65535. @throws {CommandError} in upstream's words */
function parseQueues(text: string): QueueRange {
  const match = /^([0-9]{1,5})(?::([0-9]{1,5}))?$/.exec(text);
  const first = Number(match?.[1]);
  const last = Number(match?.[2] ?? match?.[1]);
  if (match === null || first > last || last > 65_535) throw new CommandError(`queue invalid [${text}]`);
  const count = last - first + 1;
  if (count > MAX_QUEUES) throw new CommandError(`queue invalid [${text}]: ${count} queues; at most ${MAX_QUEUES}`);
  return { first, last };
}
