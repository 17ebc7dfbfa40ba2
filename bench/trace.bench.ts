// Question: what does the packet loop cost while nobody watches, and what with somebody? The loop is the real one; the
// queue is not: batches of 64 equal packets that lie in memory. Prints one JSON object of ns per packet. Run bundled.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  Decider,
  IdleRelease,
  LoopCounters,
  QuotedFragments,
  RuleView,
  runLoop,
  StreamTables,
  soloFragments,
  TableView,
  TraceTap,
} from "#dataplane";
import { Classification, parseFlowRule, setFlow } from "#flow";
import type { PacketBatch, VerdictBuffer } from "#netlink/queue";
import { Stopwatch } from "#sys";
import {
  CounterFile,
  createStreamTable,
  ensureFlows,
  SELECTION,
  TraceFile,
  TraceWatcher,
  updateFlows,
  updateStreamTable,
} from "#tables";

const BATCH = 64;
const BATCHES = 4_000;
const ROUNDS = 40;
const folder = mkdtempSync(join(tmpdir(), "trace-bench-"));

createStreamTable(folder, "web", { size: 10_000, targets: 100, ownFwmark: 0 });
updateStreamTable(folder, "web", (active) => {
  active.forEach((_, i) => {
    active[i] = 5_001 + i;
  });
});
for (const name of ["flows", "traced"]) ensureFlows(folder, name);
const set = (region: string, ...names: string[]) => {
  for (const name of names) {
    const rule = parseFlowRule({ name, target: "web", protocols: "udp", dsts: "10.0.0.1/32", dports: name });
    updateFlows(
      folder,
      region,
      (rules) => setFlow(rules, rule),
      () => 0,
    );
  }
};
set("flows", "5000", "5001");
set("traced", "6000"); // takes none of the packets

/** A queue that has `batches` batches and then tells the loop to stop. */
function fakeBatch(batches: number, stop: Int32Array): PacketBatch {
  const packet = new Uint8Array(64);
  packet.set([0x45, 0, 0, 46, 0, 1, 0, 0, 64, 17, 0, 0, 192, 0, 2, 7, 10, 0, 0, 1, 0x75, 0x30, 0x13, 0x88, 0, 26]);
  const start = new Int32Array(BATCH).map((_, i) => i * 64);
  const bytes = new Uint8Array(BATCH * 64);
  for (const at of start) bytes.set(packet, at);
  let left = batches;
  const batch = {
    bytes,
    start,
    end: start.map((at) => at + 46),
    etherType: new Uint16Array(BATCH).fill(0x0800),
    packetId: new Uint32Array(BATCH),
    errors: 0,
    originalLength: () => 46,
    receive: () => {
      if (left-- > 0) return BATCH;
      Atomics.store(stop, 0, 1);
      return 0;
    },
  };
  return batch as unknown as PacketBatch;
}

const verdicts = { put: () => {}, send: () => 0 } as unknown as VerdictBuffer;
const none = { enter: () => false, packet: () => {}, leave: () => {} } as unknown as TraceTap;

using counterFile = CounterFile.create(folder, "counters", 1, "{}");
using file = TraceFile.own(folder, "trace", 1, 2_048);
using rules = new RuleView(folder, "traced");
using streams = new StreamTables(folder);
using tables = new TableView(folder, "flows", streams, null);
const block = counterFile.block(0);
const nowMs = () => performance.now();
const fragments = soloFragments({ size: 1_000, buckets: 0, lifetimeMs: 200, isForgetful: false }, nowMs);
const tap = (packetsPerSecond: number) =>
  new TraceTap({ file, ring: file.ring(0), rules, tables, packetsPerSecond, nowMs, wallMs: () => Date.now() });
const options = { hashMode: 0, noFlowFwmark: -1, noTargetFwmark: -1, isPromiscuousPing: true };
const decider = new Decider({
  options,
  classification: new Classification(),
  program: new Int32Array(0),
  udpEncapPort: 0,
  streams,
  fragments,
  quoted: new QuotedFragments(200, () => performance.now()),
  tier: null,
  isHandedOver: () => false,
  hits: block.ruleHits,
});

const release = new IdleRelease(() => {});

/** ns per packet: the least of several rounds, and the heap that a packet takes in the last one. */
function measure(trace: TraceTap, mask: number): { readonly ns: number; readonly heapBytes: number } {
  const watcher = mask === 0 ? null : new TraceWatcher(folder, "trace", mask);
  const counters = new LoopCounters(block, new Stopwatch());
  let best = Number.POSITIVE_INFINITY;
  let heap = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const stop = new Int32Array(new SharedArrayBuffer(4));
    const batch = fakeBatch(BATCHES, stop);
    const before = process.memoryUsage().heapUsed;
    const startNs = process.hrtime.bigint();
    runLoop({ fd: -1, batch, verdicts, tables, decider, fragments, counters, trace, release, stop });
    best = Math.min(best, Number(process.hrtime.bigint() - startNs) / (BATCHES * BATCH));
    heap = process.memoryUsage().heapUsed - before;
  }
  watcher?.[Symbol.dispose]();
  return { ns: Math.round(best * 10) / 10, heapBytes: Math.round((heap / (BATCHES * BATCH)) * 1_000) / 1_000 };
}

const modes: readonly (readonly [string, TraceTap, number])[] = [
  ["no trace in the loop", none, 0],
  ["nobody watches", tap(1_000), 0],
  ["packet, at most 1,000 a second", tap(1_000), SELECTION.packet],
  ["flows, none matches", tap(1_000), SELECTION.flows],
  ["packet, every one recorded", tap(1e12), SELECTION.packet],
];
for (const [, trace, mask] of modes) measure(trace, mask); // all modes run the same, optimised code
process.stdout.write(
  `${JSON.stringify(Object.fromEntries(modes.map(([name, trace, mask]) => [name, measure(trace, mask)])), null, 2)}\n`,
);
rmSync(folder, { recursive: true });
