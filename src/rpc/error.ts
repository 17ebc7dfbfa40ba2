import { type ServiceError, status } from "@grpc/grpc-js";

/**
 * What the library says of HTTP/2's ENHANCE_YOUR_CALM, which is how gRPC-Go ends a connection with too many pings. Neither the
 * code nor the text `too_many_pings` of the GOAWAY gets through to a call.
 */
const CALM_DETAILS = "Bandwidth exhausted or memory limit exceeded";

/** A call failed. `code` is always `ERR_RPC`; `status` is gRPC's name, for example `UNAVAILABLE`. */
export class RpcError extends Error {
  readonly code = "ERR_RPC";
  readonly method: string;
  readonly status: string;
  /** The server ended the connection, or the call, to have fewer frames of us; its services have answered nothing. */
  readonly isCallForCalm: boolean;
  /** What the server, or the system, says of it; may be empty. */
  readonly details: string;

  constructor(method: string, statusName: string, details: string, cause?: unknown) {
    super(`${method}: ${statusName}${details === "" ? "" : ` (${details})`}`, { cause });
    this.name = "RpcError";
    this.method = method;
    this.status = statusName;
    this.isCallForCalm = statusName === "RESOURCE_EXHAUSTED" && details === CALM_DETAILS;
    this.details = details;
  }
}

/** The library's error as ours. */
export function toRpcError(method: string, error: ServiceError): RpcError {
  const details = plainDetails(error.details ?? error.message);
  return new RpcError(method, status[error.code] ?? String(error.code), details, error);
}

/** What the system says of a connection, out of the library's sentence around it. */
export function plainDetails(details: string): string {
  return /^No connection established\. Last error: (?:Error: )?(.+?)\. Resolution note:/s.exec(details)?.[1] ?? details;
}
