import type { ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { NspQuery, type Registration } from "#nsp";
import { Steering } from "#steering";
import { CounterFile, readDataPlane, readFlows, readStreamTable, StreamTableReader } from "#tables";
import { SHM, until } from "./balancer.js";
import { type Host, ip, makeHost } from "./namespace.js";
import { startProgram } from "./topology.js";

/** How many of each there are, evenly spread over the streams; and for how many seconds the NSP keeps a registration (60). */
export type Size = {
  readonly streams: number;
  readonly flows: number;
  readonly targets: number;
  readonly entryTimeoutSeconds?: number;
};

/** The size that the limits for memory and idle CPU are for. */
export const LARGE: Size = { streams: 100, flows: 1_000, targets: 1_000 };

const VIPS = { 4: "10.0.0.1", 6: "2001:db8::1" } as const;
const FIRST_PORT = 1_000;
const ENTRY_TIMEOUT_SECONDS = 60;
/** So often in the time that a registration lives it is repeated. */
const REFRESHES = 3;
const IN_FORCE_DEADLINE_MS = 60_000;
const FLOWS = "nfqlb-flows";
const COUNTERS = "nfqlb-counters";
const MESH = { trench: "demo", conduit: "load-balancer" } as const;

/** Sends one UDP packet to each port of each address, 50 at a time, and ends. */
const SENDER = `const [first, count, ...vips] = process.argv.slice(1);
const sockets = vips.map((vip) => [require("dgram").createSocket(vip.includes(":") ? "udp6" : "udp4"), vip]);
const send = (socket, port, vip) => new Promise((resolve) => socket.send("x", port, vip, resolve));
(async () => {
  for (let i = 0; i < count; i += 50) {
    for (let port = +first + i; port < +first + Math.min(i + 50, count); port++)
      for (const [socket, vip] of sockets) await send(socket, port, vip);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  process.exit();
})();`;

/**
 * The real programs with many objects, everything else as it is without settings, metrics on. All targets, of both families, are
 * behind one link, whose host answers for them. `following`: `stateless-lb nsp` is a process of its own, as with Meridio's NSP;
 * `alone`: it is inside, with `--config`.
 */
export class LargeInstance implements Disposable {
  readonly #folder = mkdtempSync(join(tmpdir(), "large-"));
  readonly #size: Size;
  readonly #peer: Host;
  readonly #steering = new Steering();
  readonly #children: ChildProcess[] = [];
  #control: ChildProcess | null = null;
  /** By which the frontend is announced, again and again, for its registration ends otherwise. */
  #query: NspQuery | null = null;
  #refreshing: NodeJS.Timeout | undefined;
  /** How often it was. */
  refreshes = 0;
  #reader: StreamTableReader | null = null;
  output = "";

  private constructor(peer: Host, size: Size) {
    this.#peer = peer;
    this.#size = size;
  }

  /** The calling process is in fresh namespaces already. Resolves when all of it is in force. */
  static async start(bin: string, kind: "following" | "alone", size = LARGE): Promise<LargeInstance> {
    const peer = await makeHost();
    connect(peer, size);
    const instance = new LargeInstance(peer, size);
    try {
      await instance.#launch(join(bin, "stateless-lb"), kind);
      await until("everything in force", () => (instance.#isInForce() ? true : null), IN_FORCE_DEADLINE_MS);
    } catch (error) {
      instance[Symbol.dispose]();
      throw new Error(`${(error as Error).message}; the programs printed:\n${instance.output.slice(-4_000)}`);
    }
    return instance;
  }

  /** Process ids. */
  get pids(): { readonly control: number; readonly data: number } {
    return { control: this.#control!.pid!, data: readDataPlane(SHM, COUNTERS)!.pid };
  }

  /** Where a scraper asks. */
  readonly metrics = "http://127.0.0.1:2223/metrics";

  /** Of the NSP that is followed. */
  get address(): string {
    return `unix:${this.#folder}/nsp.sock`;
  }

  /** A target that is not in the file, with an address that the host behind the link answers for. */
  registration(identifier: number, isEnabled: boolean): Registration {
    const ips = addressesOf(identifier - 1).map((address) => `${address}/${address.includes(":") ? 64 : 16}`);
    const context = { identifier: String(identifier) };
    return { ...MESH, stream: nameOf(0), type: "default", ips, context, isEnabled };
  }

  /** Whether the first stream's table gives packets to that target. */
  isServed(identifier: number): boolean {
    this.#reader ??= new StreamTableReader(SHM, tableOf(0));
    this.#reader.enter();
    const isServed = this.#reader.active[identifier - 1]! >= 0;
    this.#reader.leave();
    return isServed;
  }

  /** One packet of each family for every flow; resolves when the data plane has counted all of them. */
  async sendToAllFlows(): Promise<void> {
    const { flows } = this.#size;
    using counters = CounterFile.open(SHM, COUNTERS);
    const slots = readFlows(SHM, FLOWS).rules.map(({ slot }) => slot);
    const counted = () => slots.reduce((sum, slot) => sum + counters.sumRule(slot), 0);
    const before = counted(); // by an instance before this one, too
    this.#peer.run(process.execPath, "-e", SENDER, String(FIRST_PORT), String(flows), VIPS[4], VIPS[6]);
    await until(`${2 * flows} packets`, () => (counted() === before + 2 * flows ? true : null));
  }

  async #launch(program: string, kind: "following" | "alone"): Promise<void> {
    const log = (text: string) => {
      this.output += text;
    };
    const start = (args: readonly string[], env: Record<string, string>) => {
      const child = startProgram(program, args, env, log);
      this.#children.push(child);
      return child;
    };
    const config = join(this.#folder, "config.yaml");
    writeFileSync(config, configurationText(this.#size));
    const env = { NSM_METRICS_ENABLED: "true", NSM_HEALTH_SOCKET: `unix://${this.#folder}/health.sock` };
    if (kind === "alone") {
      this.#control = start(["--config", config], env);
      return;
    }
    start(["nsp", "--insecure", "--config", config, "--listen", this.address], {});
    await until("the NSP", () => (this.output.includes("NSP serves") ? true : null));
    await this.#announceFrontend();
    this.#control = start([], {
      ...env,
      NSM_MESH_ENABLED: "false",
      NSM_NSP_INSECURE: "true",
      NSM_NSP_SERVICE: this.address,
      NSM_TRENCH_NAME: MESH.trench,
      NSM_SOCKET: `unix://${this.#folder}/lb.sock`,
      NSM_SOCKET_INSECURE: "true",
    });
  }

  async #announceFrontend(): Promise<void> {
    const query = new NspQuery({ address: this.address, security: "plain-text", maxBackoffMs: 50 });
    this.#query = query;
    const name = hostname();
    const frontend = { ...MESH, stream: "", type: "frontend", ips: [name], context: { identifier: name } } as const;
    const announce = () => query.register({ ...frontend, isEnabled: true });
    await announce();
    const seconds = this.#size.entryTimeoutSeconds ?? ENTRY_TIMEOUT_SECONDS;
    const refresh = () =>
      announce().then(
        () => this.refreshes++,
        (error: Error) => (this.output += `frontend: ${error.message}\n`),
      );
    this.#refreshing = setInterval(() => void refresh(), (seconds * 1_000) / REFRESHES);
  }

  #isInForce(): boolean {
    const { streams, flows, targets } = this.#size;
    try {
      if (readDataPlane(SHM, COUNTERS)?.isReady !== true || readFlows(SHM, FLOWS).rules.length !== flows) return false;
      const active = (stream: number) =>
        readStreamTable(SHM, tableOf(stream)).active.filter((mark) => mark >= 0).length;
      const all = Array.from({ length: streams }, (_, stream) => active(stream));
      const queue = this.#steering.read().tables.get("meridio-nfqlb");
      const isQueued = (queue?.sets.get("ipv6-vips")?.elements.length ?? 0) > 0;
      return isQueued && all.reduce((sum, count) => sum + count, 0) === targets;
    } catch {
      return false;
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#refreshing);
    this.#query?.[Symbol.dispose]();
    const running = readDataPlane(SHM, COUNTERS);
    for (const child of this.#children) child.kill("SIGKILL");
    if (running !== null) process.kill(running.pid, "SIGKILL");
    this.#reader?.[Symbol.dispose]();
    this.#steering[Symbol.dispose]();
    this.#peer.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

const nameOf = (stream: number) => `stream-${stream}`;
const tableOf = (stream: number) => `tshm-${nameOf(stream)}`;
const addressesOf = (target: number) => [
  `172.16.${128 + Math.floor(target / 250)}.${(target % 250) + 1}`,
  `fd16::${(target + 16).toString(16)}`,
];

/** One link: to all targets, and to who sends. */
function connect(peer: Host, { targets }: Size): void {
  ip(
    `link add t0 type veth peer name eth0 netns ${peer.pid}`,
    "addr add 172.16.0.1/16 dev t0",
    "addr add fd16::1/64 dev t0 nodad",
    "link set t0 up",
  );
  peer.ip(
    "link set eth0 up",
    "addr add 172.16.255.1/16 dev eth0",
    "addr add fd16::2/64 dev eth0 nodad",
    "route add local 172.16.128.0/17 dev lo",
    // Neighbor solicitations are answered for addresses alone, not for routes; one more target may register.
    ...Array.from({ length: targets + 1 }, (_, i) => `addr add ${addressesOf(i)[1]}/64 dev eth0 nodad`),
    `route add ${VIPS[4]}/32 via 172.16.0.1 src 172.16.255.1`,
    `route add ${VIPS[6]}/128 via fd16::1 src fd16::2`,
  );
}

function configurationText({ streams, flows, targets, entryTimeoutSeconds }: Size): string {
  const maxTargets = Math.max(100, Math.ceil(targets / streams) + 1);
  const flowLines = Array.from({ length: flows }, (_, i) => {
    const rest = `priority: 1, protocols: [udp], vips: [v4, v6], destination-port-ranges: ["${FIRST_PORT + i}"]`;
    return `  - { name: flow-${i}, stream: ${nameOf(i % streams)}, ${rest} }`;
  });
  const targetLines = Array.from({ length: targets }, (_, i) => {
    const [v4, v6] = addressesOf(i);
    const identifier = Math.floor(i / streams) + 1;
    return `  - { stream: ${nameOf(i % streams)}, identifier: ${identifier}, ips: ["${v4}/16", "${v6}/64"] }`;
  });
  const streamLines = Array.from({ length: streams }, (_, i) => {
    return `  - { name: ${nameOf(i)}, conduit: ${MESH.conduit}, max-targets: ${maxTargets} }`;
  });
  return `nsp: { entry-timeout: ${entryTimeoutSeconds ?? ENTRY_TIMEOUT_SECONDS} }
trench: { name: ${MESH.trench} }
conduits:
  - { name: ${MESH.conduit} }
vips:
  - { name: v4, address: ${VIPS[4]}/32 }
  - { name: v6, address: "${VIPS[6]}/128" }
streams:
${streamLines.join("\n")}
flows:
${flowLines.join("\n")}
targets:
${targetLines.join("\n")}
`;
}
