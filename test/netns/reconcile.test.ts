import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { watchRoutes } from "#netlink/route";
import { readFlows } from "#tables";
import { until } from "../harness/balancer.js";
import { enterFreshNamespaces, type Host, ip, makeHost, run } from "../harness/namespace.js";
import { configurationOf, ReconcilerStage } from "../harness/reconciler.js";

/** What the issue allows between the kernel's word and the tables. */
const LEAVE_MS = 100;
const COUNT = 3;
let peers: readonly Host[];
let stage: ReconcilerStage;
let folders = 0;

beforeAll(async () => {
  enterFreshNamespaces();
  peers = await Promise.all(Array.from({ length: COUNT }, makeHost));
  const noDad = "for f in /proc/sys/net/ipv6/conf/*/accept_dad; do echo 0 > $f; done"; // a second less per test
  run("sh", "-c", noDad);
  for (const peer of peers) peer.run("sh", "-c", noDad);
});

beforeEach(() => {
  for (const n of [1, 2, 3]) connect(n);
  stage = new ReconcilerStage(`/dev/shm/reconcile-${folders++}`);
});

afterEach(() => {
  stage[Symbol.dispose]();
  for (const n of [1, 2, 3]) if (run("ip", "-o", "link").includes(` t${n}@`)) ip(`link del t${n}`);
});

/** Links target n; the kernel waits 50 ms for its answers instead of a second, to keep the tests short. */
function connect(n: number): void {
  ip(
    `link add t${n} type veth peer name eth0 netns ${peers[n - 1]!.pid}`,
    `addr add 172.16.${n}.1/24 dev t${n}`,
    `addr add fd16:${n}::1/64 dev t${n} nodad`,
    `link set t${n} up`,
  );
  peers[n - 1]!.ip(`addr add 172.16.${n}.2/24 dev eth0`, `addr add fd16:${n}::2/64 dev eth0 nodad`, "link set eth0 up");
  for (const family of ["ipv4", "ipv6"]) writeFileSync(`/proc/sys/net/${family}/neigh/t${n}/retrans_time_ms`, "50");
}

const target = (identifier: number) => ({
  identifier,
  addresses: [`172.16.${identifier}.2`, `fd16:${identifier}::2`],
});
const threeTargets = configurationOf([1, 2, 3].map(target));
const servedAre = (...fwmarks: number[]) =>
  until(`served: ${fwmarks.join()}`, () => (stage.served().join() === fwmarks.join() ? performance.now() : null));

async function startServing(): Promise<void> {
  stage.reconciler.configure(threeTargets);
  await servedAre(5001, 5002, 5003);
  // Every neighbor has answered, so that what follows is news.
  await until("neighbors", () => (run("ip", "neigh").match(/REACHABLE/g)?.length === 2 * COUNT ? true : null));
  await until("all ready", () => (Object.values(stage.states()).join() === "ready,ready,ready" ? true : null));
  stage.lines.length = 0;
}

test("D9, O6: an idle target that does not answer any more leaves within 100 ms of the kernel's word, and comes back", async () => {
  await startServing();
  let failedMs = Number.POSITIVE_INFINITY;
  const stop = watchRoutes(["neighbor"], (event) => {
    if (event.kind === "neighbor" && event.neighbor.state === 0x20) failedMs = Math.min(failedMs, performance.now());
  });
  peers[1]!.ip("addr del 172.16.2.2/24 dev eth0");
  const leftMs = await servedAre(5001, 5003);
  stop();
  expect(leftMs - failedMs).toBeLessThan(LEAVE_MS);
  expect(stage.states()).toEqual({ 1: "ready", 2: "unreachable neighborFailed", 3: "ready" });
  expect(stage.reconciler.status().targets[1]!.reason).toBe("172.16.2.2 does not answer on t2");
  peers[1]!.ip("addr add 172.16.2.2/24 dev eth0");
  await servedAre(5001, 5002, 5003);
  const words = stage.lines.filter(({ data }) => data["fwmark"] === 5002).map(({ message }) => message);
  expect(words).toEqual([
    "removing target after verification",
    "add pending target",
    "remove pending target",
    "Added target",
  ]);
});

test("a target that stays pending is told and counted once, however often it is tried again", async () => {
  stage.reconciler.configure(configurationOf([target(1), { identifier: 2, addresses: ["192.168.77.5"] }]));
  await servedAre(5001);
  await until("retries", () => (stage.turns.length >= 5 ? true : null));
  expect(stage.states()[2]).toBe("pending noRoute");
  expect(stage.turns.reduce((sum, { failedSteps }) => sum + failedSteps, 0)).toBe(1);
  const commands = stage.lines.filter(({ data }) => JSON.stringify(data["kernel"] ?? "").includes("192.168.77.5"));
  expect(commands.map(({ message }) => message)).toEqual(["reconciled"]);
  expect(stage.lines.filter(({ message }) => message === "add pending target")).toHaveLength(1);
});

test("R10: a link that goes down, or loses its peer, takes its target along at once, and brings it back", async () => {
  await startServing();
  for (const [down, up, state] of [
    [() => ip("link set t1 down"), () => ip("link set t1 up", "addr add fd16:1::1/64 dev t1 nodad"), "pending noRoute"],
    [() => peers[0]!.ip("link set eth0 down"), () => peers[0]!.ip("link set eth0 up"), "unreachable noCarrier"],
  ] as const) {
    down();
    const downMs = performance.now();
    expect((await servedAre(5002, 5003)) - downMs).toBeLessThan(LEAVE_MS);
    expect(stage.states()[1]).toBe(state);
    if (state === "unreachable noCarrier") peers[0]!.ip("addr add fd16:1::2/64 dev eth0 nodad");
    up();
    await servedAre(5001, 5002, 5003);
  }
});

test("a target that flaps is held longer each time, and the others never move", async () => {
  await startServing();
  const holds: number[] = [];
  for (let flap = 0; flap < 3; flap++) {
    peers[2]!.ip("link set eth0 down");
    await servedAre(5001, 5002);
    peers[2]!.ip("link set eth0 up", "addr add fd16:3::2/64 dev eth0 nodad");
    const upMs = performance.now();
    holds.push((await servedAre(5001, 5002, 5003)) - upMs);
  }
  for (const [i, ms] of holds.entries()) expect(ms).toBeGreaterThanOrEqual(200 * 2 ** i - 20);
});

test("D10, R22: an interface that is replaced has its targets back, and not before they have answered on it", async () => {
  await startServing();
  ip("link del t1");
  await servedAre(5002, 5003);
  connect(1); // another link, other addresses of the link layer
  const backMs = performance.now();
  // The kernel's first question may be lost with the link that comes up; it repeats it after a second.
  expect((await servedAre(5001, 5002, 5003)) - backMs).toBeLessThan(3_000);
  expect(run("ip", "neigh", "show", "172.16.1.2", "dev", "t1")).toMatch(/lladdr/);
  expect(run("ip", "route", "get", "20.0.0.1", "mark", "5001")).toContain("via 172.16.1.2 dev t1");
});

test("D10: what the kernel remembers of a neighbor is dropped when a target comes", async () => {
  ip("neigh replace 172.16.1.2 lladdr 02:00:00:00:00:99 dev t1 nud reachable");
  stage.reconciler.configure(threeTargets);
  await servedAre(5001, 5002, 5003);
  expect(run("ip", "neigh")).not.toContain("02:00:00:00:00:99");
});

test("an entry that an administrator fixed is neither dropped nor asked", async () => {
  ip("neigh replace 172.16.1.2 lladdr 02:00:00:00:00:99 dev t1 nud permanent");
  await startServingBut("172.16.1.2");
  expect(run("ip", "neigh", "show", "172.16.1.2")).toContain("02:00:00:00:00:99 PERMANENT");
});

async function startServingBut(address: string): Promise<void> {
  stage.reconciler.configure(threeTargets);
  await servedAre(5001, 5002, 5003);
  const isOther = (line: string) => line.includes("REACHABLE") && !line.includes(address);
  const others = () => run("ip", "neigh").split("\n").filter(isOther);
  await until("the other neighbors", () => (others().length === 2 * COUNT - 1 ? true : null));
}

test("if nobody answers all keep their place, and the frontend is told the truth", async () => {
  await startServing();
  for (const [i, peer] of peers.entries()) peer.ip(`addr del 172.16.${i + 1}.2/24 dev eth0`);
  await until("all lost", () => (stage.reconciler.status().streams[0]!.unreachable === COUNT ? true : null));
  expect(stage.served()).toEqual([5001, 5002, 5003]);
  const { isAvailable, streams } = stage.reconciler.status();
  expect({ isAvailable, isDesperate: streams[0]!.isDesperate }).toEqual({ isAvailable: false, isDesperate: true });
});

test("R23: a target whose address is this host's own is pending, in both families, also when the address comes later", async () => {
  stage.reconciler.configure(
    configurationOf([
      target(1),
      { identifier: 2, addresses: ["172.16.2.1"] },
      { identifier: 3, addresses: ["fd16:3::1"] },
    ]),
  );
  await servedAre(5001);
  expect(stage.states()).toEqual({ 1: "ready", 2: "pending ownAddress", 3: "pending ownAddress" });
  ip("addr add 172.16.1.2/32 dev lo");
  await servedAre();
  ip("addr del 172.16.1.2/32 dev lo");
  await servedAre(5001);
});

test("a target that no interface leads to is pending with the kernel's reason, and ready as soon as there is one", async () => {
  stage.reconciler.configure(configurationOf([target(1), { identifier: 9, addresses: ["192.0.2.9"] }]));
  await servedAre(5001);
  const lost = stage.reconciler.status().targets.find(({ identifier }) => identifier === 9)!;
  expect(`${lost.state} ${lost.cause}: ${lost.reason}`).toMatch(
    /^pending noRoute: ip -4 route .* 192\.0\.2\.9 .*(ENETUNREACH|invalid gateway)/,
  );
  const startMs = performance.now();
  ip("addr add 192.0.2.1/24 dev t1");
  expect((await servedAre(5001, 5009)) - startMs).toBeLessThan(LEAVE_MS);
});

test("R6, R7, O12: leftovers go, foreign objects stay, rules stand ahead of priority 100", async () => {
  run("ip", "rule", "add", "priority", "50", "fwmark", "7777", "lookup", "7777", "protocol", "90");
  run("ip", "route", "add", "default", "via", "172.16.1.9", "table", "7777", "proto", "90");
  run("ip", "route", "add", "default", "via", "172.16.1.9", "table", "5002", "proto", "90"); // another gateway
  run("ip", "rule", "add", "priority", "100", "from", "20.0.0.1", "lookup", "4096");
  await startServing();
  const rules = run("ip", "rule");
  expect(rules).not.toContain("7777");
  expect(run("ip", "route", "show", "table", "all")).not.toContain("172.16.1.9");
  expect(run("ip", "route", "show", "table", "5002")).toContain("via 172.16.2.2");
  const ours = rules.split("\n").filter((line) => line.includes("proto 90"));
  expect(ours).toHaveLength(COUNT);
  for (const line of ours) expect(Number.parseInt(line, 10)).toBeLessThan(100);
  expect(rules).toContain("100:\tfrom 20.0.0.1 lookup 4096");
  run("ip", "rule", "del", "priority", "100");
});

test("O15: a target with another address is led there in one step and keeps its slot", async () => {
  await startServing();
  peers[0]!.ip("addr add 172.16.1.7/24 dev eth0");
  stage.reconciler.configure(
    configurationOf([{ identifier: 1, addresses: ["172.16.1.7", "fd16:1::2"] }, target(2), target(3)]),
  );
  const route = () => run("ip", "route", "show", "table", "5001");
  await until("the route", () => {
    expect(stage.served()).toEqual([5001, 5002, 5003]);
    expect(route()).toMatch(/^default via 172\.16\.1\.[27] /);
    return route().includes("172.16.1.7") ? true : null;
  });
});

test("R19: what others delete is repaired within a second, logged and counted", async () => {
  await startServing();
  const repairs = () => stage.reconciler.status().repairs;
  const deleted = [
    ["ip", "rule", "del", "fwmark", "5001"],
    ["ip", "route", "del", "default", "table", "5002"],
    ["ip", "-6", "route", "flush", "table", "5003"],
    ["ip", "route", "replace", "default", "via", "172.16.1.2", "table", "5003"],
  ] as const;
  for (const [i, [command, ...args]] of deleted.entries()) {
    const before = repairs();
    const startMs = performance.now();
    run(command, ...args);
    await until(`repair ${i}`, () => (repairs() > before ? true : null));
    expect(performance.now() - startMs).toBeLessThan(1_000);
  }
  expect(stage.lines.filter(({ message }) => message === "repaired").length).toBeGreaterThanOrEqual(deleted.length);
  expect(run("ip", "route", "show", "table", "5003")).toContain("via 172.16.3.2");
});

test("R20: when the kernel's events run over everything is read anew, and what was lost is repaired", async () => {
  await startServing();
  const lines = Array.from(
    { length: 30_000 },
    (_, i) => `route add 10.${(i >> 14) & 255}.${(i >> 8) & 63}.${i & 255}/32 dev t1 table 999`,
  );
  ip(...lines.slice(0, 29_000), "rule del fwmark 5001", ...lines.slice(29_000)); // the event loop waits for it
  await until("the overrun", () => (stage.reconciler.status().overruns > 0 ? true : null));
  await until("the rule", () => (run("ip", "rule").includes("lookup 5001") ? true : null), 1_000);
  run("ip", "route", "flush", "table", "999");
});

test("R22: of two interfaces of one subnet the older one is set down, and its targets are led to the newer one", async () => {
  stage[Symbol.dispose]();
  stage = new ReconcilerStage(`/dev/shm/reconcile-${folders++}`, { ownInterfaces: "t" });
  await startServing();
  ip(
    `link add t9 type veth peer name eth9 netns ${peers[0]!.pid}`,
    "addr add 172.16.1.3/24 dev t9",
    "addr add fd16:1::3/64 dev t9 nodad",
    "link set t9 up",
  );
  peers[0]!.ip("link set eth9 up", "addr add fd16:1::2/64 dev eth9 nodad");
  const startMs = performance.now();
  await until("the route", () =>
    run("ip", "route", "show", "table", "5001").includes("dev t9") && stage.served().includes(5001) ? true : null,
  );
  expect(performance.now() - startMs).toBeLessThan(1_000);
  expect(run("ip", "-o", "link", "show", "t1")).toContain("state DOWN");
  expect(stage.reconciler.status().interfacesSetDown).toEqual(["t1"]);
  ip("link del t9");
});

test("R13, R14, R16, P7: without its frontend nothing is served and our interfaces are down; marks are the same when it is back", async () => {
  stage[Symbol.dispose]();
  stage = new ReconcilerStage(`/dev/shm/reconcile-${folders++}`, { ownInterfaces: "t1" });
  const { streams } = threeTargets;
  const two = { ...threeTargets, streams: [{ ...streams[0]!, name: "api" }, ...streams] };
  stage.reconciler.configure(two, true);
  await servedAre(5101, 5102, 5103);
  stage.reconciler.configure(threeTargets, false); // `api` leaves while nobody asks
  await until("eviction", () => (run("ip", "rule").includes("proto 90") ? null : true));
  expect(stage.served()).toEqual([]);
  const blocked = stage.reconciler.status();
  expect(blocked).toMatchObject({
    isAvailable: false,
    isFrontendAnnounced: false,
    flows: [],
    interfacesSetDown: ["t1"],
  });
  expect(run("nft", "list", "set", "inet", "meridio-nfqlb", "ipv4-vips")).toContain("20.0.0.1"); // dropped, not routed
  expect(blocked.streams.map(({ name, offset }) => [name, offset])).toEqual([["web", 5100]]);
  stage.reconciler.configure(threeTargets, true);
  await servedAre(5102, 5103);
  expect(stage.states()[1]).toBe("pending noRoute"); // an interface that was set down is not set up again
});

test("R1, R2, R11: a table or rules that do not fit are told, the rest goes on, and they come as soon as there is room", async () => {
  stage[Symbol.dispose]();
  const folder = `/dev/shm/reconcile-${folders++}`;
  mkdirSync(folder);
  run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder);
  stage = new ReconcilerStage(folder);
  await startServing();
  const flow = threeTargets.flows[0]!;
  const flows = [flow, ...Array.from({ length: 4_000 }, (_, i) => ({ ...flow, name: `${"a".repeat(200)}${i}` }))];
  const big = { ...threeTargets.streams[0]!, name: "big", maxTargets: 5_000 };
  stage.reconciler.configure({ ...threeTargets, flows, streams: [big, ...threeTargets.streams] });
  const status = () => stage.reconciler.status();
  await until("the failure", () => ((status().lastTurn?.failures.length ?? 0) > 0 ? true : null));
  const [bigFails, flowsFail] = status().lastTurn!.failures;
  expect(bigFails).toMatch(/^tshm-big: .*ENOSPC/);
  expect(flowsFail).toMatch(/^nfqlb-flows: .*ENOSPC/);
  expect(status().streams.find(({ name }) => name === "big")!.fault).toContain("ENOSPC");
  expect(stage.served()).toEqual([5001, 5002, 5003]);
  expect(stage.reconciler.inForce()).toEqual([{ name: "web", flows: 1, ready: 3 }]);
  expect(status().refusedFlows).toHaveLength(4_000);
  expect(status().refusedFlows[0]!.reason).toMatch(/^flow rules: .*ENOSPC/);
  expect(readFlows(folder, "nfqlb-flows").rules.map(({ rule }) => rule.name)).toEqual(["tshm-web-f"]);
  run("mount", "-o", "remount,size=64m", folder);
  await until("the table", () => (readdirSync(folder).includes("tshm-big") ? true : null));
  await until("all is well", () => (status().lastTurn!.failures.length === 0 ? true : null));
  expect(readFlows(folder, "nfqlb-flows").rules).toHaveLength(4_001);
});

test("R1, O7: a stream whose table cannot be made is told nowhere as served, until there is room", async () => {
  stage[Symbol.dispose]();
  const folder = `/dev/shm/reconcile-${folders++}`;
  mkdirSync(folder);
  run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder);
  stage = new ReconcilerStage(folder);
  stage.reconciler.configure(configurationOf([target(1)], 5_000));
  const status = () => stage.reconciler.status();
  await until("the failure", () => ((status().lastTurn?.failures.length ?? 0) > 0 ? true : null));
  const words = () => stage.lines.filter(({ data }) => data["instance"] === "web" || data["stream"] === "web");
  expect(stage.reconciler.inForce()).toEqual([]);
  expect(status()).toMatchObject({
    isAvailable: false,
    streams: [{ ready: 0, pending: 1, fault: expect.stringContaining("ENOSPC") }],
    targets: [{ state: "pending", cause: "notServed", reason: "its stream's table is not in force", isServed: false }],
  });
  expect(words()).toEqual([]);
  run("mount", "-o", "remount,size=64m", folder);
  await until("the table", () => (status().isAvailable ? true : null));
  expect(stage.reconciler.inForce()).toEqual([{ name: "web", flows: 1, ready: 1 }]);
  expect(status().targets).toMatchObject([{ state: "ready", isServed: true }]);
  expect(words().map(({ message }) => message)).toEqual(["Create LB stream", "Added target"]);
});

test("R12: a stream that goes while it is being made leaves nothing behind, at whatever moment", async () => {
  const none = { ...threeTargets, streams: [], flows: [], targets: [] };
  for (let round = 0; round < 12; round++) {
    stage.reconciler.configure(threeTargets);
    for (let turn = 0; turn < round % 4; turn++) await new Promise((resolve) => setImmediate(resolve));
    stage.reconciler.configure(none);
  }
  await until("the end", () => (run("ip", "rule").includes("proto 90") || stage.served().length > 0 ? null : true));
  expect(run("ip", "route", "show", "table", "all")).not.toContain("proto 90");
  expect(stage.reconciler.status()).toMatchObject({ streams: [], targets: [] });
});
