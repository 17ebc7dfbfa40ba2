import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { readDataPlane, readStreamTable } from "#tables";
import { djb2Model, understand } from "../oracle/packet-model.js";
import { Agent } from "./agent.js";
import { SHM, until } from "./balancer.js";
import { bundle, ROOT } from "./bundled.js";
import { addressBytes, type Family, VIPS } from "./flows.js";
import { fragmentPacket, udpBytes } from "./fragment-packets.js";
import { endsOf, type Flood, type Traffic } from "./fragment-traffic.js";
import { type Host, makeHost } from "./namespace.js";

const PROGRAM = join(ROOT, "bin", "nfqlb");
const TUN = "nfqlbtun";
const MAX_DATAGRAMS = 200_000;
const TARGETS = [101, 102] as const;
/** fwmarks of the balancers in the tier's table. */
const BALANCERS = [201, 202] as const;

/** How long datagrams may take to arrive. */
const ARRIVAL_MS = 10_000;

type Totals = { readonly total: number; readonly wrong: number };

/** What became of datagrams first…first+count-1: the target of each (index, -1 none, -2 several), and copies too many. */
export type Account = { readonly targets: Int8Array; readonly duplicates: number; readonly wrong: number };

/** A balancer in a host of its own, with a tun device and one table for all packets. */
export class FragmentBalancer {
  readonly host: Host;
  readonly folder: string;
  #child: ChildProcess | null = null;
  output = "";

  constructor(host: Host, index: number) {
    this.host = host;
    this.folder = join(SHM, `b${index + 1}`);
    mkdirSync(this.folder);
    host.ip(`tuntap add ${TUN} mode tun`, `link set up dev ${TUN}`);
    this.nfqlb("init", "--shm=nfqlb", "--M=997", "--N=2");
    this.nfqlb("activate", "--shm=nfqlb", ...TARGETS.map(String));
    this.nfqlb("init", "--shm=tier", "--M=997", "--N=2", `--ownfw=${BALANCERS[index]}`);
    this.nfqlb("activate", "--shm=tier", ...BALANCERS.map(String));
  }

  /** Runs a command line of the program. */
  nfqlb(...args: string[]) {
    const command = ["-t", String(this.host.pid), "-n", PROGRAM, ...args];
    const env = { ...process.env, NFQLB_SHM_DIR: this.folder };
    const { stdout, stderr, status } = spawnSync("nsenter", command, { encoding: "utf8", env });
    return { stdout, stderr, status };
  }

  /** Makes exactly these balancers the tier. */
  setTier(fwmarks: readonly number[]): void {
    this.nfqlb("deactivate", "--shm=tier", ...BALANCERS.map(String));
    this.nfqlb("activate", "--shm=tier", ...fwmarks.map(String));
  }

  /** Sends packets to the VIPs into queues: each line is the end of an iptables rule. */
  queue(family: Family, ...rules: string[]): void {
    const command = family === 4 ? "iptables" : "ip6tables";
    this.host.run(command, "-t", "mangle", "-F", "PREROUTING");
    for (const rule of rules)
      this.host.run(command, ..."-t mangle -A PREROUTING -d".split(" "), VIPS[family], ...rule.split(" "));
  }

  /** Starts `lb`, or `flowlb` if that is the first word, and waits until its queues are bound. */
  async start(...args: string[]): Promise<void> {
    const words = args[0] === "flowlb" ? args : ["lb", ...args];
    const command = ["-t", String(this.host.pid), "-n", PROGRAM, ...words];
    const child = spawn("nsenter", command, { env: { ...process.env, NFQLB_SHM_DIR: this.folder } });
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (chunk) => {
        this.output += chunk;
      });
    this.#child = child;
    await until("the data plane", () => {
      if (child.exitCode !== null) throw new Error(this.output);
      return readDataPlane(this.folder, "nfqlb-counters")?.isReady === true ? true : null;
    });
  }

  startWithTun(...args: string[]): Promise<void> {
    return this.start(...args, `--tun=${TUN}`);
  }

  async stop(): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (child === null || child.exitCode !== null) return;
    const exited = new Promise((resolve) => child.once("exit", resolve));
    const running = readDataPlane(this.folder, "nfqlb-counters");
    if (running !== null) process.kill(running.pid, "SIGTERM");
    await exited;
  }

  /** Process id of the data plane. */
  get pid(): number {
    return readDataPlane(this.folder, "nfqlb-counters")!.pid;
  }

  stats(): Record<string, number> {
    return JSON.parse(this.nfqlb("stats").stdout) as Record<string, number>;
  }

  all() {
    return JSON.parse(this.nfqlb("stats", "--all").stdout) as {
      packets: number;
      outcomes: Record<string, number>;
      fragments: Record<string, number>;
    };
  }

  /** Per queue: packets that came, and those that the kernel dropped for want of room. */
  queues(): { packets: number; drops: number }[] {
    const lines = this.host.run("cat", "/proc/net/netfilter/nfnetlink_queue").trim().split("\n");
    return lines.map((line) => {
      const fields = line.trim().split(/\s+/).map(Number);
      return { packets: fields[7]!, drops: fields[5]! + fields[6]! };
    });
  }

  /** Memory of the data plane in use, in bytes. */
  residentBytes(): number {
    return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${this.pid}/status`, "utf8"))![1]) * 1024;
  }
}

/** router ── one or two balancers, with a link between them ── two targets. The router's agent makes all traffic. */
export class FragmentNet {
  readonly balancers: readonly FragmentBalancer[];
  readonly #router: Agent;
  readonly #targets: readonly Agent[];
  readonly #hosts: readonly Host[];
  readonly #folder: string;
  #next = 0;
  #arrived = 0;

  private constructor(parts: {
    balancers: FragmentBalancer[];
    router: Agent;
    targets: Agent[];
    hosts: Host[];
    folder: string;
  }) {
    this.balancers = parts.balancers;
    this.#router = parts.router;
    this.#targets = parts.targets;
    this.#hosts = parts.hosts;
    this.#folder = parts.folder;
  }

  /** The calling process is in fresh namespaces already. */
  static async create(balancerCount: number): Promise<FragmentNet> {
    const folder = mkdtempSync(join(tmpdir(), "fragments-"));
    const code = mkdtempSync(join(ROOT, "node_modules", ".agents-"));
    const [routerHost, ...others] = await Promise.all(Array.from({ length: 3 + balancerCount }, makeHost));
    const balancerHosts = others.slice(0, balancerCount);
    const targetHosts = others.slice(balancerCount);
    connectHosts(routerHost!, balancerHosts, targetHosts);
    const sender = await bundle("test/harness/fragment-agent.ts", mkdtempSync(join(code, "s-")));
    const receiver = await bundle("test/harness/datagram-agent.ts", mkdtempSync(join(code, "r-")));
    const router = await Agent.start(routerHost!, sender);
    const targets = await Promise.all(targetHosts.map((host) => Agent.start(host, receiver, String(MAX_DATAGRAMS))));
    rmSync(code, { recursive: true });
    const balancers = balancerHosts.map((host, i) => new FragmentBalancer(host, i));
    return new FragmentNet({ balancers, router, targets, hosts: [routerHost!, ...others], folder });
  }

  /** Sends datagrams, which get the next free numbers, and a flood beside them. */
  async send(traffic: Omit<Traffic, "first" | "paths"> & { paths?: readonly number[] }, flood: Flood | null = null) {
    const first = this.#next;
    this.#next += traffic.count;
    if (this.#next > MAX_DATAGRAMS) throw new Error("too many datagrams for one run");
    const command = { traffic: { first, paths: [1], ...traffic }, flood };
    const answer = await this.#router.ask<{ ms: number; fragments: number }>(command);
    return { ...answer, first };
  }

  /** The target that each datagram belongs to by its addresses and ports, as the slow model has it. */
  expected(family: Family, first: number, count: number): Int8Array {
    const { lookup, active } = readStreamTable(this.balancers[0]!.folder, "nfqlb");
    return Int8Array.from({ length: count }, (_, i) => {
      const ends = endsOf(family, first + i);
      const [source, destination] = [addressBytes(ends.source), addressBytes(ends.destination)];
      const parts = { family, source, destination, protocol: 17, identification: 0, offset: 0, isLast: true };
      const whole = fragmentPacket({ ...parts, payload: udpBytes(ends, new Uint8Array(4)) });
      const { key } = understand([...whole], family === 4 ? 0x0800 : 0x86dd, 0);
      return TARGETS.indexOf(active[lookup[djb2Model(key, 0, 40) % lookup.length]!] as 101 | 102);
    });
  }

  /** Waits until `arriving` datagrams have come in all since the last time, and no more come; tells where they are. */
  async account(first: number, count: number, arriving = count): Promise<Account> {
    const totals = () => Promise.all(this.#targets.map((agent) => agent.ask<Totals>({ cmd: "total" })));
    const sum = async () => (await totals()).reduce((all, one) => all + one.total, 0);
    const endMs = performance.now() + ARRIVAL_MS;
    let now = await sum();
    for (
      let before = -1;
      (now !== before || now < this.#arrived + arriving) && performance.now() < endMs;
      now = await sum()
    ) {
      before = now;
      await delay(50);
    }
    this.#arrived = now;
    const counts = await Promise.all(
      this.#targets.map(async (agent, i) => {
        const path = join(this.#folder, `received-${i}`);
        await agent.ask({ cmd: "dump", path });
        return readFileSync(path);
      }),
    );
    const targets = new Int8Array(count).fill(-1);
    let duplicates = 0;
    for (let id = 0; id < count; id++) {
      for (const [target, received] of counts.entries()) {
        const copies = received[first + id]!;
        if (copies === 0) continue;
        duplicates += copies - 1;
        targets[id] = targets[id] === -1 ? target : -2;
      }
    }
    return { targets, duplicates, wrong: (await totals()).reduce((all, one) => all + one.wrong, 0) };
  }

  async close(): Promise<void> {
    for (const balancer of this.balancers) await balancer.stop();
    for (const agent of [this.#router, ...this.#targets]) agent.close();
    for (const host of this.#hosts) host.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

function connectHosts(router: Host, balancers: readonly Host[], targets: readonly Host[]): void {
  const sysctls =
    "net/ipv4/ip_forward=1 net/ipv6/conf/all/forwarding=1 net/ipv4/conf/all/rp_filter=0 net/ipv4/conf/default/rp_filter=0";
  for (const host of [router, ...balancers, ...targets])
    host.run("sh", "-c", `for s in ${sysctls}; do echo \${s#*=} > /proc/sys/\${s%=*}; done`);
  for (const target of targets) target.ip(`addr add ${VIPS[4]}/32 dev lo`, `addr add ${VIPS[6]}/128 dev lo nodad`);
  // Behind a long queue the parts of many datagrams wait in the target for the rest, and more than 64 fragments of a
  // source may come in between (ip-sysctl, ipfrag_max_dist): a target with the defaults would give them up.
  for (const target of targets) {
    const high = `for f in ipv4/ipfrag ipv6/ip6frag; do echo ${256 << 20} > /proc/sys/net/\${f}_high_thresh; done`;
    target.run("sh", "-c", `${high}; echo 0 > /proc/sys/net/ipv4/ipfrag_max_dist`);
  }
  for (const [i, balancer] of balancers.entries()) {
    const n = i + 1;
    balancer.ip(`link add eth0 type veth peer name b${n} netns ${router.pid}`);
    link(balancer, "eth0", `192.168.${n}.1/24`, `fd02:${n}::1/64`);
    link(router, `b${n}`, `192.168.${n}.254/24`, `fd02:${n}::fe/64`);
    balancer.ip(`route add default via 192.168.${n}.254`, `route add default via fd02:${n}::fe`);
    rules(router, n, 10 + n); // the agent chooses the next hop of each packet by a routing mark
    router.ip(
      `route add default via 192.168.${n}.1 table ${10 + n}`,
      `route add default via fd02:${n}::1 table ${10 + n}`,
    );
    know(router, `b${n}`, balancer, "eth0", [`192.168.${n}.1`, `fd02:${n}::1`]);
    for (const [t, target] of targets.entries()) {
      balancer.ip(`link add t${t} type veth peer name b${n} netns ${target.pid}`);
      link(balancer, `t${t}`, `172.16.${10 * n + t}.1/24`, `fd16:${10 * n + t}::1/64`);
      link(target, `b${n}`, `172.16.${10 * n + t}.2/24`, `fd16:${10 * n + t}::2/64`);
      if (i === 0)
        target.ip(`route add default via 172.16.${10 * n + t}.1`, `route add default via fd16:${10 * n + t}::1`);
      know(balancer, `t${t}`, target, `b${n}`, [`172.16.${10 * n + t}.2`, `fd16:${10 * n + t}::2`]);
      forward(balancer, TARGETS[t]!, `172.16.${10 * n + t}.2`, `fd16:${10 * n + t}::2`);
    }
  }
  const [one, two] = balancers;
  if (one === undefined || two === undefined) return;
  one.ip(`link add peer type veth peer name peer netns ${two.pid}`);
  link(one, "peer", "192.168.9.1/24", "fd09::1/64");
  link(two, "peer", "192.168.9.2/24", "fd09::2/64");
  know(one, "peer", two, "peer", ["192.168.9.2", "fd09::2"]);
  know(two, "peer", one, "peer", ["192.168.9.1", "fd09::1"]);
  forward(one, BALANCERS[1], "192.168.9.2", "fd09::2");
  forward(two, BALANCERS[0], "192.168.9.1", "fd09::1");
}

function link(host: Host, device: string, address4: string, address6: string): void {
  host.ip(`addr add ${address4} dev ${device}`, `addr add ${address6} dev ${device} nodad`, `link set ${device} up`);
}

/** Enters a neighbor: while its address is asked for the kernel would keep some packets only. */
function know(host: Host, device: string, neighbor: Host, neighborDevice: string, addresses: readonly string[]): void {
  const mac = /link\/ether (\S+)/.exec(neighbor.run("ip", "link", "show", "dev", neighborDevice))![1]!;
  host.ip(...addresses.map((address) => `neigh replace ${address} lladdr ${mac} dev ${device} nud permanent`));
}

/** Packets with the fwmark go to a neighbor. */
function forward(host: Host, fwmark: number, via4: string, via6: string): void {
  rules(host, fwmark, fwmark);
  host.ip(`route add default via ${via4} table ${fwmark}`, `route add default via ${via6} table ${fwmark}`);
}

function rules(host: Host, fwmark: number, table: number): void {
  for (const family of ["-4", "-6"])
    host.run("ip", family, "rule", "add", "fwmark", String(fwmark), "lookup", String(table));
}
