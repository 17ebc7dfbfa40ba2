// For callers
export { type ClientOptions, RpcClient } from "./client.js";
export { RpcError } from "./error.js";
export { checkHealth, Health, type HealthStatus } from "./health.js";
export type { Security } from "./security.js";
export {
  type Handlers,
  type RunningServer,
  type ServerOptions,
  type Service,
  StatusError,
  startServer,
} from "./server.js";
