import { join } from "node:path";
import type { WorkerReady, WorkerSettings } from "#dataplane";
import { CounterFile, ensureFlows, TraceFile } from "#tables";
import { type Command, CommandError, type Io, numberOption, regionName, shmFolder } from "./command.js";
import { DEFAULT_FLOW_ADDRESS, parseFlowAddress } from "./flow-address.js";
import { answerFlowRequest } from "./flow-requests.js";
import { serveFlowSocket } from "./flow-server.js";
import { keepHouse } from "./housekeeping.js";
import { COUNTERS, DEFAULT_FLOWS, TRACE, TRACE_FLOWS } from "./names.js";
import type { OptionSpec, ParsedOptions } from "./options.js";
import { PlaneLog } from "./plane-log.js";
import { QueueThreads } from "./queue-threads.js";
import { describeRunning, type RunningOptions } from "./running.js";

const MAX_FWMARK = 2 ** 31 - 1;
const MAX_U32 = 2 ** 32 - 1;
const MIN_MTU = 576;
const MAX_TRACE_RATE = 100_000;
/** Records of a trace ring: two seconds of one selection, within these bounds. Powers of two. */
const MIN_TRACE_RECORDS = 1_024;
const MAX_TRACE_RECORDS = 65_536;
/**
 * Bytes of a packet that the kernel copies out. Enough for an IPv6 header, some 100 bytes of extension headers and the
 * ports, or an ICMPv6 error with the headers it quotes; the decision needs no more.
 */
const COPY_BYTES = 256;

const commonOptions: readonly OptionSpec[] = [
  { name: "queue", kind: "value", default: "2", help: "NFQUEUE number, or a range first:last" },
  { name: "qlength", kind: "value", default: "1024", help: "Packets a queue holds" },
  { name: "mtu", kind: "value", default: "1500", help: "MTU of the traffic, at least 576" },
  { name: "hash_mode", kind: "value", default: "1", help: "1 = SCTP on its ports only, else the whole tuple" },
  { name: "notargets_fwmark", kind: "value", default: "-1", help: "fwmark when no target is active; -1 drops" },
  { name: "lbshm", kind: "value", help: "Table of the load balancer tier, for fragments" },
  { name: "ft_shm", kind: "value", default: "ftshm", help: "Accepted; statistics are in the counters" },
  { name: "ft_size", kind: "value", default: "500", help: "Fragment records" },
  { name: "ft_buckets", kind: "value", default: "500", help: "Further fragment records" },
  { name: "ft_frag", kind: "value", default: "100", help: "Accepted; fragments are not stored in this version" },
  { name: "ft_ttl", kind: "value", default: "200", help: "Lifetime of a fragment record in ms" },
  { name: "trace_rate", kind: "value", default: "1000", help: "Packets a second that a queue records per selection" },
  { name: "trace_address", kind: "value", help: "Accepted; trace reads shared memory and needs no socket" },
];

const lb: Command = {
  name: "lb",
  summary: "Balance with one table for all packets",
  options: [
    ...commonOptions,
    { name: "tshm", kind: "value", default: "nfqlb", help: "The table" },
    { name: "sctp_encap", kind: "value", default: "0", help: "UDP port whose payload is SCTP" },
  ],
  run: (options, io) => balance(options, io, { mode: "lb" }),
};

const flowlb: Command = {
  name: "flowlb",
  summary: "Balance with flow rules that choose the table",
  options: [
    ...commonOptions,
    { name: "promiscuous_ping", kind: "switch", help: "Echo requests match flows by addresses alone" },
    { name: "nolb_fwmark", kind: "value", default: "-1", help: "fwmark when no flow matches; -1 drops" },
    { name: "flow_shm", kind: "value", default: DEFAULT_FLOWS, help: "Region of the flow rules" },
  ],
  run: (options, io) => balance(options, io, { mode: "flowlb" }),
};

export const BALANCER_COMMANDS: readonly Command[] = [lb, flowlb];

/** Runs the data plane until SIGTERM, SIGINT or a queue that cannot be served. */
async function balance(options: ParsedOptions, io: Io, { mode }: { mode: "lb" | "flowlb" }): Promise<number> {
  const folder = shmFolder(io.env);
  const queues = parseQueues(options.values.get("queue") ?? "2");
  const running = readRunningOptions(options, queues, mode);
  const { flowsName } = running;
  const traceRate = numberOption(options, "trace_rate", 1_000, 1, MAX_TRACE_RATE);
  if (flowsName !== null) ensureFlows(folder, flowsName);
  using counters = CounterFile.create(folder, COUNTERS, queues.length, describeRunning(running));
  ensureFlows(folder, TRACE_FLOWS);
  using trace = TraceFile.own(folder, TRACE, queues.length + 1, traceRecords(traceRate));
  const log = new PlaneLog(trace, io.error);
  const flowSocket =
    flowsName === null
      ? null
      : await serveFlowSocket(parseFlowAddress(io.env["NFQLB_FLOW_ADDRESS"] || DEFAULT_FLOW_ADDRESS), (request) =>
          answerFlowRequest(request, { folder, flowsName, traceFlowsName: TRACE_FLOWS, counters, trace, log }),
        ).catch((error: Error) => {
          throw new CommandError(`Flow server bind: ${error.message}`);
        });
  const settings = queues.map((queueNumber, worker) =>
    workerSettings(options, { folder, queueNumber, worker, running, traceRate }),
  );
  io.out(fragmentLine(running));
  const endHousekeeping = keepHouse({ folder, flowsName, trace, counters, log });
  return await new Promise<number>((resolve) => {
    let exitCode = 0;
    const threads = new QueueThreads(join(__dirname, "queue-worker.cjs"), settings, {
      onAllReady: (ready) => {
        io.out(ready.map((one) => queueLine(options, one)).join(""));
        counters.setReady();
      },
      onRestart: (queueNumber, error) =>
        log.log("warning", `queue ${queueNumber}: thread restarted after: ${describeError(error)}`),
      onFatal: (queueNumber, error) => {
        io.error(`queue ${queueNumber}: ${describeError(error)}\n`);
        exitCode = 1;
        end();
      },
    });
    let isEnding = false;
    const end = () => {
      if (isEnding) return;
      isEnding = true;
      flowSocket?.[Symbol.dispose]();
      endHousekeeping();
      void threads.stop().then(() => resolve(exitCode));
    };
    process.on("SIGTERM", end);
    process.on("SIGINT", end);
    process.on("SIGHUP", () => {});
  });
}

function describeError(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** `n` or `first:last`, inclusive, 0…65535. @throws {CommandError} in upstream's words */
function parseQueues(text: string): readonly number[] {
  const match = /^([0-9]{1,5})(?::([0-9]{1,5}))?$/.exec(text);
  const first = Number(match?.[1]);
  const last = Number(match?.[2] ?? match?.[1]);
  if (match === null || first > last || last > 65_535) throw new CommandError(`queue invalid [${text}]`);
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}

/** Enough for two seconds at that rate, a power of two. */
function traceRecords(packetsPerSecond: number): number {
  const wanted = 2 ** Math.ceil(Math.log2(2 * packetsPerSecond));
  return Math.min(MAX_TRACE_RECORDS, Math.max(MIN_TRACE_RECORDS, wanted));
}

function readRunningOptions(options: ParsedOptions, queues: readonly number[], mode: "lb" | "flowlb"): RunningOptions {
  return {
    queues,
    flowsName: mode === "flowlb" ? regionName(options, "flow_shm", DEFAULT_FLOWS) : null,
    streamName: mode === "lb" ? regionName(options, "tshm", "nfqlb") : null,
    udpEncapPort: mode === "lb" ? numberOption(options, "sctp_encap", 0, 0, 65_535) : 0,
    hashMode: numberOption(options, "hash_mode", 1, 0, 65_535),
    noFlowFwmark: numberOption(options, "nolb_fwmark", -1, -1, MAX_FWMARK),
    noTargetFwmark: numberOption(options, "notargets_fwmark", -1, -1, MAX_FWMARK),
    isPromiscuousPing: options.values.has("promiscuous_ping"),
    tierName: options.values.has("lbshm") ? regionName(options, "lbshm", "") : null,
    fragments: {
      size: numberOption(options, "ft_size", 500, 1, 1 << 22),
      buckets: numberOption(options, "ft_buckets", 500, 0, 1 << 22),
      lifetimeMs: numberOption(options, "ft_ttl", 200, 1, MAX_U32),
      mtu: numberOption(options, "mtu", 1500, MIN_MTU, 65_535),
    },
  };
}

function workerSettings(
  options: ParsedOptions,
  own: { folder: string; queueNumber: number; worker: number; running: RunningOptions; traceRate: number },
): WorkerSettings {
  const { folder, queueNumber, worker, running, traceRate } = own;
  const { size, buckets, lifetimeMs, mtu } = running.fragments;
  return {
    folder,
    countersName: COUNTERS,
    worker,
    queue: {
      queueNumber,
      maxPackets: numberOption(options, "qlength", 1024, 1, MAX_U32),
      copyBytes: Math.min(mtu, COPY_BYTES),
    },
    flowsName: running.flowsName,
    streamName: running.streamName,
    tierName: running.tierName,
    udpEncapPort: running.udpEncapPort,
    decider: running,
    fragments: { capacity: size + buckets, lifetimeMs },
    trace: { name: TRACE, rulesName: TRACE_FLOWS, packetsPerSecond: traceRate },
  };
}

function fragmentLine({ fragments: { size, buckets, mtu, lifetimeMs } }: RunningOptions): string {
  return `FragTable; size=${size}, buckets=${buckets}, frag=0, mtu=${mtu}, ttl=${lifetimeMs}\n`;
}

function queueLine(options: ParsedOptions, ready: WorkerReady): string {
  const length = options.values.get("qlength") ?? "1024";
  const mtu = options.values.get("mtu") ?? "1500";
  return `queue_length=${length}, mtu=${mtu}, SO_RCVBUF=${ready.receiveBufferBytes} (${ready.receiveBufferAsked})\n`;
}
