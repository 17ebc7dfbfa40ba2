/** Names of the shared memory that a data plane uses, where no option says otherwise. */
export const DEFAULT_FLOWS = "nfqlb-flows";
export const COUNTERS = "nfqlb-counters";
export const TRACE = "nfqlb-trace-rings";
export const TRACE_FLOWS = "nfqlb-trace-flows";
/** Most queues of a data plane. Each has a thread, which takes one of the 256 places for readers of the flow rules. */
export const MAX_QUEUES = 128;
