// What the objects' messages mean, on the bytes of ip and of the kernel.
import { expect, test } from "vitest";
import { bytesNamed, vectorsOf } from "../../../test/vectors/netlink/vectors.js";
import { decodeAddress } from "./address.js";
import { decodeLink } from "./link.js";
import {
  decodeNeighbor,
  encodeNeighbor,
  encodeNeighborDeletion,
  NeighborState,
  NTF_USE,
  neighborMessage,
  neighborQuery,
} from "./neighbor.js";
import {
  decodeRoute,
  defaultRoute,
  encodeRoute,
  encodeRouteDeletion,
  lookUpQuery,
  type Route,
  routeMessage,
  routeQuery,
} from "./route.js";
import { decodeRule, encodeRule, ruleMessage, ruleQuery } from "./rule.js";

const v4 = (...bytes: readonly number[]) => new Uint8Array(bytes);
const v6 = (last: number) => new Uint8Array([0xfd, ...Array<number>(14).fill(0), last]);
const rule = (family: string, n: number) => decodeRule(bytesNamed("rule", `ip ${family}rule show, message ${n}`))!;
const route = (family: string, n: number) =>
  decodeRoute(bytesNamed("route", `ip ${family}route show table 5001, message ${n}`))!;
const V0 = 3; // index of v0 when the vectors were made

test("rules: marks, masks, gotos, nops as ip made them", () => {
  const base = { family: 4, fwmark: null, fwmask: 0xffffffff, table: 0, goto: null, protocol: 90 };
  expect(rule("", 2)).toEqual({ ...base, priority: 2, fwmark: 0x1380, fwmask: 0xffffffc0, action: "goto", goto: 95 });
  expect(rule("", 3)).toEqual({ ...base, priority: 3, action: "goto", goto: 95 });
  expect(rule("", 4)).toEqual({ ...base, priority: 20, fwmark: 5001, action: "table", table: 5001 });
  expect(rule("", 5)).toEqual({ ...base, priority: 95, action: "nop" });
  expect(rule("-6 ", 2)).toEqual({ ...base, family: 6, priority: 20, fwmark: 5001, action: "table", table: 77 });
  expect(rule("", 1)).toEqual({ ...base, priority: 0, action: "table", table: 255, protocol: 2 });
});

test("rules: what else a rule looks at is kept, as is an action that we do not know", () => {
  expect(rule("", 6)).toMatchObject({ priority: 200, fwmark: null, action: "table", table: 254 });
  expect(rule("", 6).selectors).toEqual({
    header: { destinationLength: 24, sourceLength: 8, tos: 0, flags: 2 },
    attributes: {
      inputInterface: "v0",
      destination: v4(192, 0, 2, 0),
      source: v4(10, 0, 0, 0),
      suppressPrefixLength: 0,
    },
  });
  expect(rule("", 7)).toMatchObject({ priority: 201, action: 6 });
  expect(rule("", 7).selectors?.attributes.unknown?.map(({ type }) => type)).toEqual([20, 24, 22]); // uids, ports, protocol
});

test("rules: our requests are ip's, with the mask told besides", () => {
  const asked = (name: string) => ruleMessage.decode(bytesNamed("rule", name), "");
  const ours = { family: 4, priority: 20, fwmark: 5001, fwmask: 0xffffffff, protocol: 90, goto: null } as const;
  const expected = asked("ip rule add priority 20 fwmark 5001 lookup 5001 protocol 90");
  const sent = ruleMessage.decode(encodeRule({ ...ours, action: "table", table: 5001 }), "");
  expect(sent).toEqual({ ...expected, attributes: { ...expected.attributes, fwmask: 0xffffffff } });
  const goto = {
    ...ours,
    priority: 2,
    fwmark: 0x1380,
    fwmask: 0xffffffc0,
    action: "goto",
    table: 0,
    goto: 95,
  } as const;
  expect(ruleMessage.decode(encodeRule(goto), "")).toEqual(
    asked("ip rule add priority 2 fwmark 0x1380/0xffffffc0 goto 95 protocol 90"),
  );
  const nop = { ...ours, priority: 95, fwmark: null, action: "nop", table: 0 } as const;
  expect(ruleMessage.decode(encodeRule(nop), "")).toEqual(asked("ip rule add priority 95 nop protocol 90"));
  expect(ruleMessage.decode(ruleQuery(4), "")).toEqual(asked("ip rule show"));
  // What was listed can be named again in full: a deletion can hit nothing else.
  const listed = asked("ip rule show, message 7");
  const again = ruleMessage.decode(encodeRule(rule("", 7)), "");
  expect(again.attributes.unknown).toEqual(listed.attributes.unknown);
  expect(again.attributes.outputInterface).toBe("v1");
});

test("routes: gateways, links, several next hops, and types without any", () => {
  const to = (destination: Uint8Array, destinationLength: number): Route => ({
    ...defaultRoute(5001, destination, 90),
    destination,
    destinationLength,
    nextHops: [],
  });
  const hop = (gateway: Uint8Array | null, weight = 1) => ({ gateway, linkIndex: V0, weight, isUnusable: false });
  const none = v4(0, 0, 0, 0);
  expect(route("", 1)).toEqual({ ...to(none, 0), nextHops: [hop(v4(10, 1, 0, 9))] });
  expect(route("", 2)).toEqual({ ...to(none, 0), type: "unreachable", metric: 4278198272 });
  const extras = { header: { sourceLength: 0, scope: 0, flags: 0 }, attributes: { preferredSource: v4(10, 1, 0, 1) } };
  expect(route("", 3)).toEqual({ ...to(v4(192, 0, 2, 0), 24), nextHops: [hop(null)], extras });
  expect(route("", 4)).toEqual({ ...to(v4(192, 0, 2, 128), 25), nextHops: [hop(v6(9))] });
  const two = [hop(v4(10, 1, 0, 9), 2), hop(v4(10, 1, 0, 10))];
  expect(route("", 5)).toEqual({ ...to(v4(198, 51, 100, 0), 24), nextHops: two });
  expect(route("", 6)).toEqual({ ...to(v4(203, 0, 113, 0), 24), type: "blackhole", metric: 7 });
  const sixTo = (...start: readonly number[]) =>
    new Uint8Array([...start, ...Array<number>(16 - start.length).fill(0)]);
  expect(route("-6 ", 1)).toMatchObject({ type: "blackhole", metric: 1024, destinationLength: 48 });
  const three = [hop(v6(9)), hop(v6(10), 3)];
  expect(route("-6 ", 2)).toEqual({ ...to(sixTo(0x20, 1, 0xd, 0xb8), 32), metric: 1024, nextHops: three });
  expect(route("-6 ", 3)).toEqual({ ...to(sixTo(), 0), metric: 1024, nextHops: [hop(v6(9))] });
});

test("routes: our requests are ip's", () => {
  const asked = (name: string) => routeMessage.decode(bytesNamed("route", `ip ${name}`), "");
  const said = (body: Uint8Array) => routeMessage.decode(body, "");
  const plain = defaultRoute(5001, v4(10, 1, 0, 9), 90);
  expect(said(encodeRoute(plain))).toEqual(asked("route replace default via 10.1.0.9 table 5001 proto 90"));
  expect(said(encodeRouteDeletion({ ...plain }))).toMatchObject({
    ...asked("route del default via 10.1.0.9 table 5001 proto 90"),
    header: { scope: 255, type: 1, protocol: 90 }, // ip leaves the type open
  });
  const hops = [
    { gateway: v4(10, 1, 0, 9), linkIndex: 0, weight: 2, isUnusable: false },
    { gateway: v4(10, 1, 0, 10), linkIndex: V0, weight: 1, isUnusable: false },
  ];
  const several = { ...plain, destination: v4(198, 51, 100, 0), destinationLength: 24, nextHops: hops };
  const text = "nexthop via 10.1.0.9 weight 2 nexthop via 10.1.0.10 dev v0 weight 1";
  expect(said(encodeRoute(several))).toEqual(asked(`route add 198.51.100.0/24 table 5001 proto 90 ${text}`));
  const blackhole = {
    ...several,
    destination: v4(203, 0, 113, 0),
    type: "blackhole",
    metric: 7,
    nextHops: [],
  } as const;
  expect(said(encodeRoute(blackhole))).toEqual(
    asked("route add blackhole 203.0.113.0/24 table 5001 proto 90 metric 7"),
  );
  const mixed = { gateway: v6(9), linkIndex: V0, weight: 1, isUnusable: false };
  const via6 = { ...plain, destination: v4(192, 0, 2, 128), destinationLength: 25, nextHops: [mixed] };
  expect(said(encodeRoute(via6))).toEqual(
    asked("route add 192.0.2.128/25 via inet6 fd00::9 dev v0 table 5001 proto 90"),
  );
  expect(said(routeQuery(4, 90)).header).toEqual(asked("route show table 5001 proto 90").header);
});

test("routes: which one is taken for a destination and a mark", () => {
  const v4Asked = bytesNamed("route", "ip route get fibmatch 198.18.0.1 mark 5001");
  expect(lookUpQuery(v4(198, 18, 0, 1), 5001)).toEqual(v4Asked);
  const address6 = new Uint8Array([0x20, 1, 0x0d, 0xb8, 0, 2, ...Array<number>(9).fill(0), 1]);
  const v6Asked = bytesNamed("route", "ip -6 route get fibmatch 2001:db8:2::1 mark 5001");
  expect(lookUpQuery(address6, 5001)).toEqual(v6Asked);
  const answer = decodeRoute(bytesNamed("route", "ip -6 route get fibmatch 2001:db8:2::1 mark 5001, answer"))!;
  expect(answer).toMatchObject({ table: 5001, nextHops: [{ gateway: v6(9), linkIndex: V0 }] });
});

test("links: up, carrier, operational state, MTU, link-layer address, counters", () => {
  const links = vectorsOf("link").filter(({ direction }) => direction === "from-kernel");
  const found = links.map(({ name }) => decodeLink(bytesNamed("link", name))!);
  const ethernet = (last: number) => new Uint8Array([2, 0, 0, 0, 0, last]);
  expect(found.map(({ name }) => name)).toEqual(["lo", "v1", "v0", "v3", "v2"]);
  const [lo, , v0, v3, v2] = found;
  const up = { isUp: true, hasCarrier: true, operationalState: "up", mtuBytes: 1500 };
  expect(lo).toMatchObject({ index: 1, isUp: true, hasCarrier: true, operationalState: "unknown", mtuBytes: 65_536 });
  const v0Has = { linkLayerAddress: ethernet(1), masterIndex: 0, groMaxBytes: 65_536 };
  expect(v0).toEqual({ index: V0, name: "v0", ...up, ...v0Has });
  expect(v3).toMatchObject({ isUp: false, hasCarrier: false, operationalState: "down" });
  // v2 is up, its peer v3 is not
  const waiting = { isUp: true, hasCarrier: false, operationalState: "lowerLayerDown", mtuBytes: 9000 };
  expect(v2).toMatchObject({ index: 5, name: "v2", ...waiting, linkLayerAddress: ethernet(3) });
});

test("links: a bridge's message about a port is not one about the link", () => {
  const bytes = bytesNamed("link", "ip link show, message 3").slice();
  bytes[0] = 7; // AF_BRIDGE
  expect(decodeLink(bytes)).toBeNull();
});

test("addresses: the own one, its prefix length, and whether it can be used", () => {
  const address = (n: number) => decodeAddress(bytesNamed("address", `ip addr show, message ${n}`));
  const on = { linkIndex: V0, isUsable: true };
  expect(address(2)).toEqual({ ...on, family: 4, address: v4(10, 1, 0, 1), prefixLength: 16 });
  expect(address(4)).toEqual({ ...on, family: 4, address: v4(192, 0, 2, 9), prefixLength: 31 }); // its peer is .10
  expect(address(7)).toEqual({ ...on, family: 6, address: v6(1), prefixLength: 64 });
  expect(address(8)).toMatchObject({ family: 6, prefixLength: 64, isUsable: false }); // tentative
});

test("neighbors: state, link-layer address, flags, who made it", () => {
  const listed = vectorsOf("neighbor").filter(({ direction }) => direction === "from-kernel");
  const found = listed.map(({ name }) => decodeNeighbor(bytesNamed("neighbor", name))!);
  const base = { family: 4, linkIndex: V0, linkLayerAddress: null, flags: 0, protocol: 0 };
  const ethernet = (last: number) => new Uint8Array([2, 0, 0, 0, 0, last]);
  const { failed, probe, incomplete, reachable, noarp } = NeighborState;
  const probed = { address: v4(10, 1, 0, 9), state: probe, linkLayerAddress: ethernet(10), protocol: 90 };
  expect(found).toContainEqual({ ...base, ...probed });
  expect(found).toContainEqual({ ...base, address: v4(10, 1, 0, 10), state: incomplete });
  expect(found).toContainEqual({ ...base, address: v4(10, 1, 0, 11), state: failed });
  const router = { family: 6, address: v6(9), state: reachable, linkLayerAddress: ethernet(9), flags: 0x80 };
  expect(found).toContainEqual({ ...base, ...router });
  expect(found.filter(({ state }) => state === noarp).length).toBe(found.length - 4); // multicast, by the kernel
});

test("neighbors: our requests are ip's", () => {
  const asked = (name: string) => neighborMessage.decode(bytesNamed("neighbor", `ip neigh ${name}`), "");
  const said = (body: Uint8Array) => neighborMessage.decode(body, "");
  const key = { family: 4, linkIndex: V0, address: v4(10, 1, 0, 9) } as const;
  const entry = { ...key, linkLayerAddress: new Uint8Array([2, 0, 0, 0, 0, 9]), flags: 0, protocol: 90 };
  expect(said(encodeNeighbor({ ...entry, state: NeighborState.permanent }))).toEqual(
    asked("add 10.1.0.9 lladdr 02:00:00:00:00:09 nud permanent dev v0 protocol 90"),
  );
  const probe = { ...key, linkLayerAddress: null, flags: 0, protocol: 0, state: NeighborState.probe };
  expect(said(encodeNeighbor(probe))).toEqual(asked("change 10.1.0.9 nud probe dev v0"));
  const use = { ...probe, address: v4(10, 1, 0, 10), flags: NTF_USE, state: NeighborState.none };
  const ipUse = asked("replace 10.1.0.10 dev v0 use");
  expect(said(encodeNeighbor(use))).toEqual({ ...ipUse, header: { ...ipUse.header, state: 0 } }); // ip says permanent, unheard
  const gone = asked("del 10.1.0.9 dev v0");
  expect(said(encodeNeighborDeletion(key))).toEqual({ ...gone, header: { ...gone.header, state: 0 } }); // the same
  const query = asked("show dev v0");
  expect(said(neighborQuery(4, V0))).toEqual({ ...query, header: { ...query.header, family: 2 } });
});
