import {
  constants,
  createServer as createHttp2Server,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import { connect, createServer, type Socket } from "node:net";
import { create, toBinary } from "@bufbuild/protobuf";
import { afterAll, afterEach, expect, test, vi } from "vitest";
import { startGoServer } from "../../test/fakes/go-nsp.js";
import { example, NspStage, storeOf } from "../../test/harness/nsp.js";
import { ConduitResponseSchema } from "./gen/nsp/v1/configuration_manager_pb.js";

const stage = new NspStage();
afterEach(() => stage.clear());
afterAll(() => stage.remove());

test("R21: too many pings double the interval; state stays, nothing is said", async () => {
  const address = stage.address();
  const conduits = [{ name: "load-balancer", trench: { name: "trench-a" } }];
  const conduit = toBinary(ConduitResponseSchema, create(ConduitResponseSchema, { conduits }));
  const server = await startGoServer({
    path: address.slice("unix:".length),
    answer: (method) => (method.endsWith("/WatchConduit") ? conduit : new Uint8Array()),
    minPingIntervalMs: 300,
  });
  stage.later(server.close);
  const written = [vi.spyOn(process.stderr, "write"), vi.spyOn(console, "error")];
  const seen = stage.follow(address, {
    server: { address, security: "plain-text", maxBackoffMs: 100, keepaliveMs: 100, minKeepaliveMs: 0 },
  });
  await expect.poll(() => seen.updates.length).toBe(1);
  await expect.poll(server.goaways, { timeout: 10_000 }).toBe(2); // at 100 and at 200 ms, not at 400 ms
  const pings = server.pings();
  await expect.poll(server.pings, { timeout: 10_000 }).toBeGreaterThan(pings + 4);
  expect(server.goaways()).toBe(2);
  expect(seen.connections).toEqual([true]);
  expect(seen.updates).toHaveLength(1);
  for (const spy of written) {
    expect(spy).not.toHaveBeenCalled();
    spy.mockRestore();
  }
});

test("too many pings, and then silence: the server counts as away", async () => {
  const address = stage.address();
  const options = {
    path: address.slice("unix:".length),
    answer: () => new Uint8Array(),
    minPingIntervalMs: Number.POSITIVE_INFINITY,
  };
  const server = await startGoServer(options);
  stage.later(server.close);
  const seen = stage.follow(address, {
    server: { address, security: "plain-text", maxBackoffMs: 100, keepaliveMs: 50, minKeepaliveMs: 0 },
    firstAnswerMs: 1_000,
  });
  await expect.poll(() => seen.connections).toEqual([true]);
  await expect.poll(server.goaways, { timeout: 10_000, interval: 1 }).toBe(1);
  await server.close();
  expect(seen.connections).toEqual([true]);
  await expect.poll(() => seen.connections, { timeout: 10_000 }).toEqual([true, false]);
  const again = await startGoServer({ ...options, minPingIntervalMs: 0 });
  stage.later(again.close);
  await expect.poll(() => seen.connections, { timeout: 10_000 }).toEqual([true, false, true]);
});

test("intervals below gRPC-Go's least one are raised to it", async () => {
  const [hasty, calm] = await Promise.all(
    [{ minKeepaliveMs: 0 }, {}].map(async (more) => {
      const path = stage.address().slice("unix:".length);
      const server = await startGoServer({ path, answer: () => new Uint8Array(), minPingIntervalMs: 0 });
      stage.later(server.close);
      stage.follow(`unix:${path}`, {
        server: { address: `unix:${path}`, security: "plain-text", keepaliveMs: 1, ...more },
      });
      return server;
    }),
  );
  await expect.poll(hasty!.pings, { timeout: 10_000 }).toBeGreaterThan(20);
  expect(calm!.pings()).toBe(0);
});

test("a half-open connection is noticed by its silence and replaced", async () => {
  const behind = stage.address();
  const address = stage.address();
  const store = storeOf(example);
  await stage.serve(store, behind);
  const pairs: (readonly [Socket, Socket])[] = [];
  const proxy = createServer((client) => {
    const server = connect(behind.slice("unix:".length));
    for (const socket of [client, server]) socket.on("error", () => {});
    client.pipe(server).pipe(client);
    pairs.push([client, server]);
  });
  stage.later(() => {
    for (const pair of pairs) for (const socket of pair) socket.destroy();
    return new Promise((resolve) => proxy.close(resolve));
  });
  await new Promise<void>((resolve) => proxy.listen(address.slice("unix:".length), resolve));
  const seen = stage.follow(address, {
    server: {
      address,
      security: "plain-text",
      maxBackoffMs: 100,
      keepaliveMs: 100,
      minKeepaliveMs: 0,
      keepaliveTimeoutMs: 300,
    },
  });
  await expect.poll(() => seen.updates.length).toBe(1);
  for (const [client, server] of pairs) {
    client.unpipe(server);
    server.unpipe(client);
  }
  await expect.poll(() => seen.connections, { timeout: 10_000 }).toEqual([true, false, true]);
  expect(seen.updates).toHaveLength(1);
  store.configure({ ...store.configuration, targets: [] });
  await expect.poll(() => seen.updates.at(-1)!.configuration.targets).toEqual([]);
});

test("a server that is never there is told as disconnected after a while", async () => {
  const seen = stage.follow(stage.address(), { firstAnswerMs: 200 });
  await expect.poll(() => seen.connections).toEqual([false]);
});

test("a server that does not know the conduit is told as what is waited for", async () => {
  const address = stage.address();
  await stage.serve(storeOf(example), address);
  const seen = stage.follow(address, { conduit: "elsewhere", firstAnswerMs: 300 });
  await expect.poll(() => seen.waiting).toEqual([["conduit"]]);
  expect(seen.updates).toEqual([]);
});

test("a server that answers late, and then without the conduit, is told as that too; again when other lists are missing", async () => {
  const address = stage.address();
  const seen = stage.follow(address, { conduit: "load-balancer", firstAnswerMs: 200 });
  await expect.poll(() => seen.connections).toEqual([false]);
  const store = storeOf(example);
  const { configuration } = store;
  store.configure({ ...configuration, conduits: [] });
  await stage.serve(store, address);
  await expect.poll(() => seen.waiting, { timeout: 5_000 }).toEqual([["conduit"]]);
  expect(seen.updates).toEqual([]);
  store.configure(configuration);
  await expect.poll(() => seen.updates.length, { timeout: 5_000 }).toBe(1);
  expect(seen.waiting).toHaveLength(1);
});

/** A server that ends every watch so after a time; returns when watches of the conduit began. */
async function serveEnding(address: string, afterMs: number, end: (stream: ServerHttp2Stream) => void) {
  const beginsMs: number[] = [];
  const server = createHttp2Server();
  server.on("stream", (stream, headers) => {
    if (headers[":path"]?.endsWith("/WatchConduit")) beginsMs.push(performance.now());
    stream.on("error", () => {});
    stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
    stream.write(new Uint8Array(5)); // an empty list
    setTimeout(() => end(stream), afterMs);
  });
  const sessions = new Set<ServerHttp2Session>();
  server.on("session", (session) => sessions.add(session));
  await new Promise<void>((resolve) => server.listen(address.slice("unix:".length), resolve));
  stage.later(() => {
    for (const session of sessions) session.destroy();
    return new Promise((resolve) => server.close(resolve));
  });
  return beginsMs;
}

/** Ends a call with RESOURCE_EXHAUSTED and a text. */
const exhausted = (text: string) => (stream: ServerHttp2Stream) => {
  stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "8", "grpc-message": text }));
  stream.end();
};

test.each([
  ["at once", 0, exhausted("not now")],
  ["after a while", 300, exhausted("not now")],
  ["with the words of another end", 300, exhausted("too_many_pings")],
  [
    "as if there were many pings",
    300,
    (stream: ServerHttp2Stream) => stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM),
  ],
] as const)(
  "a server that ends every watch as one that is busy, %s, is away then, and not asked in a hurry",
  async (_how, afterMs, end) => {
    const address = stage.address();
    const beginsMs = await serveEnding(address, afterMs, end);
    const seen = stage.follow(address, {
      server: { address, security: "plain-text", maxBackoffMs: 100, keepaliveMs: 30_000 },
    });
    await expect.poll(() => beginsMs.length, { timeout: 10_000 }).toBeGreaterThan(2);
    expect(beginsMs[2]! - beginsMs[0]!).toBeGreaterThan(900 + 2 * afterMs); // twice 500 ms, and what they lived
    expect(seen.connections).toContain(false);
  },
);

test("R17, O3: why the server cannot be reached is told, and again while it lasts", async () => {
  const reasons: string[] = [];
  const address = stage.address();
  const close = await stage.serve(storeOf(example), address);
  const onConnection = (isConnected: boolean, reason: string) => void reasons.push(isConnected ? "connected" : reason);
  stage.follow(address, { onConnection, firstAnswerMs: 50, stillAwayMs: 100 });
  await expect.poll(() => reasons).toEqual(["connected"]);
  await close();
  await expect.poll(() => reasons.length, { timeout: 5_000 }).toBeGreaterThan(4);
  const why = `no answer from ${address}: connect ENOENT ${address.slice("unix:".length)}`;
  expect(reasons.slice(2, 5)).toEqual([why, why, why]);
  await stage.serve(storeOf(example), address);
  await expect.poll(() => reasons.at(-1), { timeout: 5_000 }).toBe("connected");
});
