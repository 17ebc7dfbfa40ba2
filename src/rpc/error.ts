import { type ServiceError, status } from "@grpc/grpc-js";

/** A call failed. `code` is always `ERR_RPC`; `status` is gRPC's name, for example `UNAVAILABLE`. */
export class RpcError extends Error {
  readonly code = "ERR_RPC";
  readonly method: string;
  readonly status: string;

  constructor(method: string, statusName: string, details: string, cause?: unknown) {
    super(`${method}: ${statusName}${details === "" ? "" : ` (${details})`}`, { cause });
    this.name = "RpcError";
    this.method = method;
    this.status = statusName;
  }
}

/** The library's error as ours. */
export function toRpcError(method: string, error: ServiceError): RpcError {
  return new RpcError(method, status[error.code] ?? String(error.code), error.details ?? error.message, error);
}
