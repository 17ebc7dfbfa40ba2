import { connect, createServer, type Socket } from "node:net";
import { create, toBinary } from "@bufbuild/protobuf";
import { afterAll, afterEach, expect, test, vi } from "vitest";
import { type Handlers, StatusError, startServer } from "#rpc";
import { startGoServer } from "../../test/fakes/go-nsp.js";
import { example, NspStage, storeOf } from "../../test/harness/nsp.js";
import { ConduitResponseSchema, ConfigurationManager } from "./gen/nsp/v1/configuration_manager_pb.js";

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
    server: { address, security: "plain-text", maxBackoffMs: 100, keepaliveMs: 100 },
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
    server: { address, security: "plain-text", maxBackoffMs: 100, keepaliveMs: 100, keepaliveTimeoutMs: 300 },
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

test("a server that refuses watches at once, with the status of too many pings too, is not asked in a hurry", async () => {
  const address = stage.address();
  const callsMs: number[] = [];
  const refuse = () => {
    callsMs.push(performance.now());
    throw new StatusError("RESOURCE_EXHAUSTED", "not now");
  };
  const handlers: Handlers = { watchConduit: { kind: "stream", handle: refuse } };
  const services = [{ desc: ConfigurationManager, handlers }];
  const server = await startServer({ services, listen: [address], security: "plain-text" });
  stage.later(server.close);
  const seen = stage.follow(address);
  await expect.poll(() => callsMs.length, { timeout: 5_000 }).toBeGreaterThan(2);
  expect(callsMs[2]! - callsMs[0]!).toBeGreaterThan(900); // twice 500 ms
  expect(seen.connections).toEqual([false]);
});
