// Question: what does a packet cost on its whole way, and how many packets pass? One mode per process, each in fresh
// namespaces: client ── load balancer ── sink that counts and drops in the kernel. Prints one JSON object.
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type FlowRule, parseFlowRule } from "#flow";
import { diff, NOTHING_DESIRED, Steering } from "#steering";
import { createStreamTable, ensureFlows, readDataPlane, updateFlows, updateStreamTable } from "#tables";
import { Agent } from "../test/harness/agent.js";
import { until } from "../test/harness/balancer.js";
import { clientAddress, FLOWS, UDP_PORT, VIPS } from "../test/harness/flows.js";
import { enterFreshNamespaces, type Host, ip, makeHost, run } from "../test/harness/namespace.js";
import { randomNumbers } from "../test/harness/random.js";
import { cacheLineRoundTrip } from "./cache-line.js";

const SHM = "/dev/shm";
const QUEUE = 2;
const TICKS_PER_SECOND = 100;
const RATE = 100_000;
const SECONDS = 6;
/** Peaks of one run: each for itself, since what the machine gives changes within seconds. */
const PEAKS = 5;
const PEAK_SECONDS = 1.2;

const [mode = "forward", bin = "", build = "", upstream = ""] = process.argv.slice(2);
/** `nfqlb-1000-targets` has 1,000 targets. */
const targets = Number(/-(\d+)-targets$/.exec(mode)?.[1] ?? 4);
/** `nfqlb-2000-rules` has 2,000 flow rules, `…-prefixes` and `…-nested` have 32 prefixes in both addresses of each. */
const [, rulesText = "1", kind = "rules"] = /-(\d+)-(rules|prefixes|nested)$/.exec(mode) ?? [];
const rules = Number(rulesText);

type Sample = { readonly busy: number; readonly user: number; readonly system: number };

/** CPU time used so far in ticks: by the machine, and by a process. */
function sample(pid: number | null): Sample {
  const fields = readFileSync("/proc/stat", "utf8").split("\n")[0]!.trim().split(/\s+/).slice(1).map(Number);
  const busy = fields[0]! + fields[1]! + fields[2]! + fields[5]! + fields[6]!;
  if (pid === null) return { busy, user: 0, system: 0 };
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /, "")
    .split(" ")
    .map(Number);
  return { busy, user: stat[11]!, system: stat[12]! };
}

function connectHosts(client: Host, sink: Host): void {
  ip(
    `link add client type veth peer name eth0 netns ${client.pid}`,
    `link add sink type veth peer name eth0 netns ${sink.pid}`,
    "addr add 192.168.1.254/24 dev client",
    "addr add 172.16.0.1/16 dev sink",
    "link set client up",
    "link set sink up",
  );
  client.ip("addr add 192.168.1.2/24 dev eth0", "link set eth0 up", "route add default via 192.168.1.254");
  sink.ip("link set eth0 up");
  const mac = /link\/ether (\S+)/.exec(sink.run("ip", "link", "show", "eth0"))![1]!;
  ip(...Array.from({ length: targets }, (_, i) => `neigh add ${gateway(i)} lladdr ${mac} dev sink nud permanent`));
  sink.run(
    "nft",
    `add table inet sink; add chain inet sink in { type filter hook prerouting priority -300; }; add rule inet sink in udp dport ${UDP_PORT} counter drop`,
  );
  writeFileSync("/proc/sys/net/ipv4/ip_forward", "1");
  // With policy rules in place the kernel looks up every packet's source as well, unless local sources are accepted.
  writeFileSync("/proc/sys/net/ipv4/conf/all/accept_local", "1");
  run("sh", "-c", "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done");
}

const gateway = (target: number) => `172.16.${1 + (target >> 8)}.${target & 255}`;
const fwmarks = Array.from({ length: targets }, (_, i) => 5001 + i);
const received = (sink: Host) => Number(/packets (\d+)/.exec(sink.run("nft", "list", "table", "inet", "sink"))![1]);

/** One rule for all packets; of many, each client address has its own, the others are for addresses that send nothing. */
function flowRules(): readonly FlowRule[] {
  const dsts = `${VIPS[4]}/32`;
  const common = { target: "web", protocols: "udp", dsts };
  if (rules === 1) return [parseFlowRule({ ...common, name: "udp", dports: String(UDP_PORT) })];
  const all = Array.from({ length: rules }, (_, i) => {
    if (kind !== "rules") return ruleOfManyPrefixes(i);
    const source = i < FLOWS ? clientAddress(i, 4) : `172.16.${i >> 8}.${i & 255}`;
    const dports = `${UDP_PORT - (i % 40)}-${UDP_PORT + (i % 30)}`;
    return parseFlowRule({ ...common, name: `udp${i}`, priority: String(i % 7), srcs: `${source}/32`, dports });
  });
  const others = kind !== "rules" ? [parseFlowRule({ ...common, name: "others" })] : [];
  return [...all.toSorted((a, b) => b.priority - a.priority), ...others];
}

const random = randomNumbers(1);

/**
 * A rule of 32 prefixes of 12 to 32 bits in both addresses and a range of ports that is seldom the packets'. Of the
 * prefixes one is the VIP and one a client; with `nested` one contains it: then each packet is in many prefixes of both.
 */
function ruleOfManyPrefixes(i: number): FlowRule {
  const prefix = (address: string) => `${address}/${12 + random(21)}`;
  const others = Array.from({ length: 62 }, () => prefix(Array.from({ length: 4 }, () => random(256)).join(".")));
  const own = [VIPS[4], clientAddress(random(FLOWS), 4)].map((one) => (kind === "nested" ? prefix(one) : `${one}/32`));
  const first = 1 + random(60_000);
  return parseFlowRule({
    name: `many${i}`,
    target: "web",
    priority: String(1 + random(100)),
    protocols: "udp",
    dsts: [own[0], ...others.slice(31)].join(),
    srcs: [own[1], ...others.slice(0, 31)].join(),
    dports: `${first}-${first + random(5_000)}`,
  });
}

/** Programs the kernel and starts what the mode needs; resolves with the data plane's process id, if there is one. */
async function prepare(): Promise<{ pid: number | null; child: ChildProcess | null }> {
  if (mode === "forward") {
    ip(`route add ${VIPS[4]}/32 via ${gateway(0)}`);
    return { pid: null, child: null };
  }
  const withQueue = mode !== "jhash";
  using steering = new Steering();
  const kernelTargets = fwmarks.map((fwmark, i) => ({ fwmark, addresses: [gateway(i)] }));
  const desired = {
    ...NOTHING_DESIRED,
    targets: kernelTargets,
    vips: withQueue ? [`${VIPS[4]}/32`] : [],
    queue: withQueue ? { first: QUEUE, last: QUEUE, isFanout: false } : null,
  };
  const plan = diff(desired, steering.read());
  const failures = steering.apply([...plan.additions, ...plan.vips]);
  if (failures.length > 0) throw new Error(failures[0]!.message);
  run("nft", "delete table inet meridio-metrics"); // counters per target are the control plane's, not the data plane's
  if (mode === "jhash") {
    run(
      "nft",
      `add table ip lb; add chain ip lb pre { type filter hook prerouting priority 0; }; add rule ip lb pre ip daddr ${VIPS[4]} meta mark set jhash ip saddr . udp sport mod ${targets} offset 5001`,
    );
    return { pid: null, child: null };
  }
  const args = ["flowlb", `--queue=${QUEUE}`, "--qlength=1024"];
  if (mode === "upstream") {
    run(upstream, "init", "--shm=web", "--M=10000", "--N=100");
    run(upstream, "activate", "--shm=web", ...fwmarks.map(String));
    const child = spawn(upstream, args, { stdio: "ignore" });
    await until("upstream's flow socket", () => {
      try {
        run(
          upstream,
          "flow-set",
          "--name=udp",
          "--target=web",
          "--protocols=udp",
          `--dsts=${VIPS[4]}/32`,
          `--dports=${UDP_PORT}`,
        );
        return true;
      } catch {
        return null;
      }
    });
    return { pid: child.pid!, child };
  }
  createStreamTable(SHM, "web", { size: targets * 100, targets, ownFwmark: 0 });
  updateStreamTable(SHM, "web", (active) => active.set(fwmarks));
  ensureFlows(SHM, "nfqlb-flows");
  updateFlows(SHM, "nfqlb-flows", flowRules, () => 0);
  const child = spawn(join(bin, "nfqlb"), args, { stdio: "ignore" });
  await until("the data plane", () => (readDataPlane(SHM, "nfqlb-counters")?.isReady === true ? true : null));
  return { pid: child.pid!, child };
}

async function main(): Promise<void> {
  enterFreshNamespaces();
  const [client, sink] = await Promise.all([makeHost(), makeHost()]);
  connectHosts(client, sink);
  const { pid, child } = await prepare();
  const agent = await Agent.start(client, join(build, "client-agent.cjs"));
  const send = (rate: number, count: number) => sendAt(agent, rate, count);
  await send(20_000, 40_000); // everything is compiled and warm
  await settle(sink);
  const beforePackets = received(sink);
  const before = sample(pid);
  const steady = await send(RATE, RATE * SECONDS);
  const after = sample(pid);
  await settle(sink);
  const arrived = received(sink) - beforePackets;
  const perPacketUs = (ticks: number) => ((ticks / TICKS_PER_SECOND) * 1e6) / arrived;
  const peaks: { perSecond: number; roundTripNs: number }[] = [];
  for (let i = 0; i < PEAKS; i++) {
    const roundTripNs = await cacheLineRoundTrip();
    peaks.push({ perSecond: await peakRate(agent, sink), roundTripNs });
  }
  const result = {
    mode,
    sent: steady.sent,
    rate: steady.rate,
    lost: steady.sent - arrived,
    machineUs: perPacketUs(after.busy - before.busy),
    processUs: pid === null ? null : perPacketUs(after.user + after.system - before.user - before.system),
    userUs: pid === null ? null : perPacketUs(after.user - before.user),
    peaks,
  };
  process.stdout.write(JSON.stringify(result));
  child?.kill("SIGTERM");
  agent.close();
  client.close();
  sink.close();
}

function sendAt(agent: Agent, rate: number, count: number): Promise<{ sent: number; rate: number }> {
  return agent.ask({ cmd: "udp", family: 4, rate, count, firstId: 0 });
}

/** Packets per second that arrive while the generator sends as fast as it can. */
async function peakRate(agent: Agent, sink: Host): Promise<number> {
  const before = received(sink);
  const startMs = performance.now();
  const sending = sendAt(agent, 10_000_000, 10_000_000);
  setTimeout(() => agent.tell({ cmd: "stop" }), PEAK_SECONDS * 1000);
  await sending;
  const seconds = (performance.now() - startMs) / 1000;
  await settle(sink);
  return (received(sink) - before) / seconds;
}

/** Waits until the sink's counter stands still. */
async function settle(sink: Host): Promise<void> {
  for (let before = -1, now = received(sink); now !== before; ) {
    before = now;
    await delay(100);
    now = received(sink);
  }
}

main().then(
  () => process.exit(0),
  (error: Error) => {
    console.error(`bench ${mode}: ${error.stack}`);
    process.exit(1);
  },
);
