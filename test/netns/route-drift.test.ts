// Whatever a hand does to our routes and rules, one plan makes them what they were, seen by ip's own listing; and what it
// puts beside our routes takes the target out as long as it would take packets.
import { execFileSync } from "node:child_process";
import { afterAll, beforeAll, expect, test } from "vitest";
import { RouteConnection } from "#netlink/route";
import { type DesiredKernel, diff, formatPlan, NOTHING_DESIRED, planLength, Steering } from "#steering";
import { enterFreshNamespaces, run } from "../harness/namespace.js";

const VIPS = ["20.0.0.1/32", "2000::1/128"];
const desired: DesiredKernel = {
  ...NOTHING_DESIRED,
  targets: [1, 2].map((n) => ({ fwmark: 5000 + n, addresses: [`172.16.1.${n + 1}`, `fd16:1::${n + 1}`] })),
};
let steering: Steering;
let stop: () => void;
let changes = 0;

/** Runs lines with `ip`. */
function ip(...lines: readonly string[]): void {
  for (const line of lines) run("ip", ...line.split(" "));
}

beforeAll(() => {
  enterFreshNamespaces();
  for (const n of [1, 2, 3]) {
    ip(
      `link add t${n} type veth peer name p${n}`,
      `link set t${n} addrgenmode none`,
      `link set t${n} up`,
      `link set p${n} up`,
      `addr add 172.16.${n}.1/24 dev t${n}`,
      `addr add fd16:${n}::1/64 dev t${n} nodad`,
    );
  }
  // A second way to the targets' network, which the kernel does not take by itself.
  ip("route add 172.16.1.0/24 dev t3 metric 9", "-6 route add fd16:1::/64 dev t3 metric 2000");
  ip("nexthop add id 7 via 172.16.1.2 dev t1", "nexthop add id 8 via fd16:1::2 dev t1");
  steering = new Steering();
  stop = steering.watch(() => changes++);
  reach();
});

afterAll(() => {
  stop();
  steering[Symbol.dispose]();
});

/** Works a plan off and checks that nothing is left to do; returns how many steps it had. */
function reach(): number {
  const plan = diff(desired, steering.read());
  expect(steering.apply([...plan.additions, ...plan.vips, ...plan.removals])).toEqual([]);
  expect(formatPlan(diff(desired, steering.read()))).toEqual([]);
  return planLength(plan);
}

const listing = () =>
  ["-4", "-6"]
    .flatMap((family) => [
      run("ip", family, "rule"),
      run("ip", family, "-d", "route", "show", "table", "5001"),
      run("ip", family, "-d", "route", "show", "table", "5002"),
    ])
    .join("\n")
    .split("\n")
    .toSorted() // a rule that is made anew stands behind the others
    .join("\n");

const V4 = "default via 172.16.1.2 table 5001";
const V6 = "default via fd16:1::2 table 5001";
const RULE = "priority 90 fwmark 5001 lookup 5001 protocol 90";
/** Lines of `ip -batch`. */
const HANDS: readonly (readonly string[])[] = [
  [`route replace ${V4} dev t2 onlink proto 90`],
  [`route replace ${V4} dev t1 onlink proto 90`],
  [`route replace ${V4} dev t3 proto 90`],
  [`route replace ${V4} src 172.16.2.1 proto 90`],
  [`route replace ${V4} mtu lock 576 proto 90`],
  [`route replace ${V4} advmss 500 proto 90`],
  [`route replace ${V4} scope site proto 90`],
  ["route replace default nhid 7 table 5001 proto 90"],
  ["route add 20.0.0.1/32 nhid 7 table 5001 proto 90"],
  [`route append ${V4} dev t3 proto 90`],
  [`route prepend ${V4} dev t2 onlink proto 90`],
  [`route add ${V4} tos 0x10 proto 90`],
  ["route replace blackhole default table 5001 proto 90"],
  ["route replace default table 5001 dev t1 proto 90"],
  [`-6 route replace ${V6} dev t1 onlink proto 90`],
  [`-6 route replace ${V6} dev t3 proto 90`],
  [`-6 route replace ${V6} src fd16:2::1 proto 90`],
  [`-6 route replace ${V6} mtu lock 1280 proto 90`],
  [`-6 route replace ${V6} pref high proto 90`],
  [`-6 route replace ${V6} expires 100 proto 90`],
  [`-6 route replace default nhid 8 table 5001 proto 90`],
  ["-6 route add 2000::1/128 nhid 8 table 5001 proto 90"],
  [`-6 route add ${V6} from 2001:db8::/32 proto 90`],
  [`-6 route append ${V6} dev t3 proto 90`],
  ...["", "-6 "].flatMap((family) =>
    [
      "suppress_prefixlength 0",
      "suppress_ifgroup 5",
      "not",
      "iif t1",
      "oif t1",
      "uidrange 0-10",
      "ipproto udp",
      "dport 80",
      "tos 0x10",
      "tun_id 5",
      family === "" ? "from 10.0.0.0/8" : "from 2001:db8::/32",
    ].map((selector) => [`${family}rule del ${RULE}`, `${family}rule add ${selector} ${RULE}`]),
  ),
  [`rule del ${RULE}`, `rule add priority 90 fwmark 5001 blackhole protocol 90`],
  [`rule del ${RULE}`, `rule add priority 90 fwmark 5001/0xffff lookup 5001 protocol 90`],
  [`rule del ${RULE}`, `rule add priority 91 fwmark 5001 lookup 5002 protocol 90`],
];

test.each(HANDS)("R19: ip %s %s: found and repaired", (...lines) => {
  const before = listing();
  const heard = changes;
  ip(...lines);
  expect(listing()).not.toBe(before);
  expect(reach()).toBeGreaterThan(0);
  expect(listing()).toBe(before);
  expect(changes).toBeGreaterThan(heard);
});

test("a route of ours that is led elsewhere is found after a loss of events, too, and once it is right nothing is done", () => {
  const before = listing();
  ip(`route replace ${V4} dev t3 proto 90`);
  steering.verify();
  expect(reach()).toBeGreaterThan(0);
  expect(listing()).toBe(before);
  steering.verify();
  expect(reach()).toBe(0);
});

/** Marks whose packets take routes of others, with the reason; no target answers here. */
const faultsOf = (one: Steering) =>
  [...one.brokenPaths(VIPS)].flatMap(([fwmark, { kind, text }]) => (kind === "foreignRoute" ? [[fwmark, text]] : []));
const faults = () => faultsOf(steering);
const foreign = (route: string, fwmark = 5001) => [fwmark, `a route that is not ours takes its packets: ${route}`];

test.each([
  ["blackhole 20.0.0.1/32 table 5001", "blackhole 20.0.0.1/32 table 5001"],
  ["20.0.0.0/8 via 172.16.2.9 table 5001 proto bird", "20.0.0.0/8 via 172.16.2.9 table 5001"],
  ["blackhole default table 5001 tos 0x10", "blackhole default table 5001"],
  ["-6 blackhole 2000::/16 table 5001", "blackhole 2000::/16 table 5001"],
  ["-6 default via fd16:2::9 table 5001 metric 1", "default via fd16:2::9 table 5001 metric 1"],
])("R19: a route of others that takes a target's packets takes the target out, and is left alone: %s", (line, told) => {
  const [, family, route] = /^(-6 )?(.*)$/.exec(line)!;
  const act = (verb: string) => ip(`${family ?? ""}route ${verb} ${route}`);
  expect(faults()).toEqual([]);
  const heard = changes;
  act("add");
  expect(faults()).toEqual([foreign(told!)]);
  expect(changes).toBeGreaterThan(heard);
  expect(reach()).toBe(0);
  steering.verify();
  expect(faults()).toEqual([foreign(told!)]);
  act("del");
  expect(faults()).toEqual([]);
});

test("a route of others in front of ours, to the same destination, takes the target out; one that replaced ours is replaced", () => {
  ip("route prepend default via 172.16.2.9 table 5001");
  expect(faults()).toEqual([foreign("default via 172.16.2.9 table 5001")]);
  ip("route del default via 172.16.2.9 table 5001", "route replace default via 172.16.2.9 table 5001");
  expect(reach()).toBeGreaterThan(0);
  expect(faults()).toEqual([]);
});

test("routes of others that take none of a target's packets do no harm: to elsewhere, and behind ours", () => {
  const harmless = [
    "route %s 10.0.0.0/8 via 172.16.2.9 table 5001",
    "route %s blackhole default table 5001 metric 5",
    "-6 route %s 2001:db8::/32 via fd16:2::9 table 5001",
    "-6 route %s blackhole default table 5001 metric 2000",
  ];
  for (const line of harmless) ip(line.replace("%s", "append"));
  expect(faults()).toEqual([]);
  expect(reach()).toBe(0);
  for (const line of harmless) ip(line.replace("%s", "del"));
});

test("what stood in a table before its target came is seen, and a link that goes silently takes it along", () => {
  ip(
    "link add gone type veth peer name gone2",
    "link set gone up",
    "link set gone2 up",
    "addr add 172.16.9.1/24 dev gone",
  );
  ip("route add 20.0.0.1/32 via 172.16.9.9 table 5003", "route add 20.0.0.1/32 via 172.16.9.9 table 5001");
  expect(faults()).toEqual([foreign("20.0.0.1/32 via 172.16.9.9 table 5001")]);
  const more = { ...desired, targets: [...desired.targets, { fwmark: 5003, addresses: ["172.16.1.4"] }] };
  steering.apply(diff(more, steering.read()).additions);
  expect(faults()).toEqual([5001, 5003].map((table) => foreign(`20.0.0.1/32 via 172.16.9.9 table ${table}`, table)));
  ip("link del gone");
  expect(faults()).toEqual([]);
  expect(reach()).toBeGreaterThan(0);
});

test("a new beginning sees what is there", () => {
  ip("route add blackhole 20.0.0.1/32 table 5002");
  using other = new Steering();
  const end = other.watch(() => {});
  expect(faultsOf(other)).toEqual([foreign("blackhole 20.0.0.1/32 table 5002", 5002)]);
  end();
  ip("route del blackhole 20.0.0.1/32 table 5002");
});

test("routes of others in other tables cost nothing but their events", () => {
  expect(faults()).toEqual([]);
  steering.verify(); // whatever was told before
  const { prototype } = RouteConnection;
  const kinds = ["routes", "routesOfTable"] as const;
  const originals = kinds.map((kind) => [kind, prototype[kind]] as const);
  let readings = 0;
  for (const [kind, original] of originals) {
    prototype[kind] = function (this: RouteConnection, ...args: never[]) {
      readings++;
      return (original as (...all: unknown[]) => never).apply(this, args);
    };
  }
  try {
    const heard = changes;
    const lines = Array.from(
      { length: 2_000 },
      (_, i) => `route add 30.0.${i >> 8}.${i & 255} via 172.16.2.9 table 99`,
    );
    execFileSync("ip", ["-batch", "-"], { input: lines.join("\n") });
    expect(faults()).toEqual([]);
    steering.verify();
    expect([reach(), readings, changes - heard]).toEqual([0, 0, 0]);
  } finally {
    for (const [kind, original] of originals) prototype[kind] = original as never;
  }
});
