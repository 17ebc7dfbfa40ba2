// Dumps beside what ip says of the same kernel, and pictures of it that are kept by events, also when events are lost.
import { spawn } from "node:child_process";
import { afterEach, beforeAll, expect, test } from "vitest";
import {
  defaultRoute,
  type Neighbor,
  NeighborState,
  type Route,
  RouteConnection,
  type RouteEvent,
  type RouteObject,
  type Rule,
  watchRoutes,
} from "#netlink/route";
import { enterFreshNamespaces, ip, run } from "../harness/namespace.js";

let route: RouteConnection;
let v0 = 0;
const stops: (() => void)[] = [];

beforeAll(() => {
  enterFreshNamespaces();
  ip(
    "link add v0 address 02:00:00:00:00:01 mtu 1400 type veth peer name v1",
    "link set v0 up",
    "link set v1 up",
    "addr add 10.1.0.1/16 dev v0",
    "addr add fd00::1/64 dev v0 nodad",
  );
  route = new RouteConnection();
  v0 = route.links().find(({ name }) => name === "v0")!.index;
});

afterEach(() => {
  for (const stop of stops.splice(0)) stop();
});

const text = (address: Uint8Array | null | undefined) =>
  address == null ? null : address.length === 4 ? address.join(".") : Buffer.from(address).toString("hex");
const mac = (bytes: Uint8Array | null) =>
  bytes === null ? null : [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join(":");
const json = (...args: readonly string[]) => JSON.parse(run("ip", "-j", ...args)) as Record<string, unknown>[];
const rule = (fwmark: number): Rule => ({
  family: 4,
  priority: 50,
  fwmark,
  fwmask: 0xffffffff,
  action: "table",
  table: fwmark,
  goto: null,
  protocol: 90,
});
const gateway = (n: number) => new Uint8Array([10, 1, 1 + (n >> 8), n & 0xff]);
const neighbor = (n: number): Neighbor => ({
  family: 4,
  linkIndex: v0,
  address: gateway(n),
  state: NeighborState.permanent,
  linkLayerAddress: new Uint8Array([2, 0, 0, 1, n >> 8, n & 0xff]),
  flags: 0,
  protocol: 90,
});

/** The kernel sets the operational state a moment after the carrier (net/core/link_watch.c). */
const operationalStates = () => route.links().map(({ name, operationalState }) => `${name} ${operationalState}`);

test("links, addresses and neighbors are what ip says", async () => {
  await expect.poll(operationalStates, { timeout: 5_000 }).toEqual(expect.arrayContaining(["v0 up", "v1 up"]));
  ip("neigh add 10.1.0.9 lladdr 02:00:00:00:00:09 nud permanent dev v0");
  const links = route.links().map((link) => [link.index, link.name, link.mtuBytes, mac(link.linkLayerAddress)]);
  expect(links).toEqual(json("link").map((link) => [link["ifindex"], link["ifname"], link["mtu"], link["address"]]));
  const states = route.links().map(({ operationalState, hasCarrier }) => [operationalState.toUpperCase(), hasCarrier]);
  const lowerUp = (link: Record<string, unknown>) => (link["flags"] as string[]).includes("LOWER_UP");
  expect(states).toEqual(json("link").map((link) => [link["operstate"], lowerUp(link)]));
  const own = route.addresses().filter(({ family }) => family === 4);
  const ipOwn = json("-4", "addr").flatMap((link) => link["addr_info"] as Record<string, unknown>[]);
  expect(own.map(({ address, prefixLength }) => [text(address), prefixLength])).toEqual(
    ipOwn.map((address) => [address["local"], address["prefixlen"]]),
  );
  expect(route.neighbors(4).map(({ address, linkLayerAddress }) => [text(address), mac(linkLayerAddress)])).toEqual(
    json("-4", "neigh").map((one) => [one["dst"], one["lladdr"]]),
  );
});

test("a link without carrier is told: its peer is down", async () => {
  ip("link set v1 down");
  const state = () => {
    const { isUp, hasCarrier, operationalState } = route.links().find(({ name }) => name === "v0")!;
    return { isUp, hasCarrier, operationalState };
  };
  const down = { isUp: true, hasCarrier: false, operationalState: "lowerLayerDown" };
  await expect.poll(state, { timeout: 5_000 }).toEqual(down);
  ip("link set v1 up");
  await expect.poll(state, { timeout: 5_000 }).toEqual({ isUp: true, hasCarrier: true, operationalState: "up" });
});

test("each kind of object is told when it comes and goes, decoded", async () => {
  const events: RouteEvent[] = [];
  stops.push(watchRoutes(["rule", "route", "link", "address", "neighbor"], (event) => events.push(event)));
  const plain = defaultRoute(7001, new Uint8Array([10, 1, 0, 9]), 90);
  route.addRule(rule(7001));
  route.addRoute(plain);
  route.replaceRoute(defaultRoute(7001, new Uint8Array([10, 1, 0, 10]), 90));
  route.addNeighbor(neighbor(1));
  ip(
    "addr add 10.1.0.77/16 dev v0",
    "addr del 10.1.0.77/16 dev v0",
    "link add w0 type veth peer name w1",
    "link del w0",
  );
  route.deleteNeighbor(neighbor(1));
  route.deleteRoute({ ...plain, nextHops: [] });
  route.deleteRule(rule(7001));
  const has = (expected: object) =>
    expect.poll(() => events, { timeout: 5_000 }).toContainEqual(expect.objectContaining(expected));
  for (const change of ["new", "deleted"] as const) {
    await has({ kind: "rule", change, rule: rule(7001) });
    await has({ kind: "neighbor", change: "new", neighbor: neighbor(1) });
    await has({ kind: "link", change, link: expect.objectContaining({ name: "w0" }) });
    const address = {
      family: 4,
      linkIndex: v0,
      address: new Uint8Array([10, 1, 0, 77]),
      prefixLength: 16,
      isUsable: true,
    };
    await has({ kind: "address", change, address });
  }
  const hop = (last: number) => [
    { gateway: new Uint8Array([10, 1, 0, last]), linkIndex: v0, weight: 1, isUnusable: false },
  ];
  await has({ kind: "route", change: "new", route: { ...plain, nextHops: hop(9) }, isReplacement: false });
  await has({ kind: "route", change: "new", route: { ...plain, nextHops: hop(10) }, isReplacement: true });
  await has({ kind: "route", change: "deleted", route: { ...plain, nextHops: hop(10) }, isReplacement: false });
  expect(events.filter(({ kind }) => kind === "overrun")).toEqual([]);
});

/** A picture of the kernel's rules, routes and neighbors of protocol 90, kept by events and read anew after a loss. */
function follow(receiveBufferBytes?: number) {
  const picture = new Map<string, Rule | Route | Neighbor>();
  let overruns = 0;
  const keyOf = {
    rule: (one: Rule) => `rule ${one.family} ${one.priority} ${one.fwmark} ${one.table}`,
    route: (one: Route) =>
      `route ${one.family} ${one.table} ${text(one.destination)}/${one.destinationLength} ${one.metric}`,
    neighbor: (one: Neighbor) => `neighbor ${one.linkIndex} ${text(one.address)}`,
  };
  const read = (into: Map<string, Rule | Route | Neighbor>) => {
    for (const one of route.rules(4)) if (one.protocol === 90) into.set(keyOf.rule(one), one);
    for (const one of route.routes(4, 90)) into.set(keyOf.route(one), one);
    for (const one of route.neighbors(4)) if (one.protocol === 90) into.set(keyOf.neighbor(one), one);
    return into;
  };
  const put = (change: "new" | "deleted", key: string, one: Rule | Route | Neighbor) => {
    if (one.protocol !== 90) return;
    if (change === "new") picture.set(key, one);
    else picture.delete(key);
  };
  const onEvent = (event: RouteEvent) => {
    if (event.kind === "overrun") {
      overruns++;
      picture.clear();
      read(picture);
    } else if (event.kind === "rule") put(event.change, keyOf.rule(event.rule), event.rule);
    else if (event.kind === "route") put(event.change, keyOf.route(event.route), event.route);
    else if (event.kind === "neighbor") put(event.change, keyOf.neighbor(event.neighbor), event.neighbor);
  };
  const objects: readonly RouteObject[] = ["rule", "route", "neighbor"];
  stops.push(watchRoutes(objects, onEvent, receiveBufferBytes));
  read(picture);
  const isTrue = () => expect.poll(() => sorted(picture), { timeout: 20_000 }).toEqual(sorted(read(new Map())));
  return { isTrue, overruns: () => overruns, size: () => picture.size };
}

const sorted = (picture: ReadonlyMap<string, unknown>) => [...picture].toSorted(([a], [b]) => (a < b ? -1 : 1));

test("with room for them no event is lost, and the picture is the kernel's", async () => {
  const { isTrue, overruns, size } = follow();
  for (let n = 1; n <= 200; n++) {
    route.addRule(rule(10_000 + n));
    route.replaceRoute(defaultRoute(10_000 + n, gateway(n), 90));
    route.replaceNeighbor(neighbor(n));
    if (n % 2 === 0) route.deleteRule(rule(10_000 + n));
    if (n % 3 === 0) route.deleteRoute(defaultRoute(10_000 + n, gateway(n), 90));
  }
  await isTrue();
  expect(overruns()).toBe(0);
  expect(size()).toBe(100 + 134 + 200);
});

test("a real overrun is told, and after the resync the picture is the kernel's", async () => {
  const { isTrue, overruns, size } = follow(2_048);
  // The event loop stands still meanwhile, and the buffer holds a few messages only.
  for (let n = 1; n <= 200; n++) {
    route.addRule(rule(20_000 + n));
    route.replaceRoute(defaultRoute(20_000 + n, gateway(n), 90));
    route.replaceNeighbor({ ...neighbor(n), state: NeighborState.stale });
  }
  await isTrue();
  expect(overruns()).toBeGreaterThanOrEqual(1);
  expect(size()).toBe(100 + 134 + 200 + 400);
  // What happens after the resync is told again.
  const before = overruns();
  route.deleteRule(rule(20_001));
  await isTrue();
  expect(size()).toBe(100 + 134 + 200 + 399);
  expect(overruns()).toBe(before);
});

test("overruns while another process goes on changing things leave a true picture", async () => {
  const { isTrue, overruns } = follow(2_048);
  const lines = Array.from({ length: 4_000 }, (_, i) => {
    const n = i % 1_000;
    const isAdded = Math.floor(i / 1_000) % 2 === 0;
    return isAdded || n % 3 === 0
      ? `rule ${isAdded ? "add" : "del"} priority 60 fwmark ${30_000 + n} lookup ${30_000 + n} protocol 90`
      : `route replace 192.0.2.${n % 256}/32 via 10.1.0.${2 + (i % 200)} table 30000 proto 90`;
  });
  const child = spawn("ip", ["-force", "-batch", "-"], { stdio: ["pipe", "ignore", "ignore"] });
  child.stdin.end(lines.join("\n"));
  // The event loop stands still until the buffer must have overflowed.
  const deadline = Date.now() + 10_000;
  while (!route.rules(4).some(({ fwmark }) => fwmark === 30_100)) expect(Date.now()).toBeLessThan(deadline);
  await new Promise((resolve) => child.once("close", resolve));
  await isTrue();
  expect(overruns()).toBeGreaterThanOrEqual(1);
});
