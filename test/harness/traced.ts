// A data plane in fresh namespaces, packets for it, and `nfqlb trace` on it. For tests of the trace.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CounterFile, readDataPlane, TraceFile } from "#tables";
import { until } from "./balancer.js";
import { ROOT } from "./bundled.js";
import { enterFreshNamespaces, ip, run } from "./namespace.js";
import { ipv4, PROTOCOL, RawSender, udp } from "./raw-packets.js";

export const PROGRAM = join(ROOT, "bin", "nfqlb");
export const VIP4 = "10.0.0.1";
export const VIP6 = "2001:db8::1";
export const CLIENT4 = "192.0.2.7";
export const CLIENT6 = "2001:db8:c::7";

export const folder = mkdtempSync(join(tmpdir(), "nfqlb-trace-"));
export const env = { ...process.env, NFQLB_SHM_DIR: folder, NFQLB_WATCHERS: "normal" }; // others may have the machine's idle time
/** What runs: the data plane, what it has logged, and who sends to it. */
export const running: { sender: RawSender; flowlb: ChildProcess; log: string } = { log: "" } as never;

export function nfqlb(...args: string[]) {
  const { stdout, stderr, status } = spawnSync(PROGRAM, args, { encoding: "utf8", env });
  return { stdout, stderr, status };
}

/** A `nfqlb trace` that runs. */
export class Trace {
  readonly child: ChildProcess;
  stdout = "";
  stderr = "";
  readonly #exit: Promise<number | null>;

  constructor(args: readonly string[], environment: NodeJS.ProcessEnv = env) {
    // A packet that does not come is no hang.
    this.child = spawn(PROGRAM, ["trace", "--duration=30", ...args], { env: environment });
    this.child.stdout!.on("data", (chunk) => {
      this.stdout += chunk;
    });
    this.child.stderr!.on("data", (chunk) => {
      this.stderr += chunk;
    });
    this.#exit = new Promise((resolve) => this.child.once("close", resolve));
  }

  /** Starts one and waits until it watches. */
  static async start(...args: string[]): Promise<Trace> {
    const trace = new Trace(args);
    await until("the trace", () => (/Trace active/.test(trace.stdout + trace.stderr) ? true : null));
    return trace;
  }

  ended(): Promise<number | null> {
    return this.#exit;
  }

  /** Ends it by signal; resolves with its exit code. */
  stop(signal: NodeJS.Signals = "SIGTERM"): Promise<number | null> {
    this.child.kill(signal);
    return this.#exit;
  }

  /** The objects of `--json`. */
  json(): readonly Line[] {
    return this.stdout
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as Line);
  }
}
export type Line = Readonly<Record<string, unknown>>;

export const mask = () => {
  using file = TraceFile.open(folder, "nfqlb-trace-rings");
  return file.mask;
};
export const counted = (counter: number) => {
  using counters = CounterFile.open(folder, "nfqlb-counters");
  return counters.sum(counter);
};

export const udp4 = (sourcePort: number, destinationPort: number, length = 4) =>
  ipv4(CLIENT4, VIP4, PROTOCOL.udp, udp(sourcePort, destinationPort, length));

export async function startDataPlane(): Promise<void> {
  const flowlb = spawn(PROGRAM, ["flowlb", "--queue=4:5", "--qlength=8192", "--ft_ttl=4000"], { env });
  running.flowlb = flowlb;
  flowlb.stderr!.on("data", (chunk) => {
    running.log += chunk;
  });
  await until("the data plane", () => {
    const state = readDataPlane(folder, "nfqlb-counters");
    return state?.isReady === true && state.pid === flowlb.pid ? true : null;
  });
}

/** Namespaces, a data plane with three flows, and a sender; forever in this process. */
export async function startAll(): Promise<void> {
  enterFreshNamespaces();
  ip("link set lo mtu 9000", `addr add ${VIP4}/32 dev lo`, `addr add ${VIP6}/128 dev lo nodad`);
  run("iptables", "-t", "mangle", "-A", "OUTPUT", "-d", VIP4, "-j", "NFQUEUE", "--queue-num", "4");
  run("ip6tables", "-t", "mangle", "-A", "OUTPUT", "-d", VIP6, "-p", "udp", "-j", "NFQUEUE", "--queue-num", "4");
  running.sender = new RawSender();
  await startDataPlane();
  nfqlb("init", "--shm=web");
  nfqlb("activate", "--shm=web", "101", "102", "103");
  nfqlb("init", "--shm=empty");
  nfqlb("flow-set", "--name=udp", "--target=web", "--protocols=udp,sctp");
  nfqlb("flow-set", "--name=http", "--target=web", "--protocols=tcp", "--dports=80", `--dsts=${VIP4}/32`, "--prio=2");
  nfqlb("flow-set", "--name=8", "--target=empty", "--protocols=tcp", "--srcs=192.0.2.8/32", "--prio=3");
}

export function stopAll(): void {
  running.flowlb.kill("SIGKILL");
  running.sender[Symbol.dispose]();
  rmSync(folder, { recursive: true });
}
