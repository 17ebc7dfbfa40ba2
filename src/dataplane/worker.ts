import { readlinkSync } from "node:fs";
import { Classification } from "#flow";
import { dropUpTo, PacketBatch, VerdictBuffer, WakeUp } from "#netlink/queue";
import { SendBlock, Stopwatch } from "#sys";
import { COUNTER_LAST_PACKET_ID, COUNTER_STARTS, COUNTER_THREAD_ID, CounterFile, TraceFile } from "#tables";
import { LoopCounters } from "./counters.js";
import { Decider, type DeciderOptions } from "./decide.js";
import { type FragmentMemory, monotonicClock } from "./fragment-memory.js";
import { Fragments, type HoldOptions } from "./fragments.js";
import { IdleRelease } from "./idle-release.js";
import { QuotedFragments } from "./quoted-fragments.js";
import { RuleView } from "./rule-view.js";
import { runLoop } from "./run.js";
import { StreamTables } from "./stream-tables.js";
import { TableView } from "./table-view.js";
import { TraceTap } from "./trace-tap.js";

/** Packets per receive. More gains nothing measurable and delays the first verdict of a batch. */
const BATCH_PACKETS = 64;

/** What one queue worker needs to know; plain data, handed to its thread. */
export type WorkerSettings = {
  /** Folder of the table images and of the counters. */
  readonly folder: string;
  readonly countersName: string;
  /** Index of this worker's block of counters. */
  readonly worker: number;
  /** The bound queue; its socket belongs to the thread's starter and outlives the thread. */
  readonly queue: {
    readonly fd: number;
    /** Netlink port of the socket: a message to it ends a blocking receive. */
    readonly portId: number;
    readonly queueNumber: number;
    readonly copyBytes: number;
  };
  /** Region of the flow rules; null in `lb` mode. */
  readonly flowsName: string | null;
  /** Table for every packet in `lb` mode. */
  readonly streamName: string | null;
  /** Table of the tier, or null. */
  readonly tierName: string | null;
  readonly udpEncapPort: number;
  readonly decider: DeciderOptions;
  /** Interfaces that fragments from other balancers of the tier come in through, by number. */
  readonly tierInterfaces: readonly number[];
  readonly fragments: FragmentMemory;
  /** How later fragments that come first are held, or null: they are dropped. */
  readonly hold: { readonly slots: number; readonly slotBytes: number; readonly tun: TunDevice } | null;
  /** Region of the trace, that of its rules, and packets a second that each selection may record. */
  readonly trace: { readonly name: string; readonly rulesName: string; readonly packetsPerSecond: number };
};

/** The way back into the kernel: an open tun device, shared by all workers, and its interface number. */
export type TunDevice = { readonly fd: number; readonly interfaceIndex: number };

/**
 * Serves one queue until `stop` is set: opens what it needs, calls `onReady`, runs the packet loop. After a predecessor
 * that failed it goes on behind the packets which that one had received: those without a verdict are dropped.
 * @throws {SysError} the queue's socket fails, {TableError} no flow rules or table
 */
export function serveQueue(settings: WorkerSettings, stop: Int32Array, onReady: () => void): void {
  const { fd, queueNumber, copyBytes } = settings.queue;
  using counterFile = CounterFile.open(settings.folder, settings.countersName);
  using streams = new StreamTables(settings.folder, { isCounting: true });
  if (settings.streamName !== null) streams.setNames([settings.streamName]);
  using tier = settings.tierName === null ? null : new StreamTables(settings.folder);
  tier?.setNames([settings.tierName!]);
  using tables = new TableView(settings.folder, settings.flowsName, streams, tier);
  using traceFile = TraceFile.open(settings.folder, settings.trace.name);
  using traceRules = new RuleView(settings.folder, settings.trace.rulesName);
  const block = counterFile.block(settings.worker);
  const batch = new PacketBatch(BATCH_PACKETS, copyBytes);
  const fragments = new Fragments({
    ...settings.fragments,
    worker: settings.worker,
    hold: settings.hold === null ? null : holdOptions(settings, settings.hold, fd, batch),
    counters: block.counters,
    nowMs: monotonicClock(),
  });
  fragments.setPort(settings.queue.portId);
  const handedOver = settings.hold === null ? [] : [settings.hold.tun.interfaceIndex];
  handedOver.push(...settings.tierInterfaces);
  const decider = new Decider({
    options: settings.decider,
    classification: new Classification(),
    program: settings.flowsName === null ? null : new Int32Array(0),
    udpEncapPort: settings.udpEncapPort,
    streams,
    fragments,
    quoted: new QuotedFragments(settings.fragments.lifetimeMs, () => performance.now()),
    tier,
    isHandedOver: (start) => handedOver.length > 0 && handedOver.includes(batch.inputInterface(start)),
    hits: block.ruleHits,
  });
  const { counters } = block;
  counters[COUNTER_THREAD_ID] = threadId();
  if (counters[COUNTER_STARTS]!++ > 0) dropUpTo(fd, queueNumber, counters[COUNTER_LAST_PACKET_ID]!);
  onReady();
  runLoop({
    fd,
    batch,
    verdicts: new VerdictBuffer(queueNumber, BATCH_PACKETS),
    tables,
    decider,
    fragments,
    counters: new LoopCounters(block, new Stopwatch()),
    trace: new TraceTap({
      file: traceFile,
      ring: traceFile.ring(settings.worker),
      rules: traceRules,
      tables,
      packetsPerSecond: settings.trace.packetsPerSecond,
      nowMs: () => performance.now(),
      wallMs,
    }),
    release: new IdleRelease(() => globalThis.gc?.()), // there where node was started with --expose-gc, as our programs are
    stop,
  });
}

/** The wall clock in ms, with the fraction that Date leaves out unless the clock was set since this thread began. */
function wallMs(): number {
  const precise = performance.timeOrigin + performance.now();
  const plain = Date.now();
  return Math.abs(precise - plain) < 2 ? precise : plain;
}

/** The kernel's id of this thread: `PID/task/TID`. */
function threadId(): number {
  return Number(readlinkSync("/proc/thread-self").split("/").at(-1));
}

function holdOptions(
  { fragments }: WorkerSettings,
  { slots, slotBytes, tun }: NonNullable<WorkerSettings["hold"]>,
  fd: number,
  batch: PacketBatch,
): HoldOptions {
  const wakeUp = new WakeUp();
  return {
    slots,
    slotBytes,
    signalMemory: fragments.signalMemory,
    workers: fragments.workers,
    wake: (portId) => wakeUp.send(fd, portId),
    openSink: (bytes) => {
      const block = new SendBlock(bytes);
      return { write: (start, length) => block.write(tun.fd, start, length) };
    },
    isReinjected: (start) => batch.inputInterface(start) === tun.interfaceIndex,
  };
}
