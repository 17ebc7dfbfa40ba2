// The reconcile loop on a real kernel: what was changed behind its back is put right, told and counted.
import { rmSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeAll, expect, test } from "vitest";
import { Reconciler } from "#control";
import { parseFlowRule } from "#flow";
import type { Configuration } from "#model";
import { Steering } from "#steering";
import { deleteRegion, readFlows, readStreamTable, updateFlows, updateStreamTable } from "#tables";
import { enterFreshNamespaces, type Host, ip, makeHost, run } from "../harness/namespace.js";

const FOLDER = "/dev/shm";
let peer: Host;

/** Counts how often the kernel was read, once per turn, and read back. */
class CountingSteering extends Steering {
  reads = 0;
  verifications = 0;
  override verify() {
    this.verifications++;
    return super.verify();
  }
  override read() {
    this.reads++;
    return super.read();
  }
}

const vips = [{ name: "v4", prefix: "10.0.0.1/32" }];
const configuration: Configuration = {
  conduit: { name: "c", trench: "t", portNats: [{ protocol: "udp", port: 80, targetPort: 8080, vips }] },
  vips,
  streams: [{ name: "s", conduit: "c", maxTargets: 4 }],
  flows: [],
  targets: [{ stream: "s", identifier: 1, addresses: ["172.16.0.2", "fd00::2"] }],
};

type Entry = { readonly message: string; readonly data?: Readonly<Record<string, unknown>> | undefined };
type Run = { readonly reconciler: Reconciler; readonly steering: CountingSteering; readonly log: Entry[] };
const running: Run[] = [];

function start(verifyIntervalMs: number, isWatching: boolean): Run {
  const log: Entry[] = [];
  const keep = (message: string, data?: Entry["data"]) => log.push({ message, data });
  const steering = new CountingSteering();
  const reconciler = new Reconciler({
    steering,
    place: { folder: FOLDER, flowsName: "nfqlb-flows", countOf: () => 0 },
    kernelPlace: { queue: { first: 0, last: 3, isFanout: false }, targetInterfaces: "load-balan" },
    offsetPlacement: { start: 5000, isByName: false },
    probeIntervalMs: 0,
    ownInterfaces: null,
    nowMs: () => performance.now(),
    isDataPlaneReady: () => true,
    verifyIntervalMs,
    log: { trace: () => {}, debug: keep, info: keep, warning: keep, error: keep },
  });
  if (isWatching) reconciler.start();
  const one = { reconciler, steering, log };
  running.push(one);
  return one;
}

beforeAll(async () => {
  enterFreshNamespaces();
  peer = await makeHost();
  ip(
    `link add t0 type veth peer name eth0 netns ${peer.pid}`,
    "addr add 172.16.0.1/16 dev t0",
    "addr add fd00::1/64 dev t0 nodad",
    "link set t0 addrgenmode none", // an address of the kernel's own would come in the middle of a test
    "link set t0 up",
  );
  peer.ip("link set eth0 up");
  return () => peer.close();
});

afterEach(() => {
  for (const { reconciler, steering } of running.splice(0)) {
    reconciler.stop();
    reconciler.cleanUp();
    steering[Symbol.dispose]();
  }
});

const lines = (text: string) => text.split("\n").toSorted().join("\n");
const state = () =>
  lines(
    [
      run("nft", "list", "ruleset"),
      run("ip", "rule"),
      run("ip", "-6", "rule"),
      run("ip", "route", "show", "table", "all"),
    ].join("\n"),
  );
/** Waits until a turn has begun after now. */
const nextTurn = async ({ steering }: Run) => {
  const { reads } = steering;
  await expect.poll(() => steering.reads, { timeout: 5_000 }).toBeGreaterThan(reads);
};

/** Tables that were made beside ours. */
let otherTables = 0;

async function settled(one: Run): Promise<string> {
  one.reconciler.configure(configuration);
  await expect.poll(() => run("nft", "list", "ruleset"), { timeout: 5_000 }).toContain("elements = { 10.0.0.1 }");
  run("nft", `add table inet others-${++otherTables}`); // an event that is nobody's fault; adding one that is there makes none
  await nextTurn(one);
  return state();
}
const repairs = ({ log }: Run) => log.filter(({ message }) => message === "repaired").map(({ data }) => data!);

test("a reading back that finds nothing is no turn; a table in memory that somebody else wrote is put right by one", async () => {
  const one = start(40, true);
  await settled(one);
  const { steering } = one;
  const first = { reads: steering.reads, verifications: steering.verifications };
  await expect.poll(() => steering.verifications, { timeout: 5_000 }).toBeGreaterThan(first.verifications + 12);
  // Every sixth reads neighbors too, and is followed by a turn.
  const due = Math.ceil((steering.verifications - first.verifications) / 6);
  expect(steering.reads - first.reads).toBeLessThanOrEqual(due + 1);
  const served = () => [...readStreamTable(FOLDER, "tshm-s").active];
  const before = served();
  expect(before).toContain(5_001);
  updateStreamTable(FOLDER, "tshm-s", (active) => active.fill(-1));
  await expect.poll(served, { timeout: 1_000 }).toEqual(before);
  expect(one.reconciler.status().driftsFound).toBe(0);
});

test("R19: rules, routes, nft tables and elements that vanish come back on the kernel's word; a repair is told and counted", async () => {
  const one = start(60_000, true);
  const before = await settled(one);
  expect(one.reconciler.status().repairs).toBe(0);
  expect(repairs(one)).toEqual([]);
  const hands = [
    ["nft", "delete table inet meridio-nat"],
    ["nft", "insert rule inet meridio-nfqlb nfqlb drop"],
    ["nft", "delete element inet meridio-nfqlb ipv4-vips { 10.0.0.1 }"],
    ["ip", "rule", "del", "fwmark", "5001"],
    ["ip", "route", "flush", "table", "5001"],
  ] as const;
  for (const [i, [command, ...args]] of hands.entries()) {
    const startMs = performance.now();
    run(command, ...args);
    await expect.poll(state, { timeout: 5_000, interval: 5 }).toBe(before);
    expect(performance.now() - startMs).toBeLessThan(1_000);
    await expect.poll(() => one.reconciler.status().repairs).toBe(i + 1);
  }
  expect(repairs(one)).toHaveLength(hands.length);
  expect(repairs(one)[2]).toMatchObject({
    kernel: ["nft add element inet meridio-nfqlb ipv4-vips { 10.0.0.1 }"],
    repairs: 3,
  });
});

test("R19: what no event tells of is found by reading back", async () => {
  const one = start(50, false);
  const before = await settled(one);
  run("nft", "flush chain inet meridio-nfqlb nfqlb");
  await expect.poll(state, { timeout: 5_000 }).toBe(before);
  await expect.poll(() => one.reconciler.status().repairs).toBe(1);
});

test("R19: tables and flow rules that others change or delete are put right within seconds, told and counted", async () => {
  const flow = { name: "f", stream: "s", priority: 1, protocols: ["tcp" as const], vips };
  const any = { sourcePrefixes: [], destinationPorts: [], sourcePorts: [], byteMatches: [] };
  const one = start(600_000, true);
  one.reconciler.configure({ ...configuration, flows: [{ ...flow, ...any }] });
  const inForce = () => {
    try {
      const rules = readFlows(FOLDER, "nfqlb-flows").rules.map(({ rule }) => rule.name);
      return [readStreamTable(FOLDER, "tshm-s").active[0], ...rules].join();
    } catch (error) {
      return (error as Error).message;
    }
  };
  await expect.poll(inForce, { timeout: 5_000 }).toBe("5001,tshm-s-f");
  expect(one.reconciler.status().repairs).toBe(0);
  const theirs = parseFlowRule({ name: "by-hand", target: "tshm-s", priority: "5", protocols: "udp" });
  updateFlows(
    FOLDER,
    "nfqlb-flows",
    (rules) => [theirs, ...rules],
    () => 0,
  ); // an operator's own rule stays, and is none
  const hands: readonly (readonly [string, () => unknown])[] = [
    ["table tshm-s published", () => updateStreamTable(FOLDER, "tshm-s", (active) => active.fill(-1))], // nfqlb deactivate
    ["table tshm-s created", () => deleteRegion(FOLDER, "tshm-s")], // nfqlb delete
    [
      "1 flow rules published",
      () =>
        updateFlows(
          FOLDER,
          "nfqlb-flows",
          () => [theirs],
          () => 0,
        ),
    ], // nfqlb flow-delete
    ["table tshm-s created", () => rmSync(join(FOLDER, "tshm-s"))],
    ["1 flow rules published", () => rmSync(join(FOLDER, "nfqlb-flows"))],
  ];
  for (const [i, [told, act]] of hands.entries()) {
    act();
    expect(inForce()).not.toBe("5001,by-hand,tshm-s-f");
    const startMs = performance.now();
    await expect
      .poll(inForce, { timeout: 5_000, interval: 5 })
      .toContain(i < 4 ? "5001,by-hand,tshm-s-f" : "5001,tshm-s-f");
    expect(performance.now() - startMs).toBeLessThan(3_000);
    await expect.poll(() => repairs(one).length).toBe(i + 1);
    expect(repairs(one)[i]!["tables"]).toContain(told);
  }
  expect(one.reconciler.status().lastRepair!.commands).toEqual(["1 flow rules published"]);
});

test("a change of the configuration is no repair", async () => {
  const one = start(60_000, true);
  await settled(one);
  one.reconciler.configure({ ...configuration, vips: [{ name: "v4", prefix: "10.0.0.2/32" }], targets: [] });
  await expect.poll(() => run("nft", "list", "ruleset"), { timeout: 5_000 }).toContain("elements = { 10.0.0.2 }");
  await expect.poll(() => run("ip", "rule")).not.toContain("5001");
  expect(one.reconciler.status().repairs).toBe(0);
});

test("R5: a target with two addresses of one family is refused, with the reason, once; the others go on", async () => {
  const one = start(50, true);
  const both = { stream: "s", identifier: 2, addresses: ["172.16.0.3", "172.16.0.4"] };
  one.reconciler.configure({ ...configuration, targets: [...configuration.targets, both] });
  await expect.poll(() => run("nft", "list", "ruleset"), { timeout: 5_000 }).toContain("elements = { 10.0.0.1 }");
  await nextTurn(one);
  await nextTurn(one);
  expect(one.log.filter(({ message }) => message === "target refused")).toEqual([
    {
      message: "target refused",
      data: {
        name: "172.16.0.3,172.16.0.4",
        fwmark: 5002,
        error: "several addresses of one family: only one default route fits into a target's routing table",
      },
    },
  ]);
  expect(readStreamTable(FOLDER, "tshm-s").active.slice(0, 2)).toEqual(Int32Array.of(5001, -1));
  expect(run("ip", "rule")).not.toContain("5002");
  expect(one.reconciler.status().repairs).toBe(0);
});
