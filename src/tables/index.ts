// For callers
export {
  BATCH_SIZES,
  COUNTER_BATCH_SIZES,
  COUNTER_BATCHES,
  COUNTER_FRAGMENT_BUCKETS,
  COUNTER_FRAGMENT_COLLISIONS,
  COUNTER_FRAGMENT_COMPLETED,
  COUNTER_FRAGMENT_CUT,
  COUNTER_FRAGMENT_DISCARDED,
  COUNTER_FRAGMENT_EXPIRED,
  COUNTER_FRAGMENT_HELD,
  COUNTER_FRAGMENT_HELD_NOW,
  COUNTER_FRAGMENT_INSERTS,
  COUNTER_FRAGMENT_LIVE,
  COUNTER_FRAGMENT_LIVE_EXTRA,
  COUNTER_FRAGMENT_LOOKUPS,
  COUNTER_FRAGMENT_REINJECT_FAILURES,
  COUNTER_FRAGMENT_REJECTED,
  COUNTER_FRAGMENT_STRAY,
  COUNTER_FRAGMENT_SWEPT,
  COUNTER_KERNEL_ERRORS,
  COUNTER_LAST_PACKET_ID,
  COUNTER_LATENCIES,
  COUNTER_LATENCY_SUM_US,
  COUNTER_OUTCOMES,
  COUNTER_OVERRUNS,
  COUNTER_PACKETS,
  COUNTER_SEND_FAILURES,
  COUNTER_STARTS,
  COUNTER_THREAD_ID,
  type CounterBlock,
  CounterFile,
  CounterWatch,
  type DataPlane,
  LATENCY_BUCKETS,
  LATENCY_EVERY,
  LATENCY_FIRST_US,
  readDataPlane,
  SAMPLE_QUEUE_DROPPED,
  SAMPLE_SYSTEM_MS,
  SAMPLE_TIME_MS,
  SAMPLE_USER_DROPPED,
  SAMPLE_USER_MS,
  SAMPLE_WAITING,
} from "./counters.js";
export {
  COUNTER_RULE_SLOTS,
  ensureFlows,
  FlowTableReader,
  flowsGeneration,
  matchesOf,
  readFlows,
  rebaseFlows,
  type StoredRule,
  TABLE_CHANGED,
  TABLE_RETIRED,
  updateFlows,
} from "./flow-table.js";
export { deleteRegion, hasRegion } from "./region-file.js";
export { mendRemovedRegions } from "./removed.js";
export { readStreamCounts, readTargetHits, type StreamCounts, StreamCountsReader } from "./stream-counts.js";
export {
  createStreamTable,
  isNoStreamTable,
  readStreamTable,
  StreamTableReader,
  streamStamp,
  updateStreamTable,
} from "./stream-table.js";
export { type RingMemory, TraceFile } from "./trace-file.js";
export { RECORD, SELECTION, TRACE_RULE_SLOTS } from "./trace-layout.js";
export { RingWriter, type TraceRecord } from "./trace-ring.js";
export { type Traced, TraceWatcher } from "./trace-watcher.js";
