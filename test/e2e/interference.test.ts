// What somebody's hand, or a target that never was there, does to packets: real programs, real traffic, each packet
// accounted for.
import { spawnSync } from "node:child_process";
import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Balancer, until } from "../harness/balancer.js";
import { ROOT } from "../harness/bundled.js";
import { type Family, FLOWS } from "../harness/flows.js";
import { enterFreshNamespaces, run } from "../harness/namespace.js";
import { type Account, configurationFile, Topology } from "../harness/topology.js";

const TARGETS = [0, 1, 2];
const RATE = 4_000;
/** The kernel asks three times, so long apart; a second, unless set, would make the tests longer. */
const RETRANS_MS = 100;
/** A round in vain, our turn, and what a busy machine needs. */
const OUT_MS = 3 * RETRANS_MS + 700;
const bin = join(ROOT, "bin");
let topology: Topology;
let balancer: Balancer;

beforeAll(async () => {
  enterFreshNamespaces();
  topology = await Topology.create(join(ROOT, "build"), TARGETS.length);
  for (const family of ["ipv4", "ipv6"]) {
    writeFileSync(`/proc/sys/net/${family}/fwmark_reflect`, "1");
    writeFileSync(`/proc/sys/net/${family}/neigh/t1/retrans_time_ms`, String(RETRANS_MS));
  }
  balancer = new Balancer(bin, topology, { NSM_NFQUEUE: "7", NSM_NFQUEUE_LENGTH: "8192" });
  balancer.configure(TARGETS);
  await balancer.start(TARGETS.length);
  // A question that is asked into a link that is hardly up waits for its repetition, and most packets of that second are lost.
  for (const family of [4, 6] as const) await topology.sendUdp(family, RATE, RATE / 10);
  await until("answers of all targets", () => {
    const answered = run("ip", "neigh").match(/^(172\.16|fd16:).*lladdr/gm) ?? [];
    return new Set(answered.map((line) => line.split(" ")[0])).size === 2 * TARGETS.length ? true : null;
  });
});

afterAll(() => {
  balancer[Symbol.dispose]();
  topology.close();
});

beforeEach(() => balancer.untilActive(TARGETS.length));

/** Replaces the configuration file; what is appended are targets. */
function configure(more: string): void {
  const path = join(topology.folder, "stateless-lb.yaml");
  writeFileSync(`${path}.new`, configurationFile(TARGETS) + more);
  renameSync(`${path}.new`, path);
}

/** Sends for `seconds`, has `act` done meanwhile, and accounts. */
async function underTraffic(family: Family, seconds: number, act: () => Promise<void>): Promise<Account> {
  const sending = topology.sendUdp(family, RATE, RATE * seconds);
  await delay(200); // so that the beginning is ordinary traffic
  await act();
  const { firstId, sent } = await sending;
  return topology.account(firstId, sent);
}

/** Whatever its exit code says. */
const status = () => spawnSync(join(bin, "stateless-lb"), ["status"], { encoding: "utf8" }).stdout;
const saysStatus = (text: string) => until(text, () => (status().includes(text) ? true : null));
/** Time between the first packet lost and the last. */
const lossMs = ({ lostIds }: Account) => ((lostIds.at(-1)! - lostIds[0]!) * 1000) / RATE;
const flowsOf = ({ lostIds }: Account) => new Set(lostIds.map((id) => id % FLOWS));

test.each([
  [4, "172.16.1.77/24", "fd16:1::2/64", "172.16.1.77 does not answer on t1"],
  [6, "172.16.1.2/24", "fd16:1::77/64", "fd16:1::77 does not answer on t1"],
] as const)(
  "a new target that does not answer is out after the kernel's first round, IPv%s, and in when it is there",
  async (family, v4, v6, reason) => {
    const dead = family === 4 ? v4 : v6;
    const before = await underTraffic(family, 1, async () => {});
    expect(before).toMatchObject({ lost: 0, duplicates: 0 });
    const during = await underTraffic(family, 2, async () => {
      configure(`  - { stream: web, identifier: 4, ips: ["${v4}", "${v6}"] }\n`);
      await until("the new target", () => (balancer.activeTargets() === 4 ? true : null));
      const startMs = performance.now();
      await until("its end", () => (balancer.activeTargets() === 3 ? true : null));
      expect(performance.now() - startMs).toBeLessThan(OUT_MS);
      await saysStatus(reason);
    });
    // Lost are packets of the flows that it had, as long as it had them; all others went where they always go.
    expect(during.duplicates).toBe(0);
    expect(flowsOf(during).size).toBeLessThan(FLOWS / 3);
    expect(lossMs(during)).toBeLessThan(OUT_MS);
    const moved = [...during.targetOfFlow].filter((target, flow) => target !== before.targetOfFlow[flow]);
    expect(moved.length).toBeLessThan(FLOWS / 20); // the small Maglev extra
    topology.hosts.targets[0]!.ip(`addr add ${dead} dev eth0 ${family === 6 ? "nodad" : ""}`);
    await until("its beginning", () => (balancer.activeTargets() === 4 ? true : null));
    expect(await underTraffic(family, 1, async () => {})).toMatchObject({ lost: 0, duplicates: 0 });
    configure("");
    await balancer.untilActive(3);
    topology.hosts.targets[0]!.ip(`addr del ${dead} dev eth0`);
  },
);

test("a target that dies while somebody flushes neighbors leaves, and the others lose nothing", async () => {
  const before = await underTraffic(4, 1, async () => {});
  const during = await underTraffic(4, 2, async () => {
    topology.hosts.targets[0]!.ip("link set eth0 arp off");
    const startMs = performance.now();
    await until("its end", () => {
      run("ip", "neigh", "flush", "dev", "t1");
      return balancer.activeTargets() === 2 ? true : null;
    });
    expect(performance.now() - startMs).toBeLessThan(OUT_MS);
  });
  for (const flow of flowsOf(during)) expect(before.targetOfFlow[flow]).toBe(0);
  topology.hosts.targets[0]!.ip("link set eth0 arp on");
  await balancer.untilActive(3);
  expect(await underTraffic(4, 1, async () => {})).toMatchObject({ lost: 0, targetOfFlow: before.targetOfFlow });
});

test("entries of neighbors that answer are deleted again and again: no target leaves, no packet is lost", async () => {
  let fewest = TARGETS.length;
  const account = await underTraffic(4, 2, async () => {
    for (let round = 0; round < 20; round++) {
      for (const n of [1, 2, 3]) {
        const entry = [`172.16.${n}.2`, "dev", `t${n}`];
        await until("an answer", () => (/lladdr/.test(run("ip", "neigh", "show", ...entry)) ? true : null));
        run("ip", "neigh", "del", ...entry);
        fewest = Math.min(fewest, balancer.activeTargets());
      }
    }
  });
  expect(fewest).toBe(TARGETS.length);
  expect(account).toMatchObject({ lost: 0, duplicates: 0 });
});

/** What a hand does, and the repair. */
const HANDS = [
  [
    "a table of nftables is put to sleep",
    ["nft", "add table inet meridio-nfqlb { flags dormant; }"],
    "nft add table inet meridio-nfqlb",
  ],
  [
    "a route is led to another link",
    ["ip", "route", "replace", "default", "via", "172.16.1.2", "dev", "t2", "onlink", "table", "5001", "proto", "90"],
    "ip -4 route replace default via 172.16.1.2 table 5001 proto 90",
  ],
] as const;

test.each(HANDS)(
  "R19: %s under traffic: healed within a second, told and counted",
  async (_, [command, ...args], repair) => {
    const account = await underTraffic(4, 2, async () => {
      run(command, ...args);
      await saysStatus(repair);
    });
    expect(account.duplicates).toBe(0);
    if (account.lost > 0) expect(lossMs(account)).toBeLessThan(1_000);
    expect(await underTraffic(4, 1, async () => {})).toMatchObject({ lost: 0, duplicates: 0 });
    await saysStatus("Everything works.");
  },
);

test("R19: a route of somebody else's in a target's table takes the target out, untouched, and both agree about it", async () => {
  const before = await underTraffic(4, 1, async () => {});
  const route = ["blackhole", "10.0.0.1/32", "table", "5001"];
  const account = await underTraffic(4, 2, async () => {
    run("ip", "route", "add", ...route);
    await until("its end", () => (balancer.activeTargets() === 2 ? true : null));
    await saysStatus("a route that is not ours takes its packets: blackhole 10.0.0.1/32 table 5001");
  });
  for (const flow of flowsOf(account)) expect(before.targetOfFlow[flow]).toBe(0);
  if (account.lost > 0) expect(lossMs(account)).toBeLessThan(1_000);
  expect(await underTraffic(4, 1, async () => {})).toMatchObject({ lost: 0, duplicates: 0 });
  expect(run("ip", "route", "show", "table", "5001")).toContain("blackhole 10.0.0.1");
  run("ip", "route", "del", ...route);
  await balancer.untilActive(3);
  expect(await underTraffic(4, 1, async () => {})).toMatchObject({ lost: 0, targetOfFlow: before.targetOfFlow });
});
