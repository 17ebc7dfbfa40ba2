import { create, toBinary } from "@bufbuild/protobuf";
import { afterAll, afterEach, expect, test } from "vitest";
import { type Handlers, RpcClient, startServer } from "#rpc";
import { NspStage, storeOf } from "../../test/harness/nsp.js";
import {
  ConduitResponseSchema,
  ConfigurationManager,
  StreamResponseSchema,
} from "./gen/nsp/v1/configuration_manager_pb.js";
import { type Target, Target_Type, TargetSchema } from "./gen/nsp/v1/model_pb.js";
import { TargetRegistry } from "./gen/nsp/v1/target_registry_pb.js";
import { keyOf } from "./registry.js";
import { joinList } from "./wire.js";

const stage = new NspStage();
afterEach(() => stage.clear());
afterAll(() => stage.remove());

const TARGETS = 5_000;
const SNAPSHOTS = 30;
const INTERVAL_MS = 20;
const conduit = { name: "load-balancer", trench: { name: "trench-a" } };
const stream = { name: "web", conduit, maxTargets: 10_000 };

const encode = (identifier: number, last: number) =>
  toBinary(
    TargetSchema,
    create(TargetSchema, {
      ips: [
        `172.16.${identifier >> 8}.${identifier & 255}/16`,
        `fd00::${last.toString(16)}:${identifier.toString(16)}/64`,
      ],
      context: { identifier: String(identifier) },
      stream,
    }),
  );

/** A server whose targets are what `send` is given, as bytes: it costs the process next to nothing. */
async function serveBytes(address: string): Promise<(targets: Uint8Array) => void> {
  const senders: ((answer: object) => void)[] = [];
  let newest: Uint8Array = new Uint8Array();
  const once = (bytes: Uint8Array): Handlers[string] => ({ kind: "stream", handle: (_filter, send) => send(bytes) });
  const configuration: Handlers = {
    watchConduit: once(toBinary(ConduitResponseSchema, create(ConduitResponseSchema, { conduits: [conduit] }))),
    watchStream: once(toBinary(StreamResponseSchema, create(StreamResponseSchema, { streams: [stream] }))),
    watchVip: once(new Uint8Array()),
    watchFlow: once(new Uint8Array()),
  };
  const registry: Handlers = {
    watch: {
      kind: "stream",
      handle: ({ type }: Target, send) => {
        if (type === Target_Type.FRONTEND) return send(new Uint8Array());
        senders.push(send);
        send(newest);
      },
    },
  };
  const services = [
    { desc: ConfigurationManager, handlers: configuration },
    { desc: TargetRegistry, handlers: registry },
  ];
  const server = await startServer({ services, listen: [address], security: "plain-text" });
  stage.later(server.close);
  return (targets) => {
    newest = targets;
    for (const send of senders) send(targets);
  };
}

test.each([
  ["in the same order", 40, (list: readonly Uint8Array[]) => list],
  [
    "in another order each time",
    80,
    (list: readonly Uint8Array[], i: number) => [...list.slice(i * 151), ...list.slice(0, i * 151)].toReversed(),
  ],
] as const)(
  "P4: 5,000 targets, one changed per snapshot, %s: less than %d ms of CPU each",
  async (how, mostMs, arrange) => {
    const address = stage.address();
    const send = await serveBytes(address);
    let targets = Array.from({ length: TARGETS }, (_, i) => encode(i + 1, 0));
    send(joinList(targets));
    const seen = stage.follow(address);
    await expect.poll(() => seen.updates.length, { timeout: 10_000 }).toBe(1);
    expect(seen.updates[0]!.configuration.targets).toHaveLength(TARGETS);
    const snapshots = Array.from({ length: SNAPSHOTS }, (_, i) => {
      targets = targets.with(i * 17, encode(i * 17 + 1, i + 1));
      return joinList(arrange(targets, i));
    });
    const before = process.cpuUsage();
    for (const [i, snapshot] of snapshots.entries()) {
      send(snapshot);
      await expect.poll(() => seen.updates.length, { interval: INTERVAL_MS, timeout: 5_000 }).toBe(i + 2);
    }
    const { user, system } = process.cpuUsage(before);
    const eachMs = (user + system) / 1000 / SNAPSHOTS;
    console.info(
      `${eachMs.toFixed(1)} ms of CPU per snapshot of ${TARGETS} targets (${snapshots[0]!.length} bytes), ${how}`,
    );
    for (const [i, update] of seen.updates.slice(1).entries())
      expect(update.changes.targets).toMatchObject({ added: [], changed: [{ identifier: i * 17 + 1 }], removed: [] });
    expect(eachMs).toBeLessThan(mostMs);
  },
);

test("a change among 5,000 registered targets of 50 streams reaches its watcher, and only that", async () => {
  const address = stage.address();
  const store = storeOf("trench: { name: trench-a }\nconduits: [{ name: load-balancer }]");
  const names = Array.from({ length: 50 }, (_, i) => `s${i}`);
  const target = (name: string, i: number) =>
    create(TargetSchema, {
      ips: [`10.${i}.0.1`],
      context: { identifier: String(i + 1) },
      stream: { name, conduit, maxTargets: 100 },
    });
  for (const name of names) for (let i = 0; i < 100; i++) store.register(target(name, i));
  const answers = new Map<string, number>();
  await stage.serve(store, address);
  const client = new RpcClient({ address, security: "plain-text" });
  const ending = new AbortController();
  stage.later(() => {
    ending.abort();
    client[Symbol.dispose]();
  });
  for (const name of names) {
    void (async () => {
      const filter = { status: 2, type: 0, stream: { name, conduit } };
      const signal = AbortSignal.any([ending.signal]);
      for await (const { targets } of client.serverStream(TargetRegistry.method.watch, filter, signal)) {
        expect(targets).toHaveLength(100);
        answers.set(name, (answers.get(name) ?? 0) + 1);
      }
    })();
  }
  await expect.poll(() => answers.size, { timeout: 10_000 }).toBe(50);
  expect(keyOf(target("s7", 0))).toBe("10.0.0.1-0-s7.load-balancer.trench-a");
  await client.unary(TargetRegistry.method.register, { ...target("s7", 3), status: 0 });
  await expect.poll(() => answers.get("s7")).toBe(2);
  expect([...answers.values()].reduce((sum, count) => sum + count)).toBe(51);
});
