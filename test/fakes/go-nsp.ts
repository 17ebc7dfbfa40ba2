import { constants, createServer, type ServerHttp2Session } from "node:http2";

export type GoServerOptions = {
  /** A unix socket's path. */
  readonly path: string;
  /** The one answer to a call, as message bytes; the stream stays open after it. */
  readonly answer: (method: string) => Uint8Array;
  /** gRPC-Go's enforcement policy, MinTime; 5 minutes where nothing is configured. */
  readonly minPingIntervalMs: number;
};

export type GoServer = {
  readonly goaways: () => number;
  readonly pings: () => number;
  readonly close: () => Promise<void>;
};

/** Strikes that gRPC-Go forgives. */
const MAX_PING_STRIKES = 2;

/**
 * An NSP as gRPC-Go serves it, in what the library decides: pings that come too early are strikes unless data was sent
 * in between, and the third strike is GOAWAY ENHANCE_YOUR_CALM `too_many_pings` and the end of the connection.
 * @see grpc-go 1.71.1 internal/transport/http2_server.go, handlePing
 */
export async function startGoServer({ path, answer, minPingIntervalMs }: GoServerOptions): Promise<GoServer> {
  let goaways = 0;
  let pings = 0;
  const sessions = new Set<ServerHttp2Session>();
  const server = createServer();
  server.on("session", (session) => {
    let lastPingMs = Number.NEGATIVE_INFINITY;
    let strikes = 0;
    sessions.add(session);
    session.on("close", () => sessions.delete(session));
    session.on("error", () => {});
    session.on("ping", () => {
      pings++;
      const nowMs = performance.now();
      if (nowMs < lastPingMs + minPingIntervalMs) strikes++;
      lastPingMs = nowMs;
      if (strikes <= MAX_PING_STRIKES) return;
      goaways++;
      session.goaway(constants.NGHTTP2_ENHANCE_YOUR_CALM, 0, Buffer.from("too_many_pings"));
      setImmediate(() => session.destroy());
    });
    session.on("stream", (stream, headers) => {
      stream.on("error", () => {});
      stream.respond({ ":status": 200, "content-type": "application/grpc" });
      const message = answer(headers[":path"] ?? "");
      const frame = Buffer.alloc(5 + message.length);
      frame.writeUInt32BE(message.length, 1);
      frame.set(message, 5);
      stream.write(frame);
      strikes = 0;
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const close = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve());
      for (const session of sessions) session.destroy();
    });
  return { goaways: () => goaways, pings: () => pings, close };
}
