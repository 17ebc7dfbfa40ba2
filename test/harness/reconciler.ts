import { mkdirSync } from "node:fs";
import { Reconciler, type Status, type Turn } from "#control";
import type { Configuration, Target } from "#model";
import { Steering } from "#steering";
import { ensureFlows, readStreamTable } from "#tables";

const FLOWS = "nfqlb-flows";

export type Line = { readonly message: string; readonly data: Readonly<Record<string, unknown>> };

/** A reconciler on the real kernel of this namespace, with tables in a folder of its own and no data plane. */
export class ReconcilerStage implements Disposable {
  readonly steering = new Steering();
  readonly reconciler: Reconciler;
  readonly lines: Line[] = [];
  readonly turns: Turn[] = [];
  readonly folder: string;

  constructor(folder: string, options: { readonly probeIntervalMs?: number; readonly ownInterfaces?: string } = {}) {
    this.folder = folder;
    mkdirSync(folder, { recursive: true });
    ensureFlows(folder, FLOWS);
    const log = (message: string, data: Readonly<Record<string, unknown>> = {}) => this.lines.push({ message, data });
    this.reconciler = new Reconciler({
      steering: this.steering,
      place: { folder, flowsName: FLOWS, countOf: () => 0 },
      kernelPlace: { queue: { first: 0, last: 0, isFanout: false }, targetInterfaces: null },
      verifyIntervalMs: 10_000,
      offsetPlacement: { start: 5000, isByName: false },
      probeIntervalMs: options.probeIntervalMs ?? 200,
      ownInterfaces: options.ownInterfaces ?? null,
      isDataPlaneReady: () => true,
      nowMs: () => performance.now(),
      onTurn: (turn) => this.turns.push(turn),
      log: { trace: () => {}, debug: () => {}, info: log, warning: log, error: log },
    });
    this.reconciler.start();
  }

  /** fwmarks that get packets, in order. */
  served(stream = "web"): readonly number[] {
    try {
      const { active } = readStreamTable(this.folder, `tshm-${stream}`);
      return [...active].filter((fwmark) => fwmark >= 0).sort((a, b) => a - b);
    } catch {
      return [];
    }
  }

  /** State and cause of each target, by identifier. */
  states(): Readonly<Record<number, string>> {
    const text = ({ state, cause }: Status["targets"][number]) => (cause === "" ? state : `${state} ${cause}`);
    return Object.fromEntries(this.reconciler.status().targets.map((one) => [one.identifier, text(one)]));
  }

  [Symbol.dispose](): void {
    this.reconciler.stop();
    this.reconciler.cleanUp();
    this.steering[Symbol.dispose]();
  }
}

/** One stream `web` with these targets. */
export function configurationOf(targets: readonly Omit<Target, "stream">[], maxTargets = 100): Configuration {
  const vip = { name: "v4", prefix: "20.0.0.1/32" };
  const flow = { name: "f", stream: "web", priority: 1, protocols: ["tcp" as const], vips: [vip] };
  const any = { sourcePrefixes: [], destinationPorts: [], sourcePorts: [], byteMatches: [] };
  return {
    conduit: { name: "c", trench: "t", portNats: [] },
    vips: [vip],
    streams: [{ name: "web", conduit: "c", maxTargets }],
    flows: [{ ...flow, ...any }],
    targets: targets.map((target) => ({ ...target, stream: "web" })),
  };
}
