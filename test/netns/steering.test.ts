import { afterAll, beforeAll, expect, test } from "vitest";
import { type DesiredKernel, diff, formatPlan, NOTHING_DESIRED, planLength, Steering } from "#steering";
import { enterFreshNamespaces, type Host, ip, makeHost, run } from "../harness/namespace.js";

let peer: Host;
let steering: Steering;

beforeAll(async () => {
  enterFreshNamespaces();
  peer = await makeHost();
  ip(
    `link add t0 type veth peer name eth0 netns ${peer.pid}`,
    "addr add 172.16.0.1/16 dev t0",
    "addr add fd00::1/64 dev t0 nodad",
    "link set t0 up",
  );
  peer.ip("link set eth0 up");
  steering = new Steering();
});

afterAll(() => {
  steering[Symbol.dispose]();
  peer.close();
});

const queue = { first: 0, last: 3, isFanout: false };
const target = (fwmark: number) => ({
  fwmark,
  addresses: [`172.16.${Math.floor(fwmark / 250) % 250}.${(fwmark % 250) + 2}`, `fd00::${fwmark.toString(16)}`],
});
const desiredOf = (
  fwmarks: readonly number[],
  vips: readonly string[] = ["10.0.0.1/32", "2001:db8::1/128"],
): DesiredKernel => ({
  ...NOTHING_DESIRED,
  targets: fwmarks.map(target),
  vips,
  queue,
});
const range = (first: number, count: number) => Array.from({ length: count }, (_, i) => first + i);

/** Applies the plan to `desired` and checks that nothing is left to do. */
function reach(desired: DesiredKernel): number {
  const plan = diff(desired, steering.read());
  expect(steering.apply([...plan.additions, ...plan.vips, ...plan.removals])).toEqual([]);
  expect(formatPlan(diff(desired, steering.read()))).toEqual([]);
  return planLength(plan);
}

/** Every target's mark leads to its gateway, in both families, by the kernel's own word. */
function expectForwarding(fwmarks: readonly number[]): void {
  for (const fwmark of fwmarks) {
    const [v4, v6] = target(fwmark).addresses;
    expect(run("ip", "route", "get", "10.0.0.1", "mark", String(fwmark))).toContain(`via ${v4} dev t0 table ${fwmark}`);
    expect(run("ip", "-6", "route", "get", "2001:db8::1", "mark", String(fwmark))).toContain(`via ${v6} dev t0`);
  }
}

test("rules, routes and nftables are what ip and nft show, and the second plan is empty", () => {
  reach(desiredOf([5001, 5002]));
  expect(run("ip", "rule")).toContain("90:\tfrom all fwmark 0x1389 lookup 5001 proto 90");
  expect(run("ip", "-6", "rule")).toContain("90:\tfrom all fwmark 0x138a lookup 5002 proto 90");
  expect(run("ip", "route", "show", "table", "5001")).toContain("default via 172.16.20.3 dev t0 proto 90");
  const listing = run("nft", "list", "ruleset");
  expect(listing).toMatch(/set ipv4-vips \{\s+type ipv4_addr\s+flags interval\s+elements = \{ 10\.0\.0\.1 \}/);
  expect(listing).toMatch(/set ipv6-vips \{\s+type ipv6_addr\s+flags interval\s+elements = \{ 2001:db8::1 \}/);
  expect(listing).toContain("ip daddr @ipv4-vips counter packets 0 bytes 0 queue num 0-3");
  expect(listing).toContain("ip6 daddr @ipv6-vips counter packets 0 bytes 0 queue num 0-3");
  expect(listing).toMatch(/chain nfqlb \{\s+type filter hook prerouting priority filter; policy accept;/);
  expect(listing).toMatch(/meta mark != 0x00000000 meta mark vmap @fwmark-verdict/);
  expect(listing).toMatch(/chain fwmark-5001 \{\s+counter packets 0 bytes 0/);
  expectForwarding([5001, 5002]);
});

test("VIPs are merged into intervals, up to the highest address and /0", () => {
  const intervals = (...vips: string[]) => {
    reach(desiredOf([5001], vips));
    return run("nft", "list", "table", "inet", "meridio-nfqlb").replace(/\s+/g, " ");
  };
  expect(intervals("10.0.0.0/25", "10.0.0.128/25", "10.0.0.7/32", "255.255.255.255/32")).toContain(
    "elements = { 10.0.0.0/24, 255.255.255.255 }",
  );
  expect(intervals("10.0.0.0/31", "ffff::/16", "::1/128")).toContain("elements = { ::1, ffff::/16 }");
  expect(intervals("0.0.0.0/0", "10.0.0.1/32")).toContain("elements = { 0.0.0.0/0 }");
  expect(intervals("10.0.0.9/32")).toContain("elements = { 10.0.0.9 }");
});

test("from a few to many targets and back, each mark keeps leading to its target at every step", () => {
  const stages = [
    range(5001, 3),
    range(5001, 70),
    [...range(5001, 70), ...range(9000, 30)],
    range(5010, 200),
    range(5015, 40),
    range(5015, 3),
  ];
  reach(desiredOf(stages[0]!));
  for (const [i, stage] of stages.slice(1).entries()) {
    const kept = stages[i]!.filter((fwmark) => stage.includes(fwmark));
    const desired = desiredOf(stage);
    const { additions, vips, removals } = diff(desired, steering.read());
    const sample = [kept[0]!, kept.at(-1)!];
    for (const step of [...additions, ...vips]) {
      expect(steering.apply([step])).toEqual([]);
      if (step.kind !== "nft" && step.kind !== "replaceRoute") expectForwarding(sample);
    }
    expectForwarding(stage.filter((_, index) => index % 29 === 0));
    for (const step of removals) {
      expect(steering.apply([step])).toEqual([]);
      if (step.kind === "deleteRule") expectForwarding(sample);
    }
    expect(formatPlan(diff(desired, steering.read()))).toEqual([]);
    expectForwarding([stage[0]!, stage.at(-1)!]);
  }
});

test("one more target costs a route and a rule per family and one transaction, whatever the number", () => {
  reach(desiredOf(range(5001, 200)));
  expect(reach(desiredOf(range(5001, 201)))).toBe(5);
});

test("what an earlier run left goes, what others made stays", () => {
  run("ip", "rule", "add", "priority", "50", "fwmark", "7777", "lookup", "7777", "protocol", "90");
  run("ip", "route", "add", "default", "via", "172.16.9.9", "table", "7777", "proto", "90");
  run("ip", "rule", "add", "priority", "60", "fwmark", "5001", "lookup", "4096");
  run("ip", "route", "add", "default", "via", "172.16.9.9", "table", "4096", "proto", "bird");
  run("nft", "add table inet others");
  // In a table and at a priority of ours, but not as we make them.
  run("ip", "route", "add", "10.9.0.0/16", "via", "172.16.9.9", "table", "5001", "proto", "90");
  run("ip", "route", "append", "default", "via", "172.16.9.9", "table", "5001", "proto", "90");
  run("ip", "route", "add", "blackhole", "default", "metric", "7", "table", "7777", "proto", "90");
  run("ip", "-6", "route", "append", "default", "via", "fd00::99", "table", "5001", "proto", "90");
  run(
    "ip",
    "rule",
    "add",
    "from",
    "10.0.0.0/8",
    "priority",
    "90",
    "fwmark",
    "5001",
    "lookup",
    "5001",
    "protocol",
    "90",
  );
  run("ip", "rule", "add", "priority", "90", "fwmark", "5001", "blackhole", "protocol", "90");
  reach(desiredOf([5001]));
  expect(run("ip", "rule")).toContain("90:\tfrom all fwmark 0x1389 lookup 5001 proto 90");
  expect(run("ip", "route", "show", "table", "5001").trim()).toBe("default via 172.16.20.3 dev t0 proto 90");
  expect(run("ip", "-6", "route", "show", "table", "5001")).toMatch(
    /^default via fd00::1389 dev t0 proto 90 [^\n]*\n$/,
  );
  expect(run("ip", "rule")).not.toMatch(/from 10.0.0.0|blackhole/);
  expect(run("ip", "rule")).not.toContain("7777");
  expect(run("ip", "route", "show", "table", "all")).not.toContain("table 7777");
  expect(run("ip", "rule")).toContain("60:\tfrom all fwmark 0x1389 lookup 4096");
  expect(run("ip", "route", "show", "table", "4096")).toContain("proto bird");
  expect(run("nft", "list", "tables")).toContain("others");
});

test("what an operator deletes comes back", () => {
  reach(desiredOf([5001, 5002]));
  run("ip", "rule", "del", "fwmark", "5001");
  run("ip", "-6", "route", "flush", "table", "5002");
  run("nft", "delete table inet meridio-nfqlb");
  run("nft", "flush table inet meridio-metrics");
  expect(reach(desiredOf([5001, 5002]))).toBeGreaterThanOrEqual(4);
  expectForwarding([5001, 5002]);
});

test("a target that cannot be reached fails alone, with the kernel's reason", () => {
  const unreachable = { fwmark: 5009, addresses: ["192.0.2.9"] };
  const local = { fwmark: 5010, addresses: ["172.16.0.1"] };
  const desired = { ...desiredOf([5001]), targets: [...desiredOf([5001]).targets, unreachable, local] };
  const plan = diff(desired, steering.read());
  const failures = steering.apply([...plan.additions, ...plan.vips, ...plan.removals]);
  expect(failures.map(({ fwmark, errno }) => [fwmark, errno])).toEqual([
    [5009, "ENETUNREACH"],
    [5010, "EADDRINUSE"],
  ]);
  expect(failures[0]!.message).toMatch(/Nexthop has invalid gateway|ENETUNREACH/);
  expectForwarding([5001]);
});

test("1,000 targets are steered in less than 2 seconds of CPU, and hit counters are read in one dump", () => {
  const fwmarks = range(20_000, 1_000);
  const before = process.cpuUsage();
  reach(desiredOf(fwmarks));
  const { user, system } = process.cpuUsage(before);
  expect((user + system) / 1e6).toBeLessThan(2);
  expect(steering.counters().size).toBe(1_000);
  expectForwarding([20_000, 20_063, 20_064, 20_999]);
});

test("the clean-up leaves nothing of ours", () => {
  const plan = diff(NOTHING_DESIRED, steering.read());
  expect(steering.apply([...plan.additions, ...plan.vips, ...plan.removals])).toEqual([]);
  expect(run("ip", "rule")).not.toContain("proto 90");
  expect(run("ip", "-6", "rule")).not.toContain("proto 90");
  expect(run("ip", "route", "show", "table", "all")).not.toContain("proto 90");
  expect(run("nft", "list", "tables").trim()).toBe("table inet others");
});
