import { chmodSync } from "node:fs";
import type { Http2Server } from "node:http2";
import type { DescMethod, DescService } from "@bufbuild/protobuf";
import {
  Server,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  status,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import { limitConnections } from "./connection-limit.js";
import { toServiceDefinition } from "./definition.js";
import { silenceLibrary } from "./library-log.js";
import { type Security, serverCredentials } from "./security.js";
import { clearSocketPath } from "./socket-path.js";

/** Longest request taken: a registration has some hundred bytes, and anybody may send one. Beyond it RESOURCE_EXHAUSTED. */
const MAX_REQUEST_BYTES = 64 << 10;
/** How long a closing server waits for its clients to take the last answers. */
const CLOSE_MS = 250;

type Handler =
  | { readonly kind: "unary"; readonly handle: (request: never) => object }
  | {
      readonly kind: "stream";
      readonly handle: (request: never, send: (answer: object) => void, signal: AbortSignal) => void;
    };

/** Handlers of a service by local method name. Requests are protobuf messages, answers such messages or their bytes. */
export type Handlers = { readonly [method: string]: Handler };

export type Service = { readonly desc: DescService; readonly handlers: Handlers };

/** What a handler throws to be answered with this gRPC status. */
export class StatusError extends Error {
  readonly status: "INVALID_ARGUMENT" | "NOT_FOUND" | "RESOURCE_EXHAUSTED";

  constructor(statusName: StatusError["status"], message: string) {
    super(message);
    this.status = statusName;
  }
}

export type ServerOptions = {
  readonly services: readonly Service[];
  /** Unix sockets (`unix:/path`; a socket that nobody listens on any more is replaced) and TCP (`host:port`, port 0 = any). */
  readonly listen: readonly string[];
  readonly security: Security;
  /** Mode of the unix sockets; what the process's mask leaves unless given. */
  readonly socketMode?: number;
  /** Connections per address. Default 64. */
  readonly maxConnections?: number;
  /** How often a connection is asked whether its client still lives; one that is silent for 20 s more is closed. Default 60_000. */
  readonly keepaliveMs?: number;
  /** There are more connections; told once a minute at most. */
  readonly onFull?: (full: { readonly address: string; readonly maxConnections: number }) => void;
};

export type RunningServer = {
  /** What is listened on, with the ports that the system chose. */
  readonly addresses: readonly string[];
  /** Ends every stream with UNAVAILABLE and stops listening. */
  readonly close: () => Promise<void>;
};

/**
 * Starts a server. A stream's answers are whole states: at most one is on its way to a client, and behind it only the
 * newest waits, so a slow client costs one answer's memory and holds up nobody.
 * @throws {Error} an address cannot be listened on
 */
export async function startServer({
  services,
  listen,
  security,
  socketMode,
  maxConnections = 64,
  keepaliveMs = 60_000,
  onFull = () => {},
}: ServerOptions): Promise<RunningServer> {
  silenceLibrary(); // it would tell that an address cannot be listened on
  const server = new Server({
    "grpc.keepalive_time_ms": keepaliveMs,
    "grpc.max_receive_message_length": MAX_REQUEST_BYTES,
    "grpc.enable_channelz": 0,
  });
  const limited = new Set<Http2Server>();
  const streams = new Set<ServerWritableStream<object, object>>();
  for (const { desc, handlers } of services)
    server.addService(toServiceDefinition(desc), implement(desc, handlers, streams));
  const addresses: string[] = [];
  try {
    for (const address of listen) {
      const path = address.startsWith("unix:") ? address.slice("unix:".length) : null;
      if (path !== null) await clearSocketPath(path);
      addresses.push(await bind(server, address, security));
      for (const http2Server of listenersOf(server)) {
        if (limited.has(http2Server)) continue;
        limited.add(http2Server);
        limitConnections(http2Server, maxConnections, () => onFull({ address, maxConnections }));
      }
      if (path !== null && socketMode !== undefined) chmodSync(path, socketMode);
    }
  } catch (error) {
    server.forceShutdown();
    throw error;
  }
  return { addresses, close: () => close(server, streams) };
}

/** What the library listens with, which it does not tell; it has no limit of connections of its own. */
function listenersOf(server: Server): Iterable<Http2Server> {
  return (server as unknown as { readonly http2Servers: ReadonlyMap<Http2Server, unknown> }).http2Servers.keys();
}

function close(server: Server, streams: ReadonlySet<ServerWritableStream<object, object>>): Promise<void> {
  for (const call of streams) call.emit("error", { code: status.UNAVAILABLE, details: "the server is stopping" });
  return new Promise((resolve) => {
    const force = setTimeout(() => server.forceShutdown(), CLOSE_MS);
    server.tryShutdown(() => {
      clearTimeout(force);
      resolve();
    });
  });
}

function bind(server: Server, address: string, security: Security): Promise<string> {
  return new Promise((resolve, reject) => {
    server.bindAsync(address, serverCredentials(security), (error, port) => {
      if (error !== null) reject(toListenError(address, error));
      else resolve(address.startsWith("unix:") ? address : address.replace(/:[0-9]+$/, `:${port}`));
    });
  });
}

/** The library wraps what the system says in counts of addresses. */
function toListenError(address: string, error: NodeJS.ErrnoException): Error {
  if (error.code === "ERR_SOCKET_BAD_PORT") return new Error(`${address}: a port is at most 65535`, { cause: error });
  if (error.message.startsWith("Name resolution failed"))
    return new Error(`${address}: the host's name cannot be resolved`, { cause: error });
  const told = /errors: \[(.+)\]$/s.exec(error.message)?.[1];
  return told === undefined ? error : new Error(told, { cause: error });
}

function implement(
  desc: DescService,
  handlers: Handlers,
  streams: Set<ServerWritableStream<object, object>>,
): UntypedServiceImplementation {
  const methods = desc.methods.flatMap((method: DescMethod) => {
    const handler = handlers[method.localName];
    if (handler === undefined) return [];
    const call = handler.kind === "unary" ? unary(handler.handle) : stream(handler.handle, streams);
    return [[method.localName, call] as const];
  });
  return Object.fromEntries(methods);
}

function toStatus(error: unknown): { readonly code: status; readonly details: string } {
  const code = error instanceof StatusError ? status[error.status] : status.INTERNAL;
  return { code, details: (error as Error).message };
}

function unary(handle: (request: never) => object) {
  return (call: ServerUnaryCall<object, object>, callback: sendUnaryData<object>) => {
    try {
      callback(null, handle(call.request as never));
    } catch (error) {
      callback(toStatus(error));
    }
  };
}

function stream(
  handle: (request: never, send: (answer: object) => void, signal: AbortSignal) => void,
  streams: Set<ServerWritableStream<object, object>>,
) {
  return (call: ServerWritableStream<object, object>) => {
    const ended = new AbortController();
    let isOnItsWay = false;
    let newest: object | null = null;
    const flush = () => {
      if (newest === null || isOnItsWay || ended.signal.aborted) return;
      const answer = newest;
      newest = null;
      isOnItsWay = true;
      call.write(answer, () => {
        isOnItsWay = false;
        flush();
      });
    };
    const send = (answer: object) => {
      newest = answer;
      flush();
    };
    const end = () => {
      streams.delete(call);
      ended.abort();
    };
    streams.add(call);
    call.on("cancelled", end);
    call.on("close", end);
    call.on("error", end);
    try {
      handle(call.request as never, send, ended.signal);
    } catch (error) {
      call.emit("error", toStatus(error));
    }
  };
}
