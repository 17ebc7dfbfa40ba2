import { Classification } from "#flow";
import { PacketBatch, type QueueOptions, QueueSocket, VerdictBuffer } from "#netlink/queue";
import { CounterFile } from "#tables";
import { LoopCounters } from "./counters.js";
import { Decider, type DeciderOptions } from "./decide.js";
import { FragmentTable } from "./fragments.js";
import { runLoop } from "./run.js";
import { StreamTables } from "./stream-tables.js";
import { TableView } from "./table-view.js";

/** Packets per receive. More gains nothing measurable and delays the first verdict of a batch. */
const BATCH_PACKETS = 64;

/** What one queue worker needs to know; plain data, handed to its thread. */
export type WorkerSettings = {
  /** Folder of the table images and of the counters. */
  readonly folder: string;
  readonly countersName: string;
  /** Index of this worker's block of counters. */
  readonly worker: number;
  readonly queue: QueueOptions;
  /** Region of the flow rules; null in `lb` mode. */
  readonly flowsName: string | null;
  /** Table for every packet in `lb` mode. */
  readonly streamName: string | null;
  /** Table of the tier, or null. */
  readonly tierName: string | null;
  readonly udpEncapPort: number;
  readonly decider: DeciderOptions;
  readonly fragments: { readonly capacity: number; readonly lifetimeMs: number };
};

/** What a worker tells when its queue is bound. */
export type WorkerReady = {
  /** Netlink port of its socket: a message to it ends a blocking receive. */
  readonly portId: number;
  /** Receive buffer asked for and in force, in bytes. */
  readonly receiveBufferAsked: number;
  readonly receiveBufferBytes: number;
};

/**
 * Serves one queue until `stop` is set: binds it, tells `onReady`, runs the packet loop, unbinds.
 * @throws {NetlinkError} the queue cannot be bound, {SysError} its socket fails, {TableError} no flow rules or table
 */
export function serveQueue(settings: WorkerSettings, stop: Int32Array, onReady: (ready: WorkerReady) => void): void {
  using socket = new QueueSocket(settings.queue);
  using counterFile = CounterFile.open(settings.folder, settings.countersName);
  using streams = new StreamTables(settings.folder);
  if (settings.streamName !== null) streams.setNames([settings.streamName]);
  using tier = settings.tierName === null ? null : new StreamTables(settings.folder);
  tier?.setNames([settings.tierName!]);
  using tables = new TableView(settings.folder, settings.flowsName, streams, tier);
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
  onReady({
    portId: socket.portId,
    receiveBufferAsked: socket.receiveBufferAsked,
    receiveBufferBytes: socket.receiveBufferBytes,
  });
  runLoop({
    fd: socket.fd,
    batch: new PacketBatch(BATCH_PACKETS, settings.queue.copyBytes),
    verdicts: new VerdictBuffer(settings.queue.queueNumber, BATCH_PACKETS),
    tables,
    decider,
    counters: new LoopCounters(block, fragments.counters),
    stop,
  });
}
