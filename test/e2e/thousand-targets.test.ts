// A thousand targets, played by one host that has all their addresses.
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Steering } from "#steering";
import { Agent } from "../harness/agent.js";
import { Balancer, until } from "../harness/balancer.js";
import { ROOT } from "../harness/bundled.js";
import { enterFreshNamespaces, type Host, ip, makeHost, run } from "../harness/namespace.js";
import { identity, udp } from "../harness/packets.js";

const TARGETS = 1_000;
/** So many that the hash leaves no target out, in parts that no queue or socket buffer is too small for. */
const PACKETS = 20_000;
const PART = 500;
const VIP = "20.0.0.1";
const CLIENT = "192.168.1.2";
const folder = mkdtempSync(join(tmpdir(), "stateless-lb-test-"));
const path = join(folder, "stateless-lb.yaml");
const hosts: Host[] = [];
const agents: Agent[] = [];
let balancer: Balancer;
let steering: Steering;

const addressOf = (identifier: number) => `172.16.${128 + Math.floor(identifier / 250)}.${(identifier % 250) + 1}`;
const all = Array.from({ length: TARGETS }, (_, i) => i + 1);

/** Replaces the configuration file as an editor does. */
function configure(identifiers: readonly number[]): void {
  const file = {
    trench: { name: "demo" },
    conduits: [{ name: "load-balancer" }],
    vips: [
      { name: "v4", address: `${VIP}/32` },
      { name: "v6", address: "2001:db8::1/128" },
    ],
    streams: [{ name: "web", conduit: "load-balancer", "max-targets": TARGETS }],
    flows: [{ name: "udp", stream: "web", priority: 1, protocols: ["udp"], vips: ["v4", "v6"] }],
    targets: identifiers.map((identifier) => ({ stream: "web", identifier, ips: [addressOf(identifier)] })),
  };
  writeFileSync(`${path}.new`, JSON.stringify(file));
  renameSync(`${path}.new`, path);
}

beforeAll(async () => {
  enterFreshNamespaces();
  const [client, targets] = await Promise.all([makeHost(), makeHost()]);
  hosts.push(client, targets);
  ip(
    `link add uplink type veth peer name eth0 netns ${client.pid}`,
    "addr add 192.168.1.1/24 dev uplink",
    "link set uplink up",
    `link add t0 type veth peer name eth0 netns ${targets.pid}`,
    "addr add 172.16.0.1/16 dev t0",
    "link set t0 up",
  );
  client.ip(`addr add ${CLIENT}/24 dev eth0`, "link set eth0 up", "route add default via 192.168.1.1");
  targets.ip("link set eth0 up", "addr add 172.16.255.1/16 dev eth0", "route add local 172.16.128.0/17 dev lo");
  // Entries that are made by hand do not count among those that the kernel allows the whole machine (gc_thresh3, 1,024).
  const mac = /link\/ether (\S+)/.exec(targets.run("ip", "link", "show", "dev", "eth0"))![1]!;
  ip(...all.map((identifier) => `neigh replace ${addressOf(identifier)} lladdr ${mac} dev t0 nud permanent`));
  run(
    "sh",
    "-c",
    "echo 1 > /proc/sys/net/ipv4/ip_forward; for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done",
  );
  for (const host of hosts) agents.push(await Agent.start(host, join(ROOT, "build", "packet-agent.cjs")));
  configure([1]);
  balancer = new Balancer(join(ROOT, "bin"), { folder }, { NSM_NFQUEUE: "7" }, ["--config", path]);
  await balancer.start(1);
  steering = new Steering();
});

afterAll(() => {
  steering[Symbol.dispose]();
  balancer[Symbol.dispose]();
  for (const one of [...agents, ...hosts]) one.close();
  rmSync(folder, { recursive: true });
});

test("1,000 targets that appear at once are all forwarded to within 2 s: every packet arrives, and every target gets some", async () => {
  const [client, targets] = agents;
  const startMs = performance.now();
  configure(all);
  await until("1,000 active targets", () => (balancer.activeTargets() === TARGETS ? true : null));
  const tookMs = performance.now() - startMs;
  console.log(`1,000 targets: in the file to in the tables in ${tookMs.toFixed(0)} ms`);
  expect(tookMs).toBeLessThan(2_000);

  const packets = Array.from({ length: PACKETS }, (_, i) =>
    udp(
      {
        source: `10.${i % 251}.${i % 241}.${i >> 8}`,
        destination: VIP,
        sourcePort: 1_024 + ((i * 37) % 60_000),
        destinationPort: 5000,
      },
      [1],
    ),
  );
  for (let at = 0; at < PACKETS; at += PART) {
    const part = packets.slice(at, at + PART);
    const missing = new Set(part.map(identity));
    await client!.ask({ cmd: "send", packets: part.map((bytes) => Buffer.from(bytes).toString("hex")) });
    const endMs = performance.now() + 5_000;
    while (missing.size > 0 && performance.now() < endMs) {
      const { packets: captured } = await targets!.ask<{ packets: string[] }>({ cmd: "captured" });
      for (const hex of captured) missing.delete(identity(Buffer.from(hex, "hex")));
    }
    expect([...missing]).toEqual([]);
  }
  const counters = steering.counters();
  const hits = all.map((identifier) => counters.get(5_000 + identifier)?.packets ?? 0);
  expect(hits.reduce((a, b) => a + b)).toBe(PACKETS);
  expect(hits.filter((packets) => packets === 0)).toEqual([]);
});
