import { join } from "node:path";
import type { FragmentMemory, TunDevice, WorkerSettings } from "#dataplane";
import { QueueSocket, readQueueStates } from "#netlink/queue";
import { exitAtOnce } from "#sys";
import { CounterFile, ensureFlows, rebaseFlows, TraceFile } from "#tables";
import { SettledMemory } from "../settled-memory.js";
import { copyRange, FLOWLB_OPTIONS, LB_OPTIONS, readRunningOptions } from "./balancer-options.js";
import { Beat } from "./beat.js";
import { type Command, CommandError, type Io, numberOption, shmFolder } from "./command.js";
import { DEFAULT_FLOW_ADDRESS, type FlowAddress, parseFlowAddress } from "./flow-address.js";
import { answerFlowRequest, type FlowSocketState } from "./flow-requests.js";
import { serveFlowSocket } from "./flow-server.js";
import {
  fragmentLine,
  makeFragmentMemory,
  openTunDevice,
  readTierInterfaces,
  sweepFragments,
} from "./fragment-options.js";
import { keepHouse } from "./housekeeping.js";
import { COUNTERS, TRACE, TRACE_FLOWS } from "./names.js";
import type { ParsedOptions } from "./options.js";
import { PlaneLog } from "./plane-log.js";
import { type Loss, QueueMonitor } from "./queue-monitor.js";
import { QueueThreads } from "./queue-threads.js";
import { describeRunning, queueNumbers, type RunningOptions } from "./running.js";
import { openTable } from "./table-commands.js";

const MAX_TRACE_RATE = 100_000;
/** Records of a trace ring: two seconds of one selection, within these bounds. Powers of two. */
const MIN_TRACE_RECORDS = 1_024;
const MAX_TRACE_RECORDS = 65_536;

const lb: Command = {
  name: "lb",
  summary: "Balance with one table for all packets",
  options: LB_OPTIONS,
  run: (options, io) => balance(options, io, { mode: "lb" }),
};

const flowlb: Command = {
  name: "flowlb",
  summary: "Balance with flow rules that choose the table",
  options: FLOWLB_OPTIONS,
  run: (options, io) => balance(options, io, { mode: "flowlb" }),
};

export const BALANCER_COMMANDS: readonly Command[] = [lb, flowlb];

/**
 * Runs the data plane until SIGTERM, SIGINT or a queue that cannot be served. The queues are bound first of all: from then
 * on packets wait instead of being lost.
 */
async function balance(options: ParsedOptions, io: Io, { mode }: { mode: "lb" | "flowlb" }): Promise<number> {
  const folder = shmFolder(io.env);
  const running = readRunningOptions(options, mode);
  const queues = queueNumbers(running.queues);
  const { flowsName, streamName, tierName } = running;
  for (const name of [streamName, tierName]) if (name !== null) openTable(io, name); // a slip would drop everything
  const traceRate = numberOption(options, "trace_rate", 1_000, 1, MAX_TRACE_RATE);
  const flowAddress = mode === "flowlb" ? parseFlowAddress(io.env["NFQLB_FLOW_ADDRESS"] || DEFAULT_FLOW_ADDRESS) : null;
  using tun = openTunDevice(options, running.fragments);
  const tierInterfaces = readTierInterfaces(options);
  using counters = CounterFile.create(folder, COUNTERS, queues.length, describeRunning(running));
  const sockets = bindQueues(running);
  const fragments = makeFragmentMemory(running.fragments, queues.length);
  const shared = { folder, running, traceRate, fragments, tierInterfaces, tun };
  if (flowsName !== null) ensureFlows(folder, flowsName);
  ensureFlows(folder, TRACE_FLOWS);
  using trace = TraceFile.own(folder, TRACE, queues.length + 1, traceRecords(traceRate));
  if (flowsName !== null) rebaseFlows(folder, flowsName, (slot) => counters.sumRule(slot));
  rebaseFlows(folder, TRACE_FLOWS, (slot) => trace.sumRule(slot));
  const log = new PlaneLog(trace, io.error);
  using beat = new Beat();
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
  using monitor = new QueueMonitor(counters, queues, {
    onLoss: (loss) => log.log("warning", lossLine(loss)),
    onHang: (queueNumber) => threads.replace(queueNumber),
  });
  beat.every(1, () => monitor.sample());
  if (readQueueStates() === null)
    log.log("warning", "packets lost in full queues are not known: the kernel tells it to user or group 0 alone");
  io.out(fragmentLine(running.fragments));
  const endSweeping = sweepFragments(fragments, counters, beat);
  const endHousekeeping = keepHouse({ folder, flowsName, trace, counters, beat, log });
  process.on("SIGTERM", () => end(0));
  process.on("SIGINT", () => end(0));
  process.on("SIGHUP", () => {});
  using memory = new SettledMemory({ isSettledAgain: true });
  let failure = "";
  try {
    using _flowSocket =
      flowAddress === null || flowsName === null
        ? null
        : await listenForFlows(flowAddress, { folder, flowsName, traceFlowsName: TRACE_FLOWS, counters, trace, log });
    void threads.ready.then(() => {
      io.out(sockets.map((socket) => queueLine(running, socket)).join(""));
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
      exitAtOnce(1); // a thread hangs, or has only begun: it would hold up the end of the process
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
function bindQueues(running: RunningOptions): readonly QueueSocket[] {
  const { queueLength: maxPackets, isFailOpen } = running;
  const copyBytes = copyRange(running);
  const sockets: QueueSocket[] = [];
  for (const queueNumber of queueNumbers(running.queues)) {
    try {
      sockets.push(new QueueSocket({ queueNumber, maxPackets, copyBytes, isFailOpen }));
    } catch (error) {
      for (const socket of sockets) socket[Symbol.dispose]();
      throw new CommandError(`queue ${queueNumber}: ${describeError(error)}`);
    }
  }
  return sockets;
}

function describeError(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Enough for two seconds at that rate, a power of two. */
function traceRecords(packetsPerSecond: number): number {
  const wanted = 2 ** Math.ceil(Math.log2(2 * packetsPerSecond));
  return Math.min(MAX_TRACE_RECORDS, Math.max(MIN_TRACE_RECORDS, wanted));
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

function queueLine({ queueLength, fragments }: RunningOptions, socket: QueueSocket): string {
  const { receiveBufferBytes, receiveBufferAsked } = socket;
  return `queue_length=${queueLength}, mtu=${fragments.mtu}, SO_RCVBUF=${receiveBufferBytes} (${receiveBufferAsked})\n`;
}

function lossLine({ queueNumber, queueDropped, userDropped }: Loss): string {
  return `queue ${queueNumber}: packets lost: ${queueDropped} as the queue was full, ${userDropped} as its buffer was`;
}
