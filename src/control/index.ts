// For callers
// For tests and tools
export { mergeFlows } from "./desired.js";
export { servingStreams, unpublish } from "./publish.js";
export { Reconciler } from "./reconcile.js";
export type { Turn } from "./reconciler-options.js";
export type { Status } from "./status.js";
export type { Log } from "./turn-log.js";
