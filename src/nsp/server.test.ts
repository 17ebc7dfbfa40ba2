import { afterAll, afterEach, expect, test } from "vitest";
import { NspStage, storeOf } from "../../test/harness/nsp.js";
import { parseConfiguration } from "./file.js";
import { KINDS, type Kind, NspQuery, type QueryFilter, type Row } from "./query.js";
import { keyOf } from "./registry.js";
import { NspStore, type TargetStorage } from "./store.js";

const stage = new NspStage();
afterEach(() => stage.clear());
afterAll(() => stage.remove());

const text = `
trench: { name: trench-a }
conduits:
  - name: load-balancer
    destination-port-nats:
      - { port: 80, target-port: 8080, protocol: tcp, vips: [v4] }
  - name: other
vips:
  - { name: v4, address: 10.0.0.1/32 }
  - { name: v6, address: "2001:db8::1/128" }
gateways:
  - { name: g4, address: 169.254.100.150, remote-asn: 4248829953, local-asn: 8103, bfd: true, bfd-spec: { min-tx: 300, min-rx: 300, multiplier: 5 } }
  - { name: g6, address: "100:100::150", protocol: static, bgp-auth: { key-name: k, key-source: s } }
attractors:
  - { name: a1, vips: [v4, v6], gateways: [g4, g6] }
streams:
  - { name: web, conduit: load-balancer, max-targets: 10 }
  - { name: api, conduit: other }
flows:
  - { name: http, stream: web, protocols: [tcp], vips: [v4], destination-port-ranges: [any] }
  - { name: rpc, stream: api, protocols: [tcp], vips: [v6] }
targets:
  - { stream: web, identifier: 1, ips: [172.16.0.1/24] }
`;
const anywhere: QueryFilter = { trench: "", conduit: "", stream: "", type: "default" };
const web: QueryFilter = { trench: "trench-a", conduit: "load-balancer", stream: "web", type: "default" };

function queryAt(address: string): NspQuery {
  const query = new NspQuery({ address, security: "plain-text", maxBackoffMs: 100 });
  stage.later(() => query[Symbol.dispose]());
  return query;
}

async function get(query: NspQuery, kind: Kind, filter: Partial<QueryFilter> = {}): Promise<readonly Row[]> {
  for await (const rows of query.watch(kind, { ...anywhere, ...filter }, AbortSignal.timeout(5_000))) return rows;
  throw new Error("no answer");
}

/** Snapshots of a watch as they come. */
function watch(query: NspQuery, kind: Kind, filter: QueryFilter): (readonly Row[])[] {
  const seen: (readonly Row[])[] = [];
  const ending = new AbortController();
  stage.later(() => ending.abort());
  void (async () => {
    for await (const rows of query.watch(kind, filter, ending.signal)) seen.push(rows);
  })();
  return seen;
}

test("every watch of the contract answers with the objects of the file", async () => {
  const address = stage.address();
  await stage.serve(storeOf(text), address);
  const query = queryAt(address);
  const all = Object.fromEntries(await Promise.all(KINDS.map(async (kind) => [kind, await get(query, kind)] as const)));
  const names = (rows: readonly Row[]) => rows.map(({ name }) => name);
  expect(names(all["trenches"]!)).toEqual(["trench-a"]);
  expect(names(all["conduits"]!)).toEqual(["load-balancer", "other"]);
  expect(all["conduits"]![0]!["destinationPortNats"]).toMatchObject([
    { port: 80, targetPort: 8080, vips: [{ name: "v4" }] },
  ]);
  expect(names(all["streams"]!)).toEqual(["web", "api"]);
  expect(all["flows"]![0]).toMatchObject({
    name: "http",
    destinationPortRanges: ["0-65535"],
    stream: { maxTargets: 10 },
  });
  expect(names(all["vips"]!)).toEqual(["v4", "v6"]);
  expect(all["attractors"]).toMatchObject([{ name: "a1", vips: [{}, {}], gateways: [{ name: "g4" }, { name: "g6" }] }]);
  expect(all["gateways"]).toMatchObject([
    {
      address: "169.254.100.150",
      ipFamily: "ipv4",
      protocol: "bgp",
      remoteASN: 4248829953,
      localASN: 8103,
      remotePort: 179,
      holdTime: 240,
      bfd: true,
      bfdSpec: { MinTx: 300, MinRx: 300, Multiplier: 5 },
    },
    { ipFamily: "ipv6", protocol: "static", bgpAuth: { keyName: "k", keySource: "s" } },
  ]);
  expect(all["targets"]).toMatchObject([{ ips: ["172.16.0.1/24"], status: "ENABLED", stream: { name: "web" } }]);
});

test("a filter compares names where both have one, and parents one after the other", async () => {
  const address = stage.address();
  await stage.serve(storeOf(text), address);
  const query = queryAt(address);
  expect(await get(query, "streams", { trench: "trench-a", conduit: "other" })).toMatchObject([{ name: "api" }]);
  expect(await get(query, "flows", web)).toMatchObject([{ name: "http" }]);
  expect(await get(query, "vips", { trench: "trench-b" })).toEqual([]);
  expect(await get(query, "targets", { ...web, stream: "api" })).toEqual([]);
  expect(await get(query, "targets", web)).toHaveLength(1);
});

test("the first registration is DISABLED whatever it says, the second may enable; another conduit's watch hears nothing", async () => {
  const address = stage.address();
  await stage.serve(storeOf(text), address);
  const query = queryAt(address);
  const seen = watch(query, "targets", web);
  const elsewhere = watch(query, "targets", { ...web, conduit: "other", stream: "" });
  await expect.poll(() => [seen.length, elsewhere.length]).toEqual([1, 1]);
  const registration = { ...web, ips: ["172.16.0.2"], context: { identifier: "2" }, isEnabled: true };
  const statuses = () => seen.at(-1)!.map(({ status }) => status);
  await query.register(registration);
  await expect.poll(statuses).toEqual(["ENABLED", "DISABLED"]);
  await query.register(registration);
  await expect.poll(statuses).toEqual(["ENABLED", "ENABLED"]);
  await query.register(registration); // a refresh: nobody hears of it
  await query.register({ ...registration, isEnabled: false });
  await expect.poll(statuses).toEqual(["ENABLED", "DISABLED"]);
  await query.unregister({ ...registration, context: {} }); // the key has addresses, type and stream
  await expect.poll(statuses).toEqual(["ENABLED"]);
  expect(seen).toHaveLength(5);
  expect(elsewhere).toEqual([[]]);
});

test("frontends register without a stream and are asked for by type", async () => {
  const address = stage.address();
  await stage.serve(storeOf(text), address);
  const query = queryAt(address);
  const frontend = {
    ...anywhere,
    type: "frontend" as const,
    ips: ["lb-0"],
    context: { identifier: "lb-0" },
    isEnabled: true,
  };
  await query.register(frontend);
  expect(await get(query, "targets", { type: "frontend" })).toMatchObject([{ ips: ["lb-0"], type: "FRONTEND" }]);
  expect(await get(query, "targets")).toHaveLength(1);
});

test("a registration without an address is refused", async () => {
  const address = stage.address();
  await stage.serve(storeOf(text), address);
  const call = queryAt(address).register({ ...web, ips: [], context: {}, isEnabled: true });
  await expect(call).rejects.toMatchObject({ code: "ERR_RPC", status: "INVALID_ARGUMENT" });
});

test("registrations have bounds: each in bytes at the server, all of them together in the store", async () => {
  const address = stage.address();
  await stage.serve(storeOf(text), address);
  const context = { identifier: "2", filler: "x".repeat(70_000) };
  const call = queryAt(address).register({ ...web, ips: ["172.16.0.2"], context, isEnabled: true });
  await expect(call).rejects.toMatchObject({ status: "RESOURCE_EXHAUSTED" });
  const store = new NspStore({ nowMs: () => 0 });
  const large = (i: number, kibibytes: number) => ({
    ...aTarget!,
    ips: [`10.0.${i >> 8}.${i & 255}`],
    context: { filler: "x".repeat(kibibytes << 10) },
  });
  for (let i = 0; i < 765; i++) store.register(large(i, 64));
  expect(() => store.register(large(999, 64))).not.toThrow();
  expect(() => store.register(large(1_000, 64))).toThrow("registrations of 48 MiB are all that is taken");
  store.register(large(999, 64)); // a refresh
  store.register(large(0, 1)); // shorter than before
  store.unregister(large(1, 64));
  expect(() => store.register(large(1_000, 64))).not.toThrow();
});

test("a registration never takes the identifier of a target of the file, and has its turn when that one goes", () => {
  const hidden: unknown[] = [];
  const store = new NspStore({ nowMs: () => 0, onHidden: (what) => hidden.push(what) });
  const { configuration } = parseConfiguration("f", text);
  store.configure(configuration);
  const rival = { ...aTarget!, ips: ["172.16.0.0/24"] };
  const other = { ...aTarget!, ips: ["172.16.0.2/24"], context: { identifier: "2" } };
  for (const target of [rival, rival, other, other]) store.register(target);
  const told = () => store.targets(aTarget!).map(({ target }) => target.ips[0]);
  expect(told()).toEqual(["172.16.0.1/24", "172.16.0.2/24"]);
  expect(hidden).toEqual([{ stream: "web", identifier: "1", ips: ["172.16.0.0/24"] }]);
  store.configure({ ...configuration, targets: [] });
  expect(told()).toEqual(["172.16.0.0/24", "172.16.0.2/24"]);
});

const [aTarget] = parseConfiguration("f", text).configuration.targets;

test("a registration that is not repeated ends after its time-out, a repeated one lives on", () => {
  let nowMs = 0;
  const store = new NspStore({ entryTimeoutMs: 60_000, nowMs: () => nowMs });
  const count = () => store.targets({ ...aTarget!, status: 2 }).length;
  store.register(aTarget!);
  nowMs = 60_000;
  store.expire();
  expect(count()).toBe(1);
  store.register(aTarget!);
  nowMs = 120_000;
  store.expire();
  expect(count()).toBe(1);
  nowMs = 120_001;
  store.expire();
  expect(count()).toBe(0);
  store.register(aTarget!);
  expect(store.targets({ ...aTarget!, status: 1 })).toHaveLength(1); // it counts as new: DISABLED
});

test("a registration that ends by itself leaves the storage too, or a restart would bring it back", () => {
  const stored = new Set<string>();
  let nowMs = 0;
  const storage: TargetStorage = {
    load: () => [],
    put: (key) => void stored.add(key),
    delete: (key) => void stored.delete(key),
  };
  const store = new NspStore({ nowMs: () => nowMs, storage });
  store.register(aTarget!);
  expect([...stored]).toEqual([keyOf(aTarget!)]);
  nowMs = 60_001;
  store.expire();
  expect([...stored]).toEqual([]);
});

test("storage gets what changed, refreshes excepted; a fault of it is told once and stops nothing", () => {
  const writes: string[] = [];
  let isBroken = false;
  const write = (what: string) => {
    if (isBroken) throw new Error("disk full");
    writes.push(what);
  };
  const storage: TargetStorage = {
    load: () => [aTarget!],
    put: (key) => write(`put ${key}`),
    delete: (key) => write(`delete ${key}`),
  };
  const faults: string[] = [];
  const store = new NspStore({ nowMs: () => 0, storage, onStorageFault: (message) => faults.push(message) });
  const other = { ...aTarget!, ips: ["172.16.0.9"] };
  expect(store.targets(aTarget!)).toHaveLength(1); // restored, and still enabled
  store.register(aTarget!);
  store.register(other);
  store.register(other);
  store.register(other);
  store.unregister(aTarget!);
  expect(writes).toEqual([`put ${keyOf(other)}`, `put ${keyOf(other)}`, `delete ${keyOf(aTarget!)}`]);
  isBroken = true;
  store.unregister(other);
  store.register(other);
  expect(faults).toEqual(["disk full"]);
  expect(store.targets({ ...aTarget!, status: 2 })).toHaveLength(1);
});

test("what storage could not write, it gets with the next refresh or expiry", () => {
  const stored = new Map<string, number>();
  let isFull = false;
  const room = () => {
    if (isFull) throw new Error("disk full");
  };
  const storage: TargetStorage = {
    load: () => [],
    put: (key, { length }) => {
      room();
      stored.set(key, length);
    },
    delete: (key) => {
      room();
      stored.delete(key);
    },
  };
  const store = new NspStore({ nowMs: () => 0, storage });
  const [gone, late] = ["172.16.0.8", "172.16.0.9"].map((ip) => ({ ...aTarget!, ips: [ip] }));
  store.register(gone!);
  for (const settle of [() => store.register(aTarget!), () => store.expire()]) {
    isFull = true;
    store.unregister(gone!);
    store.register(late!);
    store.register(aTarget!);
    store.register(aTarget!);
    store.register(aTarget!);
    isFull = false;
    settle();
    expect(new Set(stored.keys())).toEqual(new Set([late!, aTarget!].map(keyOf)));
    store.unregister(late!);
    store.register(gone!);
  }
});
