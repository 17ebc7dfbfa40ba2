// For callers
export { type ClientOptions, RpcClient } from "./client.js";
export { RpcError } from "./error.js";
export { type Handlers, InvalidArgument, type RunningServer, startServer } from "./server.js";
