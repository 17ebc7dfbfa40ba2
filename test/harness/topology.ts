import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Agent } from "./agent.js";
import { type Family, FLOWS, TCP_PORT, UDP_PORT, VIPS } from "./flows.js";
import { type Host, ip, makeHost } from "./namespace.js";

/** Packets that one run may number. */
const MAX_PACKETS = 3_000_000;

export type Sent = { readonly sent: number; readonly rate: number; readonly worstGapMs: number };
export type TcpOptions = {
  /** First of the clients' addresses. */
  readonly first?: number;
  /** Bytes that each connection asks for besides the target's name. */
  readonly bytes?: number;
  /** How long a connection may stand still. */
  readonly stallMs?: number;
};
export type TcpResult = {
  readonly connections: number;
  /** Connections that got all they asked for. */
  readonly answered: number;
  readonly targets: Readonly<Record<string, number>>;
  readonly failures: readonly string[];
};

export type Hosts = { readonly client: Host; readonly router: Host; readonly targets: readonly Host[] };

/** What became of packets first…first+count-1. */
export type Account = {
  readonly sent: number;
  readonly lost: number;
  readonly duplicates: number;
  /** Packets per target index. */
  readonly perTarget: readonly number[];
  /** Target index of each flow, -1 = none of its packets came, -2 = several targets. */
  readonly targetOfFlow: Int32Array;
  /** Numbers of the packets lost. */
  readonly lostIds: readonly number[];
};

/**
 * client ── router ── load balancer (this namespace) ── targets, and from the targets a second link each back to the
 * router: answers do not pass the load balancer. Everything is anonymous and goes with this process.
 */
export class Topology {
  readonly client: Agent;
  readonly targets: readonly Agent[];
  readonly folder: string;
  readonly hosts: Hosts;
  #nextId = 0;

  private constructor(client: Agent, targets: readonly Agent[], hosts: Hosts, folder: string) {
    this.client = client;
    this.targets = targets;
    this.hosts = hosts;
    this.folder = folder;
  }

  /**
   * Makes the hosts and starts what runs in them. The calling process is in fresh namespaces already.
   * @param build folder with the bundled agents
   */
  static async create(build: string, targetCount: number): Promise<Topology> {
    const folder = mkdtempSync(join(tmpdir(), "stateless-lb-test-"));
    const [client, router, ...targetHosts] = await Promise.all(Array.from({ length: targetCount + 2 }, makeHost));
    if (client === undefined || router === undefined) throw new Error("no hosts");
    connectHosts(client, router, targetHosts);
    const clientAgent = await Agent.start(client, join(build, "client-agent.cjs"));
    const agents = await Promise.all(
      targetHosts.map((host, i) =>
        Agent.start(host, join(build, "target-agent.cjs"), `t${i + 1}`, String(MAX_PACKETS)),
      ),
    );
    return new Topology(clientAgent, agents, { client, router, targets: targetHosts }, folder);
  }

  /** Sends `count` UDP packets; resolves when all are sent, with the number of the first. */
  async sendUdp(family: Family, rate: number, count: number): Promise<Sent & { readonly firstId: number }> {
    const firstId = this.#nextId;
    this.#nextId += count;
    if (this.#nextId > MAX_PACKETS) throw new Error("too many packets for one run");
    const sent = await this.client.ask<Sent>({ cmd: "udp", family, rate, count, firstId });
    return { ...sent, firstId };
  }

  /** Connections from `count` of the clients' addresses, each of which is to get `options.bytes` bytes. */
  sendTcp(family: Family, count: number, options: TcpOptions = {}): Promise<TcpResult> {
    return this.client.ask<TcpResult>({ cmd: "tcp", family, count, ...options });
  }

  /** Opens connections from `count` of the clients' addresses and leaves them open; see `finishTcp`. */
  async openTcp(family: Family, count: number, first = 0): Promise<void> {
    await this.client.ask({ cmd: "open", family, count, first });
  }

  /** Asks over the open connections: one target's name each, or why there was no answer. */
  async finishTcp(): Promise<readonly string[]> {
    return (await this.client.ask<{ names: string[] }>({ cmd: "finish" })).names;
  }

  /** When the next packet reaches a target, in ns of CLOCK_MONOTONIC. Nothing else may be asked of it meanwhile. */
  async nextPacketAtNs(target: number): Promise<bigint> {
    return BigInt((await this.targets[target]!.ask<{ atNs: string }>({ cmd: "next" })).atNs);
  }

  /** Resolves when a target has got nothing for 10 ms. */
  async untilIdle(target: number): Promise<void> {
    const total = async () => (await this.targets[target]!.ask<{ total: number }>({ cmd: "total" })).total;
    for (let before = -1, now = await total(); now !== before; now = await total()) {
      before = now;
      await delay(10);
    }
  }

  /** Waits until the targets have stopped receiving, then accounts for every packet of the range. */
  async account(firstId: number, sent: number): Promise<Account> {
    await this.#settle();
    const perPacket = await Promise.all(
      this.targets.map(async (agent, i) => {
        const path = join(this.folder, `received-${i}`);
        await agent.ask({ cmd: "dump", path });
        return readFileSync(path);
      }),
    );
    const perTarget = this.targets.map(() => 0);
    const targetOfFlow = new Int32Array(FLOWS).fill(-1);
    const lostIds: number[] = [];
    let duplicates = 0;
    for (let id = firstId; id < firstId + sent; id++) {
      let copies = 0;
      for (const [target, received] of perPacket.entries()) {
        const count = received[id]!;
        if (count === 0) continue;
        copies += count;
        perTarget[target]! += count;
        const flow = id % FLOWS;
        targetOfFlow[flow] = targetOfFlow[flow] === -1 || targetOfFlow[flow] === target ? target : -2;
      }
      if (copies === 0) lostIds.push(id);
      else duplicates += copies - 1;
    }
    return { sent, lost: lostIds.length, duplicates, perTarget, targetOfFlow, lostIds };
  }

  /** Flows that got an answer, per family. */
  async answered(): Promise<{ readonly 4: ReadonlySet<number>; readonly 6: ReadonlySet<number> }> {
    const flows = await this.client.ask<{ 4: number[]; 6: number[] }>({ cmd: "answers" });
    return { 4: new Set(flows[4]), 6: new Set(flows[6]) };
  }

  /** Packets are on their way while the totals still grow. */
  async #settle(): Promise<void> {
    const total = async () => {
      const answers = await Promise.all(this.targets.map((agent) => agent.ask<{ total: number }>({ cmd: "total" })));
      return answers.reduce((sum, one) => sum + one.total, 0);
    };
    for (let before = -1, now = await total(); now !== before; ) {
      before = now;
      await delay(100);
      now = await total();
    }
  }

  close(): void {
    this.client.close();
    for (const agent of this.targets) agent.close();
    for (const host of [this.hosts.client, this.hosts.router, ...this.hosts.targets]) host.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

function connectHosts(client: Host, router: Host, targets: readonly Host[]): void {
  ip(
    `link add uplink type veth peer name lb netns ${router.pid}`,
    "addr add 192.168.2.1/24 dev uplink",
    "addr add fd02::1/64 dev uplink nodad",
    "link set uplink up",
  );
  router.ip(
    `link add client type veth peer name eth0 netns ${client.pid}`,
    "addr add 192.168.1.254/24 dev client",
    "addr add fd01::fe/64 dev client nodad",
    "link set client up",
    "addr add 192.168.2.254/24 dev lb",
    "addr add fd02::fe/64 dev lb nodad",
    "link set lb up",
    `route add ${VIPS[4]}/32 via 192.168.2.1`,
    `route add ${VIPS[6]}/128 via fd02::1`,
    "route add 10.200.0.0/16 via 192.168.1.2",
  );
  ip("route add default via 192.168.2.254", "route add default via fd02::fe");
  client.ip(
    "addr add 192.168.1.2/24 dev eth0",
    "addr add fd01::2/64 dev eth0 nodad",
    "link set eth0 up",
    "route add default via 192.168.1.254",
    "route add default via fd01::fe",
    "route add local 10.200.0.0/16 dev lo",
    "route add local fd99::/64 dev lo",
  );
  client.run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/ip_nonlocal_bind"); // the flows' addresses are a local route
  router.ip("route add fd99::/64 via fd01::2");
  targets.forEach((target, i) => {
    const n = i + 1;
    ip(
      `link add t${n} type veth peer name eth0 netns ${target.pid}`,
      `addr add 172.16.${n}.1/24 dev t${n}`,
      `addr add fd16:${n}::1/64 dev t${n} nodad`,
      `link set t${n} up`,
    );
    router.ip(
      `link add t${n} type veth peer name eth1 netns ${target.pid}`,
      `addr add 172.17.${n}.1/24 dev t${n}`,
      `addr add fd17:${n}::1/64 dev t${n} nodad`,
      `link set t${n} up`,
    );
  });
  targets.forEach((target, i) => {
    const n = i + 1;
    target.ip(
      `addr add 172.16.${n}.2/24 dev eth0`,
      `addr add fd16:${n}::2/64 dev eth0 nodad`,
      "link set eth0 up",
      `addr add 172.17.${n}.2/24 dev eth1`,
      `addr add fd17:${n}::2/64 dev eth1 nodad`,
      "link set eth1 up",
      `addr add ${VIPS[4]}/32 dev lo`,
      `addr add ${VIPS[6]}/128 dev lo nodad`,
      `route add default via 172.17.${n}.1`,
      `route add default via fd17:${n}::1`,
    );
    for (const host of [target, router, client]) setSysctls(host);
  });
  for (const [path, value] of Object.entries(SYSCTLS)) if (existsSync(path)) writeFileSync(path, value);
}

const SYSCTLS: Readonly<Record<string, string>> = {
  "/proc/sys/net/ipv4/ip_forward": "1",
  "/proc/sys/net/ipv6/conf/all/forwarding": "1",
  "/proc/sys/net/ipv4/conf/all/rp_filter": "0",
  "/proc/sys/net/ipv4/conf/default/rp_filter": "0",
};

function setSysctls(host: Host): void {
  const commands = Object.entries(SYSCTLS).map(([path, value]) => `[ ! -e ${path} ] || echo ${value} > ${path}`);
  host.run("sh", "-c", `${commands.join("; ")}; for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done`);
}

/** The configuration file for these targets, by index. */
export function configurationFile(targets: readonly number[], maxTargets = 100): string {
  const list = targets.map(
    (i) => `  - { stream: web, identifier: ${i + 1}, ips: ["172.16.${i + 1}.2/24", "fd16:${i + 1}::2/64"] }`,
  );
  return `trench: { name: demo }
nsp: { entry-timeout: 3600 } # what registers in a test does not repeat it
conduits:
  - { name: load-balancer }
vips:
  - { name: v4, address: ${VIPS[4]}/32 }
  - { name: v6, address: "${VIPS[6]}/128" }
streams:
  - { name: web, conduit: load-balancer, max-targets: ${maxTargets} }
flows:
  - { name: tcp, stream: web, priority: 1, protocols: [tcp], vips: [v4, v6], destination-port-ranges: ["${TCP_PORT}"] }
  - { name: udp, stream: web, priority: 1, protocols: [udp], vips: [v4, v6], destination-port-ranges: ["${UDP_PORT}"] }
targets:
${list.join("\n")}
`;
}

/** Starts a program of the project in this namespace; its output goes to `log`. */
export function startProgram(
  file: string,
  args: readonly string[],
  env: Record<string, string>,
  log: (text: string) => void,
): ChildProcess {
  const child = spawn(file, args, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...env } });
  child.stdout!.on("data", (chunk) => log(String(chunk)));
  child.stderr!.on("data", (chunk) => log(String(chunk)));
  return child;
}
