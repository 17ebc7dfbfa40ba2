// For callers
export {
  COUNTER_BATCHES,
  COUNTER_FRAGMENT_EXPIRED,
  COUNTER_FRAGMENT_INSERTS,
  COUNTER_FRAGMENT_LOOKUPS,
  COUNTER_FRAGMENT_REJECTED,
  COUNTER_KERNEL_ERRORS,
  COUNTER_OUTCOMES,
  COUNTER_OVERRUNS,
  COUNTER_PACKETS,
  COUNTER_SEND_FAILURES,
  type CounterBlock,
  CounterFile,
  type DataPlane,
  readDataPlane,
} from "./counters.js";
export {
  COUNTER_RULE_SLOTS,
  ensureFlows,
  FlowTableReader,
  flowsGeneration,
  readFlows,
  type StoredRule,
  TABLE_CHANGED,
  TABLE_RETIRED,
  updateFlows,
} from "./flow-table.js";
export { deleteRegion, hasRegion } from "./region.js";
export { createStreamTable, readStreamTable, StreamTableReader, updateStreamTable } from "./stream-table.js";
export { type RingMemory, TraceFile } from "./trace-file.js";
export { RECORD, SELECTION, TRACE_RULE_SLOTS } from "./trace-layout.js";
export { RingWriter, type TraceRecord } from "./trace-ring.js";
export { type Traced, TraceWatcher } from "./trace-watcher.js";
