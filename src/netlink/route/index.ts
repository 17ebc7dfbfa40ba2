// For callers
export type { LocalAddress } from "./address.js";
export { RouteConnection } from "./connection.js";
export { followRoutes, type RouteEvent, type RouteObject, watchRoutes } from "./events.js";
export type { Family } from "./family.js";
export type { Link, LinkStatistics } from "./link.js";
export { type Neighbor, type NeighborKey, NeighborState, tellsFailure } from "./neighbor.js";
export { addressKey, type NeighborEntry, type NeighborView } from "./neighbor-view.js";
export { defaultRoute, type NextHop, type Route } from "./route.js";
export type { Rule } from "./rule.js";
