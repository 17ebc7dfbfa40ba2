// For callers
export { unpublish } from "./publish.js";
export { type Log, Reconciler } from "./reconcile.js";
