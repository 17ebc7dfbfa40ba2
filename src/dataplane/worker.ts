import { readlinkSync } from "node:fs";
import { Classification } from "#flow";
import { dropUpTo, PacketBatch, VerdictBuffer } from "#netlink/queue";
import { COUNTER_LAST_PACKET_ID, COUNTER_STARTS, COUNTER_THREAD_ID, CounterFile, TraceFile } from "#tables";
import { LoopCounters } from "./counters.js";
import { Decider, type DeciderOptions } from "./decide.js";
import { FragmentTable } from "./fragments.js";
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
  readonly queue: { readonly fd: number; readonly queueNumber: number; readonly copyBytes: number };
  /** Region of the flow rules; null in `lb` mode. */
  readonly flowsName: string | null;
  /** Table for every packet in `lb` mode. */
  readonly streamName: string | null;
  /** Table of the tier, or null. */
  readonly tierName: string | null;
  readonly udpEncapPort: number;
  readonly decider: DeciderOptions;
  readonly fragments: { readonly capacity: number; readonly lifetimeMs: number };
  /** Region of the trace, that of its rules, and packets a second that each selection may record. */
  readonly trace: { readonly name: string; readonly rulesName: string; readonly packetsPerSecond: number };
};

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
  const fragments = new FragmentTable(settings.fragments.capacity, settings.fragments.lifetimeMs);
  const decider = new Decider({
    options: settings.decider,
    classification: new Classification(),
    program: settings.flowsName === null ? null : new Int32Array(0),
    udpEncapPort: settings.udpEncapPort,
    streams,
    fragments,
    tier,
    hits: block.ruleHits,
    nowMs: () => performance.now(),
  });
  const { counters } = block;
  counters[COUNTER_THREAD_ID] = threadId();
  if (counters[COUNTER_STARTS]!++ > 0) dropUpTo(fd, queueNumber, counters[COUNTER_LAST_PACKET_ID]!);
  onReady();
  runLoop({
    fd,
    batch: new PacketBatch(BATCH_PACKETS, copyBytes),
    verdicts: new VerdictBuffer(queueNumber, BATCH_PACKETS),
    tables,
    decider,
    counters: new LoopCounters(block, fragments.counters),
    trace: new TraceTap({
      file: traceFile,
      ring: traceFile.ring(settings.worker),
      rules: traceRules,
      tables,
      packetsPerSecond: settings.trace.packetsPerSecond,
      nowMs: () => performance.now(),
      wallMs,
    }),
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
