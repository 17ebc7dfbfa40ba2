import { join } from "node:path";
import type { FragmentMemory, TunDevice, WorkerSettings } from "#dataplane";
import { QueueSocket, readQueueStates } from "#netlink/queue";
import { CounterFile, ensureFlows, TraceFile } from "#tables";
import { SettledMemory } from "../settled-memory.js";
import { type Command, CommandError, type Io, numberOption, regionName, shmFolder } from "./command.js";
import { DEFAULT_FLOW_ADDRESS, type FlowAddress, parseFlowAddress } from "./flow-address.js";
import { answerFlowRequest, type FlowSocketState } from "./flow-requests.js";
import { serveFlowSocket } from "./flow-server.js";
import {
  FRAGMENT_OPTIONS,
  fragmentLine,
  makeFragmentMemory,
  openTunDevice,
  readFragmentSettings,
  readTierInterfaces,
  sweepFragments,
} from "./fragment-options.js";
import { keepHouse } from "./housekeeping.js";
import { COUNTERS, DEFAULT_FLOWS, TRACE, TRACE_FLOWS } from "./names.js";
import type { OptionSpec, ParsedOptions } from "./options.js";
import { PlaneLog } from "./plane-log.js";
import { type Loss, QueueMonitor } from "./queue-monitor.js";
import { QueueThreads } from "./queue-threads.js";
import { describeRunning, type RunningOptions } from "./running.js";

const MAX_FWMARK = 2 ** 31 - 1;
const MAX_U32 = 2 ** 32 - 1;
const MAX_TRACE_RATE = 100_000;
/** Records of a trace ring: two seconds of one selection, within these bounds. Powers of two. */
const MIN_TRACE_RECORDS = 1_024;
const MAX_TRACE_RECORDS = 65_536;
/**
 * Bytes of a packet that the kernel copies out. Enough for an IPv6 header, as many bytes of extension headers as `packet`
 * walks (152) and the ports, or an ICMPv6 error that quotes such a packet; the decision needs no more. Where fragments
 * are held whole packets are copied.
 */
const COPY_BYTES = 256;

const commonOptions: readonly OptionSpec[] = [
  { name: "queue", kind: "value", default: "2", help: "NFQUEUE number, or a range first:last" },
  { name: "qlength", kind: "value", default: "1024", help: "Packets a queue holds" },
  {
    name: "fail_open",
    kind: "switch",
    help: "Packets that find a queue full pass without a mark; else they are dropped",
  },
  { name: "hash_mode", kind: "value", default: "1", help: "1 = SCTP on its ports only, else the whole tuple" },
  { name: "notargets_fwmark", kind: "value", default: "-1", help: "fwmark when no target is active; -1 drops" },
  ...FRAGMENT_OPTIONS,
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

/**
 * Runs the data plane until SIGTERM, SIGINT or a queue that cannot be served. The queues are bound first of all: from then
 * on packets wait instead of being lost.
 */
async function balance(options: ParsedOptions, io: Io, { mode }: { mode: "lb" | "flowlb" }): Promise<number> {
  const folder = shmFolder(io.env);
  const queues = parseQueues(options.values.get("queue") ?? "2");
  const running = readRunningOptions(options, queues, mode);
  const { flowsName } = running;
  const traceRate = numberOption(options, "trace_rate", 1_000, 1, MAX_TRACE_RATE);
  const flowAddress = mode === "flowlb" ? parseFlowAddress(io.env["NFQLB_FLOW_ADDRESS"] || DEFAULT_FLOW_ADDRESS) : null;
  using tun = openTunDevice(options, running.fragments);
  const tierInterfaces = readTierInterfaces(options);
  using counters = CounterFile.create(folder, COUNTERS, queues.length, describeRunning(running));
  const sockets = bindQueues(options, queues, copyRange(running));
  const fragments = makeFragmentMemory(running.fragments, queues.length);
  const shared = { folder, running, traceRate, fragments, tierInterfaces, tun };
  if (flowsName !== null) ensureFlows(folder, flowsName);
  ensureFlows(folder, TRACE_FLOWS);
  using trace = TraceFile.own(folder, TRACE, queues.length + 1, traceRecords(traceRate));
  const log = new PlaneLog(trace, io.error);
  using monitor = new QueueMonitor(counters, queues, (loss) => log.log("warning", lossLine(loss)));
  const served = sockets.map((socket, worker) => ({
    socket,
    settings: workerSettings({ ...shared, socket, worker }),
  }));
  let end: (exitCode: number) => void = () => {};
  const ended = new Promise<number>((resolve) => {
    end = resolve;
  });
  const threads = new QueueThreads(join(__dirname, "queue-worker.cjs"), served, {
    onRestart: (queueNumber, error, inMs) =>
      log.log("warning", `queue ${queueNumber}: thread failed, started again in ${inMs} ms: ${describeError(error)}`),
    onFatal: (queueNumber, error) => {
      io.error(`queue ${queueNumber}: ${describeError(error)}\n`);
      end(1);
    },
  });
  if (readQueueStates() === null)
    log.log("warning", "packets lost in full queues are not counted: the kernel tells it to user or group 0 alone");
  io.out(fragmentLine(running.fragments));
  const endSweeping = sweepFragments(fragments, counters);
  const endHousekeeping = keepHouse({ folder, flowsName, trace, counters, log });
  process.on("SIGTERM", () => end(0));
  process.on("SIGINT", () => end(0));
  process.on("SIGHUP", () => {});
  using memory = new SettledMemory();
  let failure = "";
  try {
    using _flowSocket =
      flowAddress === null || flowsName === null
        ? null
        : await listenForFlows(flowAddress, { folder, flowsName, traceFlowsName: TRACE_FLOWS, counters, trace, log });
    void threads.ready.then(() => {
      io.out(sockets.map((socket) => queueLine(options, socket)).join(""));
      counters.setReady();
      memory.stir(); // what the start needed; packets leave nothing behind
    });
    return await ended;
  } catch (error) {
    failure = `${(error as Error).message}\n`;
    throw error;
  } finally {
    endHousekeeping();
    endSweeping();
    const hasStopped = await threads.stop();
    monitor.sample();
    if (!hasStopped) {
      io.error(failure); // nobody else will tell it
      process.exit(1); // a thread hangs, or has only begun: it would hold up the end of the process
    }
    for (const socket of sockets) socket[Symbol.dispose]();
  }
}

async function listenForFlows(address: FlowAddress, state: FlowSocketState): Promise<Disposable> {
  try {
    return await serveFlowSocket(address, (request) => answerFlowRequest(request, state));
  } catch (error) {
    throw new CommandError(`Flow server bind: ${describeError(error)}`);
  }
}

/** Binds all queues or none. @throws {CommandError} another process has one, or CAP_NET_ADMIN is missing */
function bindQueues(options: ParsedOptions, queues: readonly number[], copyBytes: number): readonly QueueSocket[] {
  const sockets: QueueSocket[] = [];
  for (const queueNumber of queues) {
    try {
      const maxPackets = numberOption(options, "qlength", 1024, 1, MAX_U32);
      sockets.push(
        new QueueSocket({ queueNumber, maxPackets, copyBytes, isFailOpen: options.values.has("fail_open") }),
      );
    } catch (error) {
      for (const socket of sockets) socket[Symbol.dispose]();
      throw new CommandError(`queue ${queueNumber}: ${describeError(error)}`);
    }
  }
  return sockets;
}

/** Bytes of a packet that are copied out: whole packets only where some are held. */
function copyRange({ fragments: { mtu, slots } }: RunningOptions): number {
  return slots > 0 ? mtu : Math.min(mtu, COPY_BYTES);
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
    fragments: readFragmentSettings(options, queues.length),
  };
}

function workerSettings(own: {
  folder: string;
  socket: QueueSocket;
  worker: number;
  running: RunningOptions;
  traceRate: number;
  fragments: FragmentMemory;
  tierInterfaces: readonly number[];
  tun: TunDevice | null;
}): WorkerSettings {
  const { folder, socket, worker, running, traceRate, fragments, tierInterfaces, tun } = own;
  const { fd, portId, queueNumber } = socket;
  const { slots, mtu } = running.fragments;
  return {
    folder,
    countersName: COUNTERS,
    worker,
    queue: { fd, portId, queueNumber, copyBytes: copyRange(running) },
    flowsName: running.flowsName,
    streamName: running.streamName,
    tierName: running.tierName,
    udpEncapPort: running.udpEncapPort,
    decider: running,
    tierInterfaces,
    fragments,
    hold:
      tun === null || slots === 0
        ? null
        : { slots, slotBytes: mtu, tun: { fd: tun.fd, interfaceIndex: tun.interfaceIndex } },
    trace: { name: TRACE, rulesName: TRACE_FLOWS, packetsPerSecond: traceRate },
  };
}

function queueLine(options: ParsedOptions, { receiveBufferBytes, receiveBufferAsked }: QueueSocket): string {
  const length = options.values.get("qlength") ?? "1024";
  const mtu = options.values.get("mtu") ?? "1500";
  return `queue_length=${length}, mtu=${mtu}, SO_RCVBUF=${receiveBufferBytes} (${receiveBufferAsked})\n`;
}

function lossLine({ queueNumber, queueDropped, userDropped }: Loss): string {
  return `queue ${queueNumber}: packets lost: ${queueDropped} as the queue was full, ${userDropped} as its buffer was`;
}
