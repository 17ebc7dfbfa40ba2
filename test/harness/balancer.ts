import type { ChildProcess } from "node:child_process";
import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Steering } from "#steering";
import { type DataPlane, readDataPlane, readStreamTable } from "#tables";
import { configurationFile, startProgram } from "./topology.js";

export const SHM = "/dev/shm";
const TABLE = "tshm-web";
const DEADLINE_MS = 10_000;

/** Waits until `probe` gives something other than null; fails with `what` after a deadline. */
export async function until<T>(what: string, probe: () => T | null, deadlineMs = DEADLINE_MS): Promise<T> {
  const endMs = performance.now() + deadlineMs;
  for (;;) {
    const result = probe();
    if (result !== null) return result;
    if (performance.now() > endMs) throw new Error(`${what}: not within ${deadlineMs} ms`);
    await delay(2);
  }
}

/** The real stateless-lb with the real nfqlb, in this namespace, on a configuration file for some of the targets. */
export class Balancer {
  readonly #bin: string;
  readonly #path: string;
  readonly #env: Record<string, string>;
  readonly #args: readonly string[];
  readonly #steering = new Steering();
  #child: ChildProcess | null = null;
  /** Everything the programs printed. */
  output = "";

  /** @param args of the program, instead of the configuration file */
  constructor(
    bin: string,
    { folder }: { readonly folder: string },
    env: Record<string, string> = {},
    args?: readonly string[],
  ) {
    this.#bin = bin;
    this.#path = join(folder, "stateless-lb.yaml");
    this.#env = env;
    this.#args = args ?? ["--config", this.#path];
  }

  /** Replaces the file as an editor does, by rename. */
  configure(targets: readonly number[]): void {
    writeFileSync(`${this.#path}.new`, configurationFile(targets));
    renameSync(`${this.#path}.new`, this.#path);
  }

  /** Starts the control plane. */
  launch(): void {
    this.#child = startProgram(join(this.#bin, "stateless-lb"), this.#args, this.#env, (text) => {
      this.output += text;
    });
  }

  /** Starts the control plane and waits until packets are balanced over `targets` targets. */
  async start(targets: number): Promise<void> {
    this.launch();
    try {
      await this.untilActive(targets);
    } catch (error) {
      throw new Error(`${(error as Error).message}; the programs printed:\n${this.output}`);
    }
  }

  /** Waits until exactly so many targets get packets, and VIPs are queued. */
  async untilActive(targets: number): Promise<void> {
    await until(`${targets} active targets`, () => (this.activeTargets() === targets && this.#hasVips() ? true : null));
  }

  activeTargets(): number {
    try {
      return readStreamTable(SHM, TABLE).active.filter((fwmark) => fwmark >= 0).length;
    } catch {
      return -1;
    }
  }

  #hasVips(): boolean {
    return (this.#steering.read().tables.get("meridio-nfqlb")?.sets.get("ipv6-vips")?.elements.length ?? 0) > 0;
  }

  /** The data plane that runs and serves its queues, or null. */
  dataPlane(): DataPlane | null {
    const running = readDataPlane(SHM, "nfqlb-counters");
    return running?.isReady === true ? running : null;
  }

  /** Process of the control plane. */
  get pid(): number {
    return this.#child!.pid!;
  }

  /** SIGKILL to the control plane; resolves when it is gone. */
  async killControlPlane(): Promise<void> {
    const exited = new Promise((resolve) => this.#child!.once("exit", resolve));
    this.#child!.kill("SIGKILL");
    await exited;
  }

  /** SIGKILL to the data plane; resolves when another one serves the queues, with the ms in between. */
  async killDataPlane(): Promise<number> {
    const { pid } = await until("a data plane", () => this.dataPlane());
    const startMs = performance.now();
    process.kill(pid, "SIGKILL");
    await until("the data plane's restart", () => {
      const now = this.dataPlane();
      return now !== null && now.pid !== pid ? now : null;
    });
    return performance.now() - startMs;
  }

  /** Orderly end; resolves with the exit code. */
  async stop(): Promise<number | null> {
    if (this.#child === null || this.#child.exitCode !== null) return this.#child?.exitCode ?? null;
    const exited = new Promise<number | null>((resolve) => this.#child!.once("exit", resolve));
    this.#child.kill("SIGTERM");
    return exited;
  }

  /** Kills whatever still runs. */
  [Symbol.dispose](): void {
    this.#child?.kill("SIGKILL");
    const running = readDataPlane(SHM, "nfqlb-counters");
    if (running !== null) process.kill(running.pid, "SIGKILL");
    this.#steering[Symbol.dispose]();
  }
}
