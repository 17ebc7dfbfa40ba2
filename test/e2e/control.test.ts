import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { readStreamTable } from "#tables";
import { Balancer, SHM, until } from "../harness/balancer.js";
import { ROOT } from "../harness/bundled.js";
import { FLOWS } from "../harness/flows.js";
import { enterFreshNamespaces, ip, run } from "../harness/namespace.js";
import { NspProgram } from "../harness/nsp-program.js";
import { type Account, Topology } from "../harness/topology.js";

const TARGETS = [0, 1, 2];
const MARKS = [5001, 5002, 5003];
const RATE = 10_000;
const REGISTRATION_SECONDS = 10;
const bin = join(ROOT, "bin");
let topology: Topology;
let nsp: NspProgram;
let balancer: Balancer;
let ENV: Record<string, string>;
let folders = 0;

/** For the tables of a program of its own. */
function folder(): string {
  const path = join(SHM, `other-${folders++}`);
  mkdirSync(path);
  return path;
}

beforeAll(async () => {
  enterFreshNamespaces();
  topology = await Topology.create(join(ROOT, "build"), TARGETS.length + 1);
  nsp = new NspProgram(bin, topology);
  ENV = {
    NSM_MESH_ENABLED: "false",
    NSM_NSP_INSECURE: "true",
    NSM_NSP_SERVICE: nsp.address,
    NSM_TRENCH_NAME: "demo",
    NSM_NFQUEUE: "7",
    NSM_NFQUEUE_LENGTH: "8192",
    NSM_GRPC_MAX_BACKOFF: "100ms",
    NSM_SOCKET: "",
    NSM_HEALTH_SOCKET: "",
    NSM_DRAIN_TIME: "3s",
  };
  balancer = new Balancer(bin, topology, ENV, []);
  balancer.configure(TARGETS);
  await nsp.start();
  await nsp.frontend(true);
  await balancer.start(TARGETS.length);
});

afterAll(() => {
  balancer[Symbol.dispose]();
  nsp[Symbol.dispose]();
  topology.close();
});

beforeEach(() => balancer.untilActive(TARGETS.length));

const marks = () => {
  try {
    return [...readStreamTable(SHM, "tshm-web").active].filter((fwmark) => fwmark >= 0);
  } catch {
    return [];
  }
};
const untilMarks = (...wanted: number[]) =>
  until(`marks ${wanted.join()}`, () => (marks().join() === wanted.join() ? true : null));

/** Sends for `seconds` while `act` happens, and accounts for every packet. */
async function during(seconds: number, act: () => Promise<void>): Promise<Account> {
  const sending = topology.sendUdp(4, RATE, RATE * seconds);
  await delay(400); // the first packets are on their way
  await act();
  const { firstId, sent } = await sending;
  const account = await topology.account(firstId, sent);
  expect(account.duplicates).toBe(0);
  return account;
}

/** From the first to the last packet lost, in ms of traffic. */
const holeMs = ({ lostIds }: Account) =>
  lostIds.length === 0 ? 0 : ((lostIds.at(-1)! - lostIds[0]! + 1) / RATE) * 1000;
const flowsOf = ({ lostIds }: Account) => new Set(lostIds.map((id) => id % FLOWS));

/** Where every flow goes while all is well. */
async function steady(): Promise<Account> {
  const account = await during(1, async () => {});
  expect(account.lost).toBe(0);
  return account;
}

test("frontend flaps: nothing is served without it, and the same marks and targets are back with it", async () => {
  const before = await steady();
  let awayMs = 0;
  const account = await during(3, async () => {
    const startMs = performance.now();
    await nsp.frontend(false);
    await untilMarks();
    await nsp.frontend(true);
    await untilMarks(...MARKS);
    awayMs = performance.now() - startMs;
  });
  console.log(
    `frontend away for ${awayMs.toFixed(0)} ms: ${account.lost} packets lost, in ${holeMs(account).toFixed(0)} ms`,
  );
  expect(account.lost).toBeGreaterThan(0);
  expect(holeMs(account)).toBeLessThan(awayMs + 100);
  expect((await steady()).targetOfFlow).toEqual(before.targetOfFlow);
});

test("the NSP is killed and comes back under traffic: no packet is lost, no flow moves", async () => {
  const before = await steady();
  const account = await during(3, async () => {
    await nsp.kill();
    await delay(300);
    await nsp.start();
    await until("the watches", () => (balancer.output.split("NSP connected").length > 2 ? true : null));
  });
  expect(account.lost).toBe(0);
  expect(account.targetOfFlow).toEqual(before.targetOfFlow);
});

test("R10: a target's link flaps under traffic: only its own flows lose packets, for less than half a second", async () => {
  const before = await steady();
  const account = await during(3, async () => {
    topology.hosts.targets[1]!.ip("link set eth0 down");
    await untilMarks(5001, 5003);
    topology.hosts.targets[1]!.ip("link set eth0 up", "addr add fd16:2::2/64 dev eth0 nodad");
    await untilMarks(...MARKS);
  });
  console.log(`link flap: ${account.lost} packets lost, in ${holeMs(account).toFixed(0)} ms`);
  expect(holeMs(account)).toBeLessThan(500); // nearly a second if it came back before its neighbor had answered
  for (const flow of flowsOf(account)) expect(before.targetOfFlow[flow]).toBe(1);
  expect((await steady()).targetOfFlow).toEqual(before.targetOfFlow);
});

test("D10, O16: a target is replaced behind the same address under traffic: less than a second of its flows is lost", async () => {
  const before = await steady();
  const host = topology.hosts.targets[2]!;
  let awayMs = 0;
  const account = await during(3, async () => {
    const startMs = performance.now();
    ip("link del t3");
    await untilMarks(5001, 5002);
    ip(
      `link add t3 type veth peer name eth0 netns ${host.pid}`, // another link, another link-layer address
      "addr add 172.16.3.1/24 dev t3",
      "addr add fd16:3::1/64 dev t3 nodad",
      "link set t3 up",
    );
    host.ip("addr add 172.16.3.2/24 dev eth0", "addr add fd16:3::2/64 dev eth0 nodad", "link set eth0 up");
    await untilMarks(...MARKS);
    awayMs = performance.now() - startMs;
  });
  console.log(`replaced in ${awayMs.toFixed(0)} ms: ${account.lost} packets lost, in ${holeMs(account).toFixed(0)} ms`);
  expect(holeMs(account)).toBeLessThan(1_000);
  for (const flow of flowsOf(account)) expect(before.targetOfFlow[flow]).toBe(2);
  expect((await steady()).targetOfFlow).toEqual(before.targetOfFlow);
});

test("R19: an operator deletes rules, routes and nft tables under traffic: each is healed within a second", async () => {
  const before = await steady();
  const deeds: Readonly<Record<string, () => void>> = {
    rules: () => execFileSync("ip", ["rule", "flush"]),
    routes: () => {
      for (const mark of MARKS) run("ip", "route", "flush", "table", String(mark));
    },
    "nft queue table": () => run("nft", "delete table inet meridio-nfqlb"),
    "nft metrics table": () => run("nft", "delete table inet meridio-metrics"),
  };
  for (const [name, deed] of Object.entries(deeds)) {
    const account = await during(2, async () => {
      deed();
      if (name === "rules") run("ip", "rule", "add", "priority", "32766", "lookup", "main");
    });
    console.log(`${name} deleted: ${account.lost} packets lost, in ${holeMs(account).toFixed(0)} ms`);
    expect(holeMs(account)).toBeLessThan(1_000);
  }
  expect((await steady()).targetOfFlow).toEqual(before.targetOfFlow);
});

test("from a target's registration to the first packet that it gets: p99 below 50 ms, and none is lost", async () => {
  const fourth = TARGETS.length; // one that is not in the file, at addresses that nobody has asked for
  const addresses = Array.from({ length: 90 }, (_, i) => `172.16.4.${100 + i}`);
  topology.hosts.targets[fourth]!.ip(...addresses.map((address) => `addr add ${address}/24 dev eth0`));
  const times: number[] = [];
  const account = await during(REGISTRATION_SECONDS, async () => {
    const endMs = performance.now() + (REGISTRATION_SECONDS - 1) * 1_000;
    for (let i = 0; performance.now() < endMs; i++) {
      const [identifier, address] = [10 + (i % 90), addresses[i % 90]!];
      await nsp.target(identifier, address, "announce");
      const next = topology.nextPacketAtNs(fourth);
      const startNs = process.hrtime.bigint();
      const enabled = nsp.target(identifier, address, "enable");
      times.push(Number((await next) - startNs) / 1e6);
      await enabled;
      await nsp.target(identifier, address, "remove");
      await untilMarks(...MARKS);
      await topology.untilIdle(fourth);
    }
  });
  const sorted = times.toSorted((a, b) => a - b);
  const [median, p99] = [0.5, 0.99].map((part) => sorted[Math.floor(part * sorted.length)]!);
  console.log(
    `registration to first packet, ${times.length} targets: median ${median!.toFixed(1)} ms, p99 ${p99!.toFixed(1)} ms`,
  );
  expect(times.length).toBeGreaterThan(100);
  expect(p99).toBeLessThan(50);
  expect(account.lost).toBe(0);
});

test("D6, O16: 200 changes of targets per second for a minute: no packet is lost, memory stays", async () => {
  const residentKb = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${balancer.pid}/status`, "utf8"))![1]);
  const addresses = Array.from({ length: 40 }, (_, i) => `172.16.3.${100 + i}`);
  topology.hosts.targets[2]!.ip(...addresses.map((address) => `addr add ${address}/24 dev eth0`)); // they lead to the third target
  for (const [i, address] of addresses.entries()) await nsp.target(50 + i, address, "announce");
  let changes = 0;
  let before = 0;
  const account = await during(61, async () => {
    const startMs = performance.now();
    for (let round = 0; performance.now() - startMs < 60_000; round++) {
      const act = round % 2 === 0 ? "enable" : "announce"; // an announcement disables
      if (round % 50 === 0) await nsp.frontend(true); // a registration ends after a minute unless it is repeated
      for (const [i, address] of addresses.entries()) {
        await nsp.target(50 + i, address, act);
        changes++;
        const aheadMs = changes * 5 - (performance.now() - startMs);
        if (aheadMs > 1) await delay(aheadMs);
      }
      if (before === 0 && performance.now() - startMs > 10_000) before = residentKb(); // the heap has its size by then
    }
  });
  const grownKb = residentKb() - before;
  console.log(
    `${changes} changes in 60 s: ${account.lost} of ${account.sent} packets lost, ${before} KiB resident after 10 s, ${before + grownKb} at the end`,
  );
  expect(account.lost).toBe(0);
  expect(changes).toBeGreaterThan(9_000);
  expect(grownKb).toBeLessThan(20_000); // what is reachable is measured in test/netns/reconcile-load.test.ts;
  for (const [i, address] of addresses.entries()) await nsp.target(50 + i, address, "remove");
});

test("D7, O13: the end is told first and packets are served on, though the frontend ends too; a second signal ends the wait", async () => {
  for (const hurries of [false, true]) {
    const startMs = performance.now();
    const ended = balancer.stop();
    await until("the drain", () => (balancer.output.includes("draining") ? true : null));
    await nsp.frontend(hurries); // a pod that ends takes both away
    if (!hurries) {
      const screen = () => spawnSync(join(bin, "stateless-lb"), ["status"], { encoding: "utf8" }).stdout;
      await expect.poll(screen, { timeout: 2_000 }).toMatch(/control plane +WAIT +.*; it ends, packets are served/);
      expect(screen()).toMatch(/availability +WAIT +frontends are told to send none/);
    }
    const { firstId, sent } = await topology.sendUdp(4, RATE, RATE / 2);
    expect((await topology.account(firstId, sent)).lost).toBe(0);
    if (hurries) process.kill(balancer.pid, "SIGTERM");
    expect(await ended).toBe(0);
    const tookMs = performance.now() - startMs;
    if (!hurries) expect(tookMs).toBeGreaterThanOrEqual(3_000);
    else expect(tookMs).toBeLessThan(3_000);
    expect(balancer.dataPlane()).toBeNull();
    expect(execFileSync("ip", ["rule"], { encoding: "utf8" })).not.toContain("proto 90");
    balancer.output = "";
    await nsp.frontend(true);
    await balancer.start(TARGETS.length);
  }
});

/** Folder of a program that runs in a network namespace of its own: in this one another control plane runs. */
function aside(): string {
  const own = folder();
  const script = `#!/bin/sh\nexec unshare -n ${join(bin, "stateless-lb")} "$@"\n`;
  writeFileSync(join(own, "stateless-lb"), script, { mode: 0o755 });
  return own;
}

test("R17: a signal ends the wait for an NSP that never was there, within a second", async () => {
  const env = { ...ENV, NSM_NSP_SERVICE: "unix:/nobody", NFQLB_SHM_DIR: folder() };
  const waiting = new Balancer(aside(), topology, env, []);
  waiting.launch();
  await until("the wait", () => (waiting.output.includes("data plane started") ? true : null));
  const startMs = performance.now();
  expect(await waiting.stop()).toBe(0);
  expect(performance.now() - startMs).toBeLessThan(1_000);
});

test("D8: a data plane that keeps dying is started again for a while, then the program ends as failed", async () => {
  const own = folder();
  const doomed = new Balancer(aside(), topology, { ...ENV, NFQLB_PROGRAM: "/bin/false", NFQLB_SHM_DIR: own }, []);
  doomed.launch();
  await until("the failure", () => (doomed.output.includes("the data plane keeps dying") ? true : null), 20_000);
  expect(await doomed.stop()).toBe(1);
  const told = JSON.parse(readFileSync(join(own, "stateless-lb-status.json"), "utf8")) as object;
  expect(told).toMatchObject({ phase: "ended", failure: "the data plane keeps dying: exit code 1" });
});

test("the NSP is away for the whole run: what the last run knew is served, under traffic", async () => {
  const before = await steady();
  await nsp.kill();
  process.kill(balancer.pid, "SIGTERM");
  expect(await balancer.stop()).toBe(0);
  await balancer.start(TARGETS.length);
  expect((await steady()).targetOfFlow).toEqual(before.targetOfFlow);
  await nsp.start();
});
