/** Names of the shared memory that a data plane uses, where no option says otherwise. */
export const DEFAULT_FLOWS = "nfqlb-flows";
export const COUNTERS = "nfqlb-counters";
export const TRACE = "nfqlb-trace-rings";
export const TRACE_FLOWS = "nfqlb-trace-flows";
