// For callers
export { type Family, type ListedRoute, RouteConnection, type Rule, watchRoutes } from "./route.js";
