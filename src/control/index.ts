// For callers

export { tableName } from "./desired.js";
export { unpublish } from "./publish.js";
export { type Log, Reconciler, type Turn } from "./reconcile.js";
