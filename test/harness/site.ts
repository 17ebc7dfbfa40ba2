import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readDataPlane } from "#tables";
import { Agent } from "./agent.js";
import { SHM, until } from "./balancer.js";
import { ROOT } from "./bundled.js";
import { type Host, makeHost } from "./namespace.js";

const BIN = join(ROOT, "bin");
const AGENT = join(ROOT, "build", "mconnect-agent.cjs");
/** As NSM names interfaces of the default service: its first ten characters lead. */
const TARGET_LINK = "load-balan-";
export const PORTS = { tcp: [4000, 4001, 4002], udp: [4003] } as const;

export type Connections = {
  readonly protocol: "tcp" | "udp";
  readonly address: string;
  readonly port: number;
  readonly count: number;
  /** How long one may stand still. */
  readonly waitMs: number;
};
/** Connections per host that answered, and those that nobody did. */
export type Heard = { readonly hosts: Readonly<Record<string, number>>; readonly lost: number };

export type PodOptions = {
  readonly trench: string;
  readonly conduit: string;
  /** Address of its NSP. */
  readonly nsp: string;
  /** The outside world of its trench. */
  readonly client: SiteClient;
  /** VIPs that the client reaches through it. */
  readonly vips: readonly string[];
};

/** A client beside the gateway of a trench. */
export class SiteClient {
  readonly host: Host;
  readonly #agents: readonly [Agent, Agent];

  private constructor(host: Host, agents: readonly [Agent, Agent]) {
    this.host = host;
    this.#agents = agents;
  }

  static async create(): Promise<SiteClient> {
    const host = await makeHost();
    return new SiteClient(host, [await Agent.start(host, AGENT), await Agent.start(host, AGENT)]);
  }

  /** One run at a time, and another one that goes on `beside` it. */
  connect(connections: Connections, beside: "beside" | null = null): Promise<Heard> {
    return this.#agents[beside === null ? 0 : 1].ask<Heard>({ cmd: "connect", ...connections });
  }

  close(): void {
    for (const agent of this.#agents) agent.close();
    this.host.close();
  }
}

/** A host with the application behind a load balancer; it serves all PORTS. */
export class SiteTarget {
  readonly host: Host;
  /** From 1 on. */
  readonly number: number;
  readonly #agent: Agent;
  readonly #served = new Set<string>();

  private constructor(host: Host, number: number, agent: Agent) {
    this.host = host;
    this.number = number;
    this.#agent = agent;
  }

  static async create(number: number): Promise<SiteTarget> {
    const host = await makeHost();
    const target = new SiteTarget(host, number, await Agent.start(host, AGENT));
    for (const port of PORTS.tcp) await target.#serve("tcp", "", port);
    return target;
  }

  get name(): string {
    return `t${this.number}`;
  }

  /** What an application's agent does: has the VIPs, and answers from them through this pod. */
  async open(pod: Pod, vips: readonly string[]): Promise<void> {
    for (const vip of vips) {
      const [family, length] = vip.includes(":") ? ["-6", "128 nodad"] : ["-4", "32"];
      this.host.run("sh", "-c", `ip ${family} addr add ${vip}/${length} dev lo 2>/dev/null || :`);
      this.host.run("sh", "-c", `ip ${family} rule del from ${vip} 2>/dev/null || :`);
      this.host.run("ip", family, "rule", "add", "from", vip, "lookup", String(pod.table));
      for (const port of PORTS.udp) await this.#serve("udp", vip, port);
    }
  }

  async #serve(protocol: "tcp" | "udp", address: string, port: number): Promise<void> {
    const key = `${protocol} ${address} ${port}`;
    if (this.#served.has(key)) return;
    this.#served.add(key);
    await this.#agent.ask({ cmd: "serve", name: this.name, protocol, address, port });
  }

  close(): void {
    this.#agent.close();
    this.host.close();
  }
}

/** A pod of stateless-lb in a network namespace of its own, with a link to its client and one to every target. */
export class Pod {
  readonly host: Host;
  readonly conduit: string;
  /** In a target: the table with the way back through this pod. */
  readonly table: number;
  /** Of its tables. */
  readonly folder: string;
  readonly #index: number;
  readonly #env: Record<string, string>;
  #child: ChildProcess | null = null;
  output = "";

  /** Makes the links; `start` starts the programs. */
  constructor(host: Host, index: number, options: PodOptions, targets: readonly SiteTarget[]) {
    this.host = host;
    this.conduit = options.conduit;
    this.#index = index;
    this.table = 1_000 + index;
    this.folder = join(SHM, `pod-${index}`);
    mkdirSync(this.folder);
    this.#env = {
      NFQLB_SHM_DIR: this.folder,
      NSM_MESH_ENABLED: "false",
      NSM_NSP_INSECURE: "true",
      NSM_NSP_SERVICE: options.nsp,
      NSM_TRENCH_NAME: options.trench,
      NSM_CONDUIT_NAME: options.conduit,
      NSM_NFQUEUE: "0:1",
      NSM_GRPC_MAX_BACKOFF: "100ms",
      NSM_SOCKET: "",
      NSM_HEALTH_SOCKET: "",
      NSM_DRAIN_TIME: "0s",
    };
    this.#connectClient(options.client.host, options.vips);
    for (const target of targets) this.#connectTarget(target);
    host.run(join(BIN, "stateless-lb"), "sysctl");
  }

  #connectClient(client: Host, vips: readonly string[]): void {
    const i = this.#index;
    const [own, others] = [macOf(i, 0, 1), macOf(i, 0, 2)];
    this.host.ip(
      `link add ext address ${own} type veth peer name pod${i} address ${others} netns ${client.pid}`,
      `addr add 192.168.${i}.1/24 dev ext`,
      `addr add fd02:${i}::1/64 dev ext nodad`,
      "link set ext up",
      ...known("ext", others, `192.168.${i}.2`, `fd02:${i}::2`),
    );
    client.ip(
      `addr add 192.168.${i}.2/24 dev pod${i}`,
      `addr add fd02:${i}::2/64 dev pod${i} nodad`,
      `link set pod${i} up`,
      ...known(`pod${i}`, own, `192.168.${i}.1`, `fd02:${i}::1`),
    );
    this.routeFrom(client, vips);
  }

  /** The client reaches these VIPs through this pod from now on. */
  routeFrom(client: Host, vips: readonly string[]): void {
    const i = this.#index;
    client.ip(
      ...vips.map((vip) => `route replace ${vip} via ${vip.includes(":") ? `fd02:${i}::1` : `192.168.${i}.1`}`),
    );
  }

  #connectTarget({ host, number }: SiteTarget): void {
    const i = this.#index;
    const [own, others] = [macOf(i, number, 1), macOf(i, number, 2)];
    this.host.ip(
      `link add ${TARGET_LINK}${number} address ${own} type veth peer name pod${i} address ${others} netns ${host.pid}`,
      `addr add 172.${16 + i}.${number}.1/24 dev ${TARGET_LINK}${number}`,
      `addr add fd16:${i}:${number}::1/64 dev ${TARGET_LINK}${number} nodad`,
      `link set ${TARGET_LINK}${number} up`,
      ...known(`${TARGET_LINK}${number}`, others, `172.${16 + i}.${number}.2`, `fd16:${i}:${number}::2`),
    );
    host.ip(
      `addr add 172.${16 + i}.${number}.2/24 dev pod${i}`,
      `addr add fd16:${i}:${number}::2/64 dev pod${i} nodad`,
      `link set pod${i} up`,
      ...known(`pod${i}`, own, `172.${16 + i}.${number}.1`, `fd16:${i}:${number}::1`),
      `route add default via 172.${16 + i}.${number}.1 table ${this.table}`,
      `route add default via fd16:${i}:${number}::1 table ${this.table}`,
    );
  }

  /** Addresses of a target in this pod's conduit, as it registers them. */
  addressesOf({ number }: SiteTarget): readonly string[] {
    return [`172.${16 + this.#index}.${number}.2/24`, `fd16:${this.#index}:${number}::2/64`];
  }

  /** Starts the program; it starts its data plane. */
  start(): void {
    const child = spawn("nsenter", ["-t", String(this.host.pid), "-n", join(BIN, "stateless-lb")], {
      env: { ...process.env, ...this.#env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (chunk) => {
        this.output += String(chunk);
      });
    this.#child = child;
  }

  /**
   * `nfqlb show` as Meridio's tests read it: words behind "Active: " are counted, and without it there are none; null: the
   * command fails, so the stream is not there.
   */
  active(stream: string): number | null {
    const { status, stdout } = this.nfqlb("show", `--shm=tshm-${stream}`);
    if (status !== 0) return null;
    const words = stdout.split("Active: ")[1];
    return words === undefined ? 0 : words.trim().split(" ").length;
  }

  /** Waits until `active` says so. */
  async untilActive(stream: string, count: number | null, deadlineMs = 5_000): Promise<void> {
    await until(`${stream}: ${count} active`, () => (this.active(stream) === count ? true : null), deadlineMs).catch(
      (error: Error) => {
        throw new Error(`${error.message}, but ${this.active(stream)}; the programs printed:\n${this.output}`);
      },
    );
  }

  /** Waits until packets to this address are queued. */
  async untilQueued(vip: string): Promise<void> {
    const isQueued = () =>
      this.host.run("sh", "-c", "nft list table inet meridio-nfqlb 2>/dev/null || :").includes(vip);
    await until(`packets to ${vip} are queued`, () => (isQueued() ? true : null));
  }

  /** Runs a command line of the data plane inside. */
  nfqlb(...args: readonly string[]): {
    readonly status: number | null;
    readonly stdout: string;
    readonly stderr: string;
  } {
    const command = ["-t", String(this.host.pid), "-n", join(BIN, "nfqlb"), ...args];
    return spawnSync("nsenter", command, { encoding: "utf8", env: { ...process.env, ...this.#env } });
  }

  /** Orderly end; resolves with the exit code. */
  async stop(): Promise<number | null> {
    const child = this.#child;
    if (child === null || child.exitCode !== null) return child?.exitCode ?? null;
    const exited = new Promise<number | null>((resolve) => child.once("exit", resolve));
    child.kill("SIGTERM");
    return exited;
  }

  close(): void {
    this.#child?.kill("SIGKILL");
    const running = readDataPlane(this.folder, "nfqlb-counters");
    if (running !== null) process.kill(running.pid, "SIGKILL");
    this.host.close();
  }
}

const macOf = (pod: number, link: number, end: 1 | 2) => `02:0${end}:00:00:0${pod.toString(16)}:0${link.toString(16)}`;

/**
 * Neighbors entered by hand. The kernel's table is one for the whole machine and has 1,024 entries; other tests fill it at
 * times, and what is entered by hand does not count there. How neighbors are found is tested elsewhere.
 */
const known = (device: string, mac: string, ...addresses: readonly string[]) =>
  addresses.map((address) => `neigh add ${address} lladdr ${mac} dev ${device} nud permanent`);

/** Clients, pods and targets of several trenches. Everything is anonymous and goes with this process. */
export class Site {
  readonly folder = mkdtempSync(join(tmpdir(), "stateless-lb-test-"));
  readonly targets: readonly SiteTarget[];
  readonly #clients: SiteClient[] = [];
  readonly #pods: Pod[] = [];

  private constructor(targets: readonly SiteTarget[]) {
    this.targets = targets;
  }

  /** The calling process is in fresh namespaces already. */
  static async create(targetCount: number): Promise<Site> {
    return new Site(await Promise.all(Array.from({ length: targetCount }, (_, i) => SiteTarget.create(i + 1))));
  }

  async client(): Promise<SiteClient> {
    const client = await SiteClient.create();
    this.#clients.push(client);
    return client;
  }

  async pod(options: PodOptions): Promise<Pod> {
    const pod = new Pod(await makeHost(), this.#pods.length, options, this.targets);
    this.#pods.push(pod);
    return pod;
  }

  close(): void {
    for (const one of [...this.#pods, ...this.#clients, ...this.targets]) one.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
