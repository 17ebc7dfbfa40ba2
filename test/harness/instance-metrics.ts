import { mkdtempSync, rmSync } from "node:fs";
import { get } from "node:http";
import { HealthTree } from "#availability";
import { parseFlowRule } from "#flow";
import { Health } from "#rpc";
import {
  CounterFile,
  createStreamTable,
  ensureFlows,
  StreamTableReader,
  updateFlows,
  updateStreamTable,
} from "#tables";
import { TextExposition } from "../../src/programs/stateless-lb/metrics/exposition.js";
import type { Source } from "../../src/programs/stateless-lb/metrics/family.js";
import { type MetricsServer, startMetricsServer } from "../../src/programs/stateless-lb/metrics/metrics-server.js";
import { type MetricSourcesOptions, metricSources } from "../../src/programs/stateless-lb/metrics/sources.js";
import type { TargetView } from "../../src/programs/stateless-lb/metrics/stream-metrics.js";

/** A stream's first fwmark less 1, for stream number i of streams with n targets each. */
export const offsetOf = (stream: number, targets: number) => 5_000 + stream * targets;

/**
 * The metrics of an instance whose tables, flow rules and counters are real and whose control plane is not: streams `s0`,
 * `s1` … with so many targets and one flow each; target 2 of each is pending, each other one got 3 packets.
 */
export class InstanceMetrics implements AsyncDisposable {
  readonly folder: string;
  readonly counters: CounterFile;
  readonly targets: readonly TargetView[];
  /** What could not be read, as `source: reason`. */
  readonly faults: readonly string[];
  readonly #server: MetricsServer;

  private constructor(
    folder: string,
    counters: CounterFile,
    targets: readonly TargetView[],
    faults: readonly string[],
    server: MetricsServer,
  ) {
    this.folder = folder;
    this.counters = counters;
    this.targets = targets;
    this.faults = faults;
    this.#server = server;
  }

  static async start(
    streams: number,
    targetsEach: number,
    hits: MetricSourcesOptions["hits"],
    interfacePrefix = "none",
  ): Promise<InstanceMetrics> {
    const folder = mkdtempSync("/dev/shm/metrics-");
    const names = Array.from({ length: streams }, (_, stream) => `s${stream}`);
    const targets = names.flatMap((stream, number) =>
      Array.from({ length: targetsEach }, (_, index): TargetView => {
        const fwmark = offsetOf(number, targetsEach) + index + 1;
        const ips = [`172.16.${fwmark >> 8}.${fwmark & 255}/24`, `fd00::${fwmark.toString(16)}/64`];
        const isPending = index === 1;
        const [state, reason] = isPending ? (["pending", "noRoute"] as const) : (["ready", ""] as const);
        return { stream, identifier: index + 1, fwmark, ips, state, reason };
      }),
    );
    for (const [number, name] of names.entries())
      makeTable(folder, `tshm-${name}`, offsetOf(number, targetsEach), targetsEach);
    ensureFlows(folder, "flows");
    const rules = names.map((name) =>
      parseFlowRule({ name: `tshm-${name}-http`, target: `tshm-${name}`, protocols: "tcp", dports: "80" }),
    );
    updateFlows(
      folder,
      "flows",
      () => rules,
      () => 0,
    );
    const settings = { queues: { first: 4, last: 5 }, queueLength: 512 };
    const counters = CounterFile.create(folder, "counters", 2, JSON.stringify(settings));
    counters.setReady();
    const sources = metricSources({
      folder,
      interfacePrefix,
      place: { flowsName: "flows", countersName: "counters", trench: "trench-a", conduit: "load-balancer" },
      state: {
        streams: () => names,
        targets: () => targets,
        numbers: (isAvailable) => ({
          turns: { bounds: [0.001, 0.01], counts: [3, 2, 1], seconds: 0.5 },
          failedTurns: 1,
          kernelSteps: 20,
          failedSteps: 2,
          repairs: 4,
          overruns: 1,
          drifts: 0,
          interfacesSetDown: 2,
          streams: names.map((stream) => ({
            labels: { trench: "trench-a", conduit: "load-balancer", stream },
            isInForce: true,
          })),
          dataPlaneDeaths: 1,
          isNspConnected: true,
          isFrontendAnnounced: true,
          isAvailable,
          objects: { vip: 2, stream: streams, flow: streams, target: targets.length },
          refused: { VIP: 0, stream: 0, flow: 1, target: 0, "port NAT": 0 },
        }),
      },
      hits,
      health: new HealthTree(new Health()),
      isAvailable: () => true,
    });
    const faults: string[] = [];
    const server = await startMetricsServer(0, sources, (source, { message }) => faults.push(`${source}: ${message}`));
    return new InstanceMetrics(folder, counters, targets, faults, server);
  }

  get port(): number {
    return this.#server.port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.close();
    this.counters[Symbol.dispose]();
    rmSync(this.folder, { recursive: true });
  }
}

function makeTable(folder: string, name: string, offset: number, targets: number): void {
  createStreamTable(folder, name, { size: targets * 100, targets, ownFwmark: 0 });
  updateStreamTable(folder, name, (active) => {
    for (let index = 0; index < targets; index++) if (index !== 1) active[index] = offset + index + 1;
  });
  using reader = new StreamTableReader(folder, name, { isCounting: true });
  for (let index = 0; index < targets; index++) if (index !== 1) reader.hits[index] = 3;
}

/** The text of one source. */
export function textOf(source: Source): string {
  const out = new TextExposition();
  source.write(out);
  return Buffer.concat(out.parts).toString();
}

export type Answer = { readonly status: number; readonly type: string; readonly text: string };

/** One request by HTTP. */
export function request(
  port: number,
  path = "/metrics",
  headers: Record<string, string> = {},
  method = "GET",
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = get({ port, path, headers, method, host: "127.0.0.1" }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("end", () => {
        const text = Buffer.concat(chunks).toString();
        resolve({ status: response.statusCode!, type: response.headers["content-type"] ?? "", text });
      });
    });
    asked.on("error", reject);
  });
}
