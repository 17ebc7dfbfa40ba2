import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { OUTCOME } from "#dataplane";
import { COUNTER_OUTCOMES, CounterFile, readDataPlane } from "#tables";
import { Agent } from "./agent.js";
import { SHM, until } from "./balancer.js";
import { ROOT } from "./bundled.js";
import { enterFreshNamespaces } from "./namespace.js";
import { identity } from "./packets.js";
import { Topology } from "./topology.js";

const COUNTERS = "nfqlb-counters";
const DEADLINE_MS = 10_000;
/** Packets that are on their way undecided; far fewer than a queue holds, however slow the machine is. */
const BURST = 200;

/** What became of packets that the client sent. */
export type Delivery = {
  /** Per packet: index of the target that it came to, -1 = none, -2 = several copies. */
  readonly targets: readonly number[];
  /** Decisions meanwhile, by outcome; outcomes that did not occur are left out. */
  readonly outcomes: Readonly<Record<string, number>>;
};

export type DeliveryOptions = {
  /** What of a packet stays the same on its way, as text. */
  readonly identify?: (bytes: Uint8Array) => string;
  /** Decisions, where they are not as many as packets. */
  readonly decisions?: number;
};

/** Sends any packet from the client of a topology, and sees which come to which target, before their kernels do. */
export class Wire {
  readonly topology: Topology;
  /** For what the programs print; gone with the topology. */
  readonly log: string;
  readonly #client: Agent;
  readonly #targets: readonly Agent[];
  #served = "";

  private constructor(topology: Topology, client: Agent, targets: readonly Agent[]) {
    this.topology = topology;
    this.log = join(topology.folder, "nfqlb.log");
    this.#client = client;
    this.#targets = targets;
  }

  /** Moves the calling process into fresh namespaces, which become the balancer of a new topology. */
  static async open(targetCount: number): Promise<Wire> {
    enterFreshNamespaces();
    const topology = await Topology.create(join(ROOT, "build"), targetCount);
    const { hosts } = topology;
    const agent = join(ROOT, "build", "packet-agent.cjs");
    const [client, ...targets] = await Promise.all(
      [hosts.client, ...hosts.targets].map((host) => Agent.start(host, agent)),
    );
    return new Wire(topology, client!, targets);
  }

  /** Has `nfqlb` with these arguments (`lb …`, `flowlb …`) run in this namespace; one that runs with the same ones stays. */
  async serve(command: string): Promise<void> {
    if (command === this.#served) return;
    await stopServing();
    shell(`nfqlb ${command} >> ${this.log} 2>&1 &`);
    await untilServing();
    this.#served = command;
  }

  /**
   * Sends packets and waits until the data plane has decided them, and `arriving` of them have come to targets.
   * What has not happened within the deadline is missing from the result. The packets must differ.
   */
  async deliver(
    packets: readonly Uint8Array[],
    arriving: number,
    { identify = identity, decisions = packets.length }: DeliveryOptions = {},
  ): Promise<Delivery> {
    const places = new Map(packets.map((packet, i) => [identify(packet), i]));
    if (places.size !== packets.length) throw new Error("packets that look alike cannot be accounted for");
    for (const agent of this.#targets) await captured(agent);
    const before = decisionsOf();
    const targets = packets.map(() => -1);
    const endMs = performance.now() + DEADLINE_MS;
    for (let sent = 0; ; ) {
      const outcomes = difference(decisionsOf(), before);
      const decided = Object.values(outcomes).reduce((sum, n) => sum + n, 0);
      if (sent < packets.length && (decided >= sent || decisions !== packets.length)) {
        const next = sent === 0 ? 1 : Math.min(sent + BURST, packets.length); // the first one finds the neighbors
        await this.inject(packets.slice(sent, next));
        sent = next;
        continue;
      }
      for (const [target, agent] of this.#targets.entries()) {
        for (const bytes of await captured(agent)) {
          const place = places.get(identify(bytes));
          if (place !== undefined) targets[place] = targets[place] === -1 ? target : -2;
        }
      }
      const arrived = targets.filter((target) => target !== -1).length;
      if ((decided >= decisions && arrived >= arriving) || performance.now() > endMs) return { targets, outcomes };
      await delay(5);
    }
  }

  /** Sends packets from the client and waits for nothing. */
  async inject(packets: readonly Uint8Array[]): Promise<void> {
    await this.#client.ask({ cmd: "send", packets: packets.map(toHex) });
  }

  /** Packets that have come to the client since the last call. */
  toClient(): Promise<Uint8Array[]> {
    return captured(this.#client);
  }

  /** Packets that have come to each target since the last call or delivery. */
  toTargets(): Promise<Uint8Array[][]> {
    return Promise.all(this.#targets.map(captured));
  }

  /** Ends everything. */
  async close(): Promise<void> {
    await stopServing();
    for (const agent of [this.#client, ...this.#targets]) agent.close();
    this.topology.close();
  }
}

const toHex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

async function captured(agent: Agent): Promise<Uint8Array[]> {
  const { packets } = await agent.ask<{ packets: string[] }>({ cmd: "captured" });
  return packets.map((hex) => Uint8Array.from(Buffer.from(hex, "hex")));
}

/** Packets that a data plane has decided since it started, by outcome. */
export function decisionsOf(folder = SHM): Record<string, number> {
  using file = CounterFile.open(folder, COUNTERS);
  return Object.fromEntries(Object.entries(OUTCOME).map(([name, i]) => [name, file.sum(COUNTER_OUTCOMES + i)]));
}

function difference(now: Record<string, number>, before: Record<string, number>): Record<string, number> {
  return Object.fromEntries(
    Object.entries(now).flatMap(([name, n]) => (n === before[name] ? [] : [[name, n - before[name]!]])),
  );
}

/**
 * Runs commands as an operator types them, with our programs first on the PATH. Stops at the first that fails.
 * @param host words before the shell that take it elsewhere; without them it runs in this namespace
 */
export function shell(
  script: string,
  more: Readonly<Record<string, string>> = {},
  host: readonly string[] = [],
): string {
  const env = { ...process.env, ...more, PATH: `${join(ROOT, "bin")}:${process.env["PATH"]}` };
  const [command, ...args] = [...host, "sh", "-euc", script];
  return execFileSync(command!, args, { env, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
}

/** Waits until a data plane serves its queues. */
export async function untilServing(folder = SHM): Promise<void> {
  await until("the data plane", () => (readDataPlane(folder, COUNTERS)?.isReady === true ? true : null));
}

/** Ends the data plane in an orderly way and waits until it is gone. */
export async function stopServing(folder = SHM): Promise<void> {
  const running = readDataPlane(folder, COUNTERS);
  if (running === null) return;
  process.kill(running.pid, "SIGTERM");
  await until("the data plane's end", () => (readDataPlane(folder, COUNTERS) === null ? true : null));
}
