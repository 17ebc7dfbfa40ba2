import { rmSync } from "node:fs";
import type { DescMethod, DescService } from "@bufbuild/protobuf";
import {
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  status,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import { toServiceDefinition } from "./definition.js";

/** Handlers of a service by local method name; requests and answers are protobuf messages. */
export type Handlers = {
  readonly [method: string]:
    | { readonly kind: "unary"; readonly handle: (request: never) => object }
    | {
        readonly kind: "stream";
        readonly handle: (request: never, send: (message: object) => void, signal: AbortSignal) => void;
      };
};

/** What a handler throws to be answered with INVALID_ARGUMENT. */
export class InvalidArgument extends Error {}

export type RunningServer = {
  /** What is listened on, with the ports that the system chose. */
  readonly addresses: readonly string[];
  readonly close: () => Promise<void>;
};

/**
 * Serves over plain text on unix sockets (`unix:/path`, an old socket file is replaced) and TCP (`host:port`, port 0 = any).
 * A stream's answers are whole states: while a client does not read, only the newest waits for it.
 * @throws {Error} an address cannot be listened on
 */
export async function startServer(
  services: readonly { readonly desc: DescService; readonly handlers: Handlers }[],
  listen: readonly string[],
): Promise<RunningServer> {
  const server = new Server();
  for (const { desc, handlers } of services) server.addService(toServiceDefinition(desc), implement(desc, handlers));
  const addresses: string[] = [];
  try {
    for (const address of listen) addresses.push(await bind(server, address));
  } catch (error) {
    server.forceShutdown();
    throw error;
  }
  const close = () =>
    new Promise<void>((resolve) => {
      server.tryShutdown(() => resolve());
      server.forceShutdown();
    });
  return { addresses, close };
}

function bind(server: Server, address: string): Promise<string> {
  if (address.startsWith("unix:")) rmSync(address.slice("unix:".length), { force: true });
  return new Promise((resolve, reject) => {
    server.bindAsync(address, ServerCredentials.createInsecure(), (error, port) => {
      if (error !== null) reject(error);
      else resolve(address.startsWith("unix:") ? address : address.replace(/:[0-9]+$/, `:${port}`));
    });
  });
}

function implement(desc: DescService, handlers: Handlers): UntypedServiceImplementation {
  const methods = desc.methods.flatMap((method: DescMethod) => {
    const handler = handlers[method.localName];
    if (handler === undefined) return [];
    const call = handler.kind === "unary" ? unary(handler.handle) : stream(handler.handle);
    return [[method.localName, call] as const];
  });
  return Object.fromEntries(methods);
}

function unary(handle: (request: never) => object) {
  return (call: ServerUnaryCall<object, object>, callback: sendUnaryData<object>) => {
    try {
      callback(null, handle(call.request as never));
    } catch (error) {
      const code = error instanceof InvalidArgument ? status.INVALID_ARGUMENT : status.INTERNAL;
      callback({ code, details: (error as Error).message });
    }
  };
}

function stream(handle: (request: never, send: (message: object) => void, signal: AbortSignal) => void) {
  return (call: ServerWritableStream<object, object>) => {
    const ended = new AbortController();
    let isBlocked = false;
    let newest: object | null = null;
    const flush = () => {
      if (newest === null || isBlocked || ended.signal.aborted) return;
      const message = newest;
      newest = null;
      isBlocked = !call.write(message);
    };
    call.on("drain", () => {
      isBlocked = false;
      flush();
    });
    const end = () => ended.abort();
    call.on("cancelled", end);
    call.on("close", end);
    call.on("error", end);
    handle(
      call.request as never,
      (message) => {
        newest = message;
        flush();
      },
      ended.signal,
    );
  };
}
