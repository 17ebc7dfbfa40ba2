import { createServer, type Server } from "node:net";
import { afterAll, afterEach, expect, test } from "vitest";
import { RpcClient } from "#rpc";
import { example, NspStage, storeOf } from "../../test/harness/nsp.js";
import { TargetRegistry } from "./gen/nsp/v1/target_registry_pb.js";
import { NspStore } from "./store.js";

const stage = new NspStage();
afterEach(() => stage.clear());
afterAll(() => stage.remove());

const emptyStore = () => new NspStore({ nowMs: () => performance.now() });
const stream = { name: "web", conduit: { name: "load-balancer", trench: { name: "trench-a" } } };

test("a file comes out of the watches as the configuration it says", async () => {
  const address = stage.address();
  await stage.serve(storeOf(example), address);
  const seen = stage.follow(address);
  await expect.poll(() => seen.updates.length).toBe(1);
  const [update] = seen.updates;
  expect(update!.configuration).toEqual({
    conduit: { name: "load-balancer", trench: "trench-a", portNats: [] },
    vips: [
      { name: "web-v4", prefix: "10.0.0.1/32" },
      { name: "web-v6", prefix: "2001:db8::1/128" },
    ],
    streams: [{ name: "web", conduit: "load-balancer", maxTargets: 100 }],
    flows: [
      {
        name: "http",
        stream: "web",
        priority: 10,
        protocols: ["tcp"],
        vips: [
          { name: "web-v4", prefix: "10.0.0.1/32" },
          { name: "web-v6", prefix: "2001:db8::1/128" },
        ],
        sourcePrefixes: [],
        destinationPorts: ["80", "443"],
        sourcePorts: [],
        byteMatches: [],
      },
    ],
    targets: [
      { stream: "web", identifier: 1, addresses: ["172.16.0.11", "fd00::11"], ips: ["172.16.0.11/24", "fd00::11/64"] },
      { stream: "web", identifier: 2, addresses: ["172.16.0.12", "fd00::12"], ips: ["172.16.0.12/24", "fd00::12/64"] },
    ],
  });
  expect(update).toMatchObject({ origin: "nsp", frontends: [], refusals: [] });
  expect(update!.changes).toMatchObject({ isConduitChanged: true, isEmpty: false });
  expect(update!.changes.targets.added).toEqual(update!.configuration.targets);
  expect(seen.connections).toEqual([true]);
});

test("a target registers, is enabled by its second registration, and goes when it unregisters; each update says so", async () => {
  const address = stage.address();
  await stage.serve(storeOf(example), address);
  const seen = stage.follow(address);
  using client = new RpcClient({ address, security: "plain-text" });
  const target = { ips: ["172.16.0.13/24"], context: { identifier: "3" }, stream };
  await expect.poll(() => seen.updates.length).toBe(1);
  await client.unary(TargetRegistry.method.register, target);
  await client.unary(TargetRegistry.method.register, target);
  await expect.poll(() => seen.updates.length).toBe(2);
  const [first, second] = seen.updates;
  const three = { stream: "web", identifier: 3, addresses: ["172.16.0.13"], ips: ["172.16.0.13/24"] };
  expect(second!.changes.targets).toEqual({ added: [three], changed: [], removed: [] });
  expect(second!.changes).toMatchObject({ isConduitChanged: false, flows: { added: [], changed: [], removed: [] } });
  expect(second!.configuration.vips).toBe(first!.configuration.vips);
  expect(second!.configuration.targets[0]).toBe(first!.configuration.targets[0]);
  await client.unary(TargetRegistry.method.unregister, target);
  await expect.poll(() => seen.updates.length).toBe(3);
  expect(seen.updates[2]!.changes.targets).toEqual({ added: [], changed: [], removed: [three] });
});

test("O15: another address of a target is one change of that target", async () => {
  const address = stage.address();
  const store = storeOf(example);
  await stage.serve(store, address);
  const seen = stage.follow(address);
  await expect.poll(() => seen.updates.length).toBe(1);
  const [one, two] = store.configuration.targets;
  store.configure({ ...store.configuration, targets: [one!, { ...two!, ips: ["172.16.0.99"] }] });
  await expect.poll(() => seen.updates.length).toBe(2);
  const changed = [{ stream: "web", identifier: 2, addresses: ["172.16.0.99"], ips: ["172.16.0.99"] }];
  expect(seen.updates[1]!.changes.targets).toEqual({ added: [], changed, removed: [] });
});

test("R4, R5, O17: bad targets are refused one by one, once; the others go on", async () => {
  const address = stage.address();
  const store = storeOf(example);
  const [good] = store.configuration.targets;
  const variant = (identifier: string, ips: string[]) => ({ ...good!, ips, context: { identifier } });
  const targets = [
    good!,
    variant("0", ["172.16.0.3"]),
    variant("-1", ["172.16.0.30"]),
    variant("101", ["172.16.0.4"]),
    variant("x", ["172.16.0.5"]),
    variant("1", ["172.16.0.6"]),
    variant("7", ["172.16.0.7", "172.16.0.8"]),
    variant("8", ["nonsense"]),
    variant("+09", ["172.16.0.9"]),
  ];
  store.configure({ ...store.configuration, targets });
  await stage.serve(store, address);
  const seen = stage.follow(address);
  await expect.poll(() => seen.updates.length).toBe(1);
  expect(seen.updates[0]!.configuration.targets).toEqual([
    { stream: "web", identifier: 1, addresses: ["172.16.0.11", "fd00::11"], ips: ["172.16.0.11/24", "fd00::11/64"] },
    { stream: "web", identifier: 9, addresses: ["172.16.0.9"], ips: ["172.16.0.9"] },
  ]);
  expect(seen.refused).toEqual([
    [
      'target 172.16.0.3 of stream web: identifier "0": a whole number 1..100 is allowed',
      'target 172.16.0.30 of stream web: identifier "-1": a whole number 1..100 is allowed',
      'target 172.16.0.4 of stream web: identifier "101": a whole number 1..100 is allowed',
      'target 172.16.0.5 of stream web: identifier "x": a whole number is needed',
      'target 172.16.0.6 of stream web: identifier "1": used twice',
      'target 172.16.0.7,172.16.0.8 of stream web: ips "172.16.0.7,172.16.0.8": one address per family is allowed',
      'target nonsense of stream web: address "nonsense": not an IPv4 or IPv6 address',
    ],
  ]);
  expect(seen.updates[0]!.refusals[0]).toEqual({
    kind: "target",
    object: "172.16.0.3",
    stream: "web",
    field: "identifier",
    value: "0",
    rule: "a whole number 1..100 is allowed",
  });
  store.configure({ ...store.configuration, targets: [...targets, variant("10", ["x.y"])] });
  await expect.poll(() => seen.updates.length).toBe(2);
  expect(seen.refused[1]).toEqual(['target x.y of stream web: address "x.y": not an IPv4 or IPv6 address']);
  expect(seen.updates[1]!.refusals).toHaveLength(8);
  expect(seen.updates[1]!.changes.isEmpty).toBe(true);
});

test("O17, O18: every kind of object is checked by itself, prefixes of any length are VIPs", async () => {
  const address = stage.address();
  const store = storeOf(example);
  const { configuration } = store;
  const [vip] = configuration.vips;
  const [web] = configuration.streams;
  const [flow] = configuration.flows;
  const [conduit] = configuration.conduits;
  const nat = {
    port: 80,
    targetPort: 8080,
    protocol: "TCP",
    vips: [vip!],
    $typeName: "nsp.v1.Conduit.PortNat" as const,
  };
  store.configure({
    ...configuration,
    vips: [
      ...configuration.vips,
      { ...vip!, name: "range", address: "40.0.0.0/24" },
      { ...vip!, name: "octal", address: "010.0.0.1/32" },
      { ...vip!, name: "web-v6", address: "2001:db8::2/128" },
    ],
    streams: [web!, { ...web!, name: "none", maxTargets: 0 }, { ...web!, name: "a b" }],
    flows: [
      flow!,
      { ...flow!, name: "tipc", protocols: ["tipc"] },
      { ...flow!, name: "ports", destinationPortRanges: ["70000"] },
      { ...flow!, name: "bytes", byteMatches: ["tcp[99:1]=1"] },
      { ...flow!, name: "spaces", protocols: ["TCP"], byteMatches: ["tcp[13 : 1] & 0x12 = 0x02"] },
    ],
    conduits: [
      {
        ...conduit!,
        destinationPortNats: [
          nat,
          { ...nat, protocol: "icmp" },
          { ...nat, targetPort: 9090 },
          { ...nat, vips: [], port: 7 },
        ],
      },
    ],
  });
  await stage.serve(store, address);
  const seen = stage.follow(address);
  await expect.poll(() => seen.updates.length).toBe(1);
  const now = seen.updates[0]!.configuration;
  expect(now.vips.map(({ name, prefix }) => `${name} ${prefix}`)).toEqual([
    "range 40.0.0.0/24",
    "web-v4 10.0.0.1/32",
    "web-v6 2001:db8::1/128",
  ]);
  expect(now.streams.map(({ name }) => name)).toEqual(["web"]);
  expect(now.flows.map(({ name }) => name)).toEqual(["http", "spaces"]);
  expect(now.conduit.portNats).toEqual([
    { protocol: "tcp", port: 80, targetPort: 8080, vips: [{ name: "web-v4", prefix: "10.0.0.1/32" }] },
  ]);
  expect(seen.refused[0]).toEqual([
    'port NAT 80-8080-icmp: protocol "icmp": tcp, udp, sctp are allowed',
    'port NAT 7-8080-TCP: vips "": it has no VIPs, so it translates nothing',
    'port NAT 80-9090-tcp: vips "10.0.0.1/32": collides with port NAT 80-8080-tcp, they share VIPs and a port',
    'VIP octal: address "010.0.0.1": not an IPv4 or IPv6 address',
    'VIP web-v6: name "web-v6": used twice',
    'stream a b: name "a b": no blanks and control characters are allowed',
    'stream none: maxTargets "0": 1..10000 is allowed',
    'flow bytes of stream web: match "tcp[99:1]=1": tcp|udp|sctp[offset:1|2|4]&0xmask=value, lower case, at most 64 characters; offset + size at most 20 (tcp), 8 (udp), 12 (sctp)',
    'flow ports of stream web: dports "70000": ports are 1..65535, n or first-last',
    'flow tipc of stream web: protocol "tipc": tcp, udp, sctp are allowed',
  ]);
});

test("D5: a flow without VIPs matches nothing, unless a setting has it match everything as the reference does", async () => {
  const address = stage.address();
  const store = storeOf(example);
  const [flow] = store.configuration.flows;
  store.configure({ ...store.configuration, flows: [flow!, { ...flow!, name: "open", vips: [] }] });
  await stage.serve(store, address);
  const seen = stage.follow(address);
  const lenient = stage.follow(address, { doFlowsWithoutVipsMatchAll: true });
  await expect.poll(() => [seen.updates.length, lenient.updates.length]).toEqual([1, 1]);
  expect(seen.updates[0]!.configuration.flows.map(({ name }) => name)).toEqual(["http"]);
  expect(seen.refused).toEqual([['flow open of stream web: vips "": it has no VIPs, so it matches nothing']]);
  expect(lenient.updates[0]!.configuration.flows.map(({ name, vips }) => [name, vips.length])).toEqual([
    ["http", 2],
    ["open", 0],
  ]);
});

test("R2, R12: streams that come and go bring and take their flows and targets, and hold up nothing else", async () => {
  const address = stage.address();
  const store = storeOf(example);
  const { configuration } = store;
  const [web] = configuration.streams;
  await stage.serve(store, address);
  const seen = stage.follow(address);
  await expect.poll(() => seen.updates.length).toBe(1);
  const api = { ...web!, name: "api" };
  const flow = { ...configuration.flows[0]!, name: "rpc", stream: api };
  const target = { ...configuration.targets[0]!, stream: api };
  const both = { ...configuration, streams: [web!, api], flows: [...configuration.flows, flow], targets: [target] };
  const names = () => seen.updates.at(-1)!.configuration.streams.map(({ name }) => name);
  for (let round = 0; round < 5; round++) {
    store.configure(both);
    store.configure(configuration); // gone before its watches were open
    store.configure(both);
    await expect.poll(names).toEqual(["api", "web"]);
    const now = seen.updates.at(-1)!.configuration;
    expect(now.flows.map(({ name }) => name)).toEqual(["rpc", "http"]);
    expect(now.targets.map((one) => `${one.stream} ${one.identifier}`)).toEqual(["api 1"]);
    store.configure(configuration);
    await expect.poll(names).toEqual(["web"]);
    expect(seen.updates.at(-1)!.changes.streams.removed.map(({ name }) => name)).toEqual(["api"]);
    await expect.poll(() => seen.updates.at(-1)!.configuration.targets.length).toBe(2);
  }
  expect(seen.connections).toEqual([true]);
});

test("frontends are told by their identifiers, whatever their status", async () => {
  const address = stage.address();
  await stage.serve(storeOf(example), address);
  const seen = stage.follow(address);
  using client = new RpcClient({ address, security: "plain-text" });
  await expect.poll(() => seen.updates.length).toBe(1);
  const frontend = { ips: ["lb-0"], context: { identifier: "lb-0" }, type: 1 };
  await client.unary(TargetRegistry.method.register, frontend);
  await expect.poll(() => seen.updates.at(-1)!.frontends).toEqual(["lb-0"]);
  expect(seen.updates.at(-1)!.changes.isEmpty).toBe(true);
  expect(seen.updates.at(-1)!.configuration).toBe(seen.updates[0]!.configuration);
  await client.unary(TargetRegistry.method.unregister, frontend);
  await expect.poll(() => seen.updates.at(-1)!.frontends).toEqual([]);
});

test("R9: state is kept while the server is away, and its empty first answers after a restart are not believed", async () => {
  const address = stage.address();
  const close = await stage.serve(storeOf(example), address);
  const seen = stage.follow(address, { emptyGraceMs: 400 });
  await expect.poll(() => seen.updates.length).toBe(1);
  await close();
  await expect.poll(() => seen.connections.at(-1)).toBe(false);
  await stage.serve(emptyStore(), address);
  await expect.poll(() => seen.connections.at(-1), { timeout: 5_000 }).toBe(true);
  expect(seen.updates).toHaveLength(1);
  await expect.poll(() => seen.updates.at(-1)!.configuration.streams.length, { timeout: 5_000 }).toBe(0); // time is over
  expect(seen.updates.at(-1)!.configuration.vips).toEqual([]);
});

test("R9: a full list ends the doubt without a change, and an empty one later on the same watch counts at once", async () => {
  const address = stage.address();
  const close = await stage.serve(storeOf(example), address);
  const seen = stage.follow(address, { emptyGraceMs: 60_000 });
  await expect.poll(() => seen.updates.length).toBe(1);
  const { configuration } = storeOf(example);
  await close();
  const store = emptyStore(); // a restarted server that has not read its configuration yet
  await stage.serve(store, address);
  await expect.poll(() => seen.connections, { timeout: 5_000 }).toEqual([true, false, true]);
  store.configure(configuration);
  const extra = { ...configuration.vips[0]!, name: "later", address: "10.0.0.9/32" };
  store.configure({ ...configuration, vips: [...configuration.vips, extra] });
  await expect.poll(() => seen.updates.length, { timeout: 5_000 }).toBe(2);
  expect(seen.updates[1]!.changes.vips.added).toEqual([{ name: "later", prefix: "10.0.0.9/32" }]);
  expect(seen.updates[1]!.configuration.flows).toBe(seen.updates[0]!.configuration.flows);
  store.configure({ ...configuration, vips: [], flows: [] });
  await expect.poll(() => seen.updates.at(-1)!.configuration.vips).toEqual([]);
  await expect.poll(() => seen.updates.at(-1)!.configuration.flows).toEqual([]);
});

test("R9: after a start without saved state, lists of what is in force are not believed empty; the others are", async () => {
  const address = stage.address();
  const store = emptyStore(); // a server that has not read its configuration yet
  const { conduits, trench } = storeOf(example).configuration;
  store.configure({ ...store.configuration, trench, conduits });
  await stage.serve(store, address);
  const seen = stage.follow(address, { emptyGraceMs: 60_000, leftInForce: new Set(["web"]) });
  const fresh = stage.follow(address, { emptyGraceMs: 60_000 });
  await expect.poll(() => fresh.updates.length).toBe(1); // nothing in force, nothing to lose
  await expect.poll(() => seen.connections).toEqual([true]);
  const { configuration } = storeOf(example);
  const [web] = configuration.streams;
  const streams = [web!, { ...web!, name: "idle" }];
  const frontend = { ...configuration.targets[0]!, type: 1, ips: ["lb"], context: { identifier: "lb" } };
  store.configure({ ...configuration, streams, flows: [], targets: [frontend] });
  await expect.poll(() => fresh.updates.at(-1)!.configuration.streams.length).toBe(2);
  expect(seen.updates).toEqual([]); // of web no flows and targets are not believed, of idle they are
  store.configure({ ...configuration, streams, targets: [frontend, ...configuration.targets] });
  await expect.poll(() => seen.updates.length).toBe(1);
  const { flows, targets } = seen.updates[0]!.configuration;
  expect([flows.length, targets.length, seen.updates[0]!.frontends]).toEqual([1, 2, ["lb"]]);
  store.configure({ ...configuration, streams, targets: [] });
  await expect.poll(() => seen.updates.at(-1)!.configuration.targets).toEqual([]); // heard, and then empty
});

test("R9: after a start without saved state, empty lists count when the time is over", async () => {
  const address = stage.address();
  const { conduits, trench } = storeOf(example).configuration;
  const store = emptyStore();
  store.configure({ ...store.configuration, trench, conduits });
  await stage.serve(store, address);
  const startMs = performance.now();
  const seen = stage.follow(address, { emptyGraceMs: 400, leftInForce: new Set(["web"]) });
  await expect.poll(() => seen.updates.length, { timeout: 5_000 }).toBe(1);
  expect(performance.now() - startMs).toBeGreaterThan(390);
  expect(seen.updates[0]!.configuration.streams).toEqual([]);
});

test("P4: snapshots that say the same, in another order too, come to nothing", async () => {
  const address = stage.address();
  const store = storeOf(example);
  await stage.serve(store, address);
  const seen = stage.follow(address);
  await expect.poll(() => seen.updates.length).toBe(1);
  const { configuration } = store;
  const reversed = {
    ...configuration,
    vips: configuration.vips.toReversed(),
    targets: configuration.targets.toReversed(),
    flows: configuration.flows.map((flow) => ({ ...flow, vips: flow.vips.toReversed() })),
  };
  for (let i = 0; i < 10; i++) {
    store.configure(i % 2 === 0 ? reversed : configuration);
    await new Promise((resolve) => setImmediate(resolve));
  }
  const [one] = configuration.vips;
  store.configure({ ...reversed, vips: [one!] }); // the next real change comes as the next update
  await expect.poll(() => seen.updates.length).toBe(2);
  expect(seen.updates[1]!.changes.vips.removed).toEqual([{ name: "web-v6", prefix: "2001:db8::1/128" }]);
});

test("any bytes from the server end nothing", { timeout: 30_000 }, async () => {
  const address = stage.address();
  let connections = 0;
  const hostile: Server = createServer((socket) => {
    connections++;
    socket.on("error", () => {});
    const bytes = Buffer.from(Array.from({ length: 400 }, (_, i) => (i * 131 + connections * 17) & 255));
    socket.write(connections % 2 === 0 ? bytes : Buffer.concat([Buffer.from("000000040000000000", "hex"), bytes]));
    if (connections % 3 === 0) socket.destroy();
  });
  await new Promise<void>((resolve) => hostile.listen(address.slice(5), resolve));
  const seen = stage.follow(address);
  await expect.poll(() => connections, { timeout: 20_000 }).toBeGreaterThan(8);
  hostile.close();
  hostile.unref();
  expect(seen.updates).toEqual([]);
});
