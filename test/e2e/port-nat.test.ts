// Both programs on a line of hosts: packets are queued, decided by their outside ports, and translated behind that.
import type { ChildProcess } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readDataPlane } from "#tables";
import { SHM, until } from "../harness/balancer.js";
import { ROOT } from "../harness/bundled.js";
import { CLIENT, LINE_VIPS, Line, TARGET, TARGET_LINK } from "../harness/line.js";
import { enterFreshNamespaces, ip, run } from "../harness/namespace.js";
import { udp } from "../harness/packets.js";
import { startProgram } from "../harness/topology.js";

const FAMILIES = [4, 6] as const;
const folder = mkdtempSync(join(tmpdir(), "stateless-lb-test-"));
const path = join(folder, "stateless-lb.yaml");
let line: Line;
let program: ChildProcess;
let output = "";

const nat = (protocol: string) => `{ protocol: ${protocol}, port: 80, target-port: 8080, vips: [v4, v6] }`;
// The flows are about port 80, as packets are outside.
const fileWith = (more = "") => `trench: { name: demo }
conduits:
  - { name: load-balancer, destination-port-nats: [${nat("tcp")}, ${nat("udp")}${more}] }
vips:
  - { name: v4, address: ${LINE_VIPS[4]}/32 }
  - { name: v6, address: "${LINE_VIPS[6]}/128" }
streams:
  - { name: web, conduit: load-balancer, max-targets: 10 }
flows:
  - { name: all, stream: web, priority: 1, protocols: [tcp, udp], vips: [v4, v6], destination-port-ranges: ["80"] }
targets:
  - { stream: web, identifier: 1, ips: ["${TARGET[4]}/24", "${TARGET[6]}/64"] }
`;

beforeAll(async () => {
  enterFreshNamespaces();
  line = await Line.create();
  ip("route del 10.0.0.0/24", "route del 2001:db8::/64"); // from now on the mark decides
  writeFileSync(path, fileWith());
  const env = { NSM_NFQUEUE: "7", NSM_INTERFACE_PREFIX: TARGET_LINK.slice(0, 10) };
  program = startProgram(join(ROOT, "bin", "stateless-lb"), ["--config", path], env, (text) => {
    output += text;
  });
  for (const family of FAMILIES) await line.serve(LINE_VIPS[family], 8080);
  const isQueueing = () => {
    try {
      return run("nft", "list", "table", "inet", "meridio-nfqlb").includes(LINE_VIPS[6]) ? true : null;
    } catch {
      return null; // no such table yet
    }
  };
  await until("VIPs that are queued", isQueueing).catch((error: Error) => {
    throw new Error(`${error.message}; the programs printed:\n${output}`);
  });
});

afterAll(() => {
  program.kill("SIGKILL");
  const running = readDataPlane(SHM, "nfqlb-counters");
  if (running !== null) process.kill(running.pid, "SIGKILL");
  line.close();
  rmSync(folder, { recursive: true });
});

const listing = () => run("nft", "list", "ruleset");
const stable = () =>
  listing()
    .replace(/packets \d+ bytes \d+/g, "")
    .split("\n")
    .toSorted()
    .join("\n");
const repairs = () => output.split("\n").filter((text) => text.includes('"repaired"'));

test.each(FAMILIES)(
  "packets to a VIP's port come to the target at its port, and answers come back from the VIP's, IPv%i",
  async (family) => {
    for (const bytes of [1, 1_400, 3_000]) {
      expect(await line.echo("udp", LINE_VIPS[family], 80, bytes), `${bytes} bytes`).toEqual({ isEqual: true });
    }
    expect(await line.echo("tcp", LINE_VIPS[family], 80, 300_000)).toEqual({ isEqual: true });
    expect(await line.echo("udp", LINE_VIPS[family], 8080, 5, 300)).toMatchObject({ isEqual: false }); // no flow
  },
);

test.each(FAMILIES)(
  "path MTU towards the client: errors come by the queue to the target, at its port, IPv%i",
  async (family) => {
    line.narrowRouter(1_300);
    expect(await line.echo("tcp", LINE_VIPS[family], 80, 200_000)).toEqual({ isEqual: true });
    expect(line.target.run("ip", "route", "get", CLIENT[family], "from", LINE_VIPS[family])).toContain("mtu 1300");
    line.narrowRouter(1_500);
  },
);

test("R19: an operator deletes our tables under traffic: healed within a second, told in the log", async () => {
  const before = stable();
  expect(repairs()).toEqual([]);
  for (const [i, table] of ["meridio-nat", "meridio-defrag", "meridio-metrics", "meridio-nfqlb"].entries()) {
    const startMs = performance.now();
    run("nft", "delete", "table", "inet", table);
    await until(`${table}'s repair`, () => (stable() === before ? true : null));
    expect(performance.now() - startMs).toBeLessThan(1_000);
    await until("a line in the log", () => (repairs().length > i ? true : null));
    for (const family of FAMILIES) {
      expect(await line.echo("tcp", LINE_VIPS[family], 80, 10_000)).toEqual({ isEqual: true });
    }
  }
});

test.each(FAMILIES)("path MTU towards the client: this host's own errors about answers, too, IPv%i", async (family) => {
  line.narrowUplink(1_290);
  for (const each of FAMILIES) line.target.run("ip", `-${each}`, "route", "flush", "cache");
  expect(await line.echo("tcp", LINE_VIPS[family], 80, 200_000)).toEqual({ isEqual: true });
  expect(line.target.run("ip", "route", "get", CLIENT[family], "from", LINE_VIPS[family])).toContain("mtu 1290");
  line.narrowUplink(1_500);
});

/** Of the one queue: packets that wait for a decision, that were dropped for want of room, and that have ever come. */
function queue() {
  const fields = readFileSync("/proc/net/netfilter/nfnetlink_queue", "utf8").trim().split(/\s+/).map(Number);
  return { waiting: fields[2]!, dropped: fields[5]! + fields[6]!, sequence: fields[7]! };
}

/** More than a configuration has in earnest, all other ones than those of another round. */
const manyNats = (round: number) =>
  Array.from(
    { length: 70 },
    (_, i) => `, { protocol: tcp, port: ${1_000 + 100 * round + i}, target-port: ${9_000 + i}, vips: [v4] }`,
  ).join("");

test("port NATs come and go by the dozen while packets wait in the queue: none of them is lost", async () => {
  const configure = (more: string) => {
    writeFileSync(path, fileWith(more));
    program.kill("SIGHUP");
  };
  configure(manyNats(0));
  await until("the port NATs", () => (listing().includes("tcp dport 1069 ") ? true : null));
  const { pid } = readDataPlane(SHM, "nfqlb-counters")!;
  process.kill(pid, "SIGSTOP");
  const isStopped = (task: string) => /\) T /.test(readFileSync(`/proc/${pid}/task/${task}/stat`, "utf8"));
  await until("its threads' stop", () => (readdirSync(`/proc/${pid}/task`).every(isStopped) ? true : null));
  const uncounted = () => queue().sequence - queue().waiting - queue().dropped;
  const before = uncounted();
  try {
    const packets = (destinationPort: number) =>
      Array.from({ length: 200 }, (_, i) =>
        udp({ source: CLIENT[4], destination: LINE_VIPS[4], sourcePort: 20_000 + i, destinationPort }, [1]),
      );
    const passing = line.passes("client", packets(80), packets(8080));
    await until("200 waiting packets", () => (queue().waiting >= 200 ? true : null), 4_000);
    configure("");
    await until("the port NATs' end", () => (listing().includes("tcp dport 1") ? null : true), 4_000);
    configure(manyNats(1));
    await until("other port NATs", () => (listing().includes("tcp dport 1169 ") ? true : null), 4_000);
    // A connection of an earlier test may have said something meanwhile: all that has come still waits.
    await expect.poll(uncounted).toBe(before);
    process.kill(pid, "SIGCONT");
    expect((await passing).missing).toEqual([]);
  } finally {
    process.kill(pid, "SIGCONT");
  }
});

test("R24: an orderly end leaves nothing of ours, and what others made", async () => {
  run("nft", "add", "table", "inet", "others");
  const exited = new Promise((resolve) => program.once("exit", resolve));
  program.kill("SIGTERM");
  expect(await exited).toBe(0);
  expect(listing().trim()).toBe("table inet others {\n}");
  expect(run("ip", "rule")).not.toContain("proto 90");
  expect(run("ip", "route", "show", "table", "all")).not.toContain("proto 90");
});
