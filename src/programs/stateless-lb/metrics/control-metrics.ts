import type { HealthTree } from "#availability";
import { type Definition, histogram, type Labels, labelText, own, type Source, single } from "./family.js";

/** What the control plane did so far and knows now; plain numbers. */
export type ControlNumbers = {
  /** Turns of the reconcile loop by duration: bounds in seconds, counts of which the last has no bound, sum in seconds. */
  readonly turns: { readonly bounds: readonly number[]; readonly counts: ArrayLike<number>; readonly seconds: number };
  readonly failedTurns: number;
  /** Changes of the kernel: tried, refused, and tried because somebody had undone what was complete. */
  readonly kernelSteps: number;
  readonly failedSteps: number;
  readonly repairs: number;
  /** How often the kernel's events ran over, and how often a reading differed from what they had told. */
  readonly overruns: number;
  readonly drifts: number;
  /** Interfaces that were set down because they were replaced, or nobody asks for packets. */
  readonly interfacesSetDown: number;
  /** Every stream of the configuration, and whether it has its table and marks. */
  readonly streams: readonly { readonly labels: Labels; readonly isInForce: boolean }[];
  readonly dataPlaneDeaths: number;
  readonly isNspConnected: boolean;
  /** null: there is no frontend to wait for. */
  readonly isFrontendAnnounced: boolean | null;
  readonly isAvailable: boolean;
  /** Objects of the configuration in force by kind. */
  readonly objects: Readonly<Record<string, number>>;
  /** Objects that the NSP told and that break a rule, by kind. */
  readonly refused: Readonly<Record<string, number>>;
};

const DURATION = own("histogram", "reconcile_duration_seconds", "Duration of the turns of the reconcile loop");
const IN_FORCE = own("gauge", "stream_in_force", "1 for each stream that has its table and marks");
const FRONTEND = own(
  "gauge",
  "frontend_announced",
  "Whether the frontend of this host is registered; absent where there is none to wait for",
);
const HEALTH = own("gauge", "health_status", "1 = SERVING, by health service");
const OBJECTS = own("gauge", "configuration_objects", "Objects of the configuration by kind");
const REFUSED = own("gauge", "refused_objects", "Objects of the NSP that are left out, by kind");

/** Those of one number. */
const NUMBERS: readonly (readonly [Definition, (now: ControlNumbers) => number])[] = [
  [own("counter", "reconcile_failures_total", "Turns that broke off"), (now) => now.failedTurns],
  [own("counter", "kernel_changes_total", "Changes of the kernel that were tried"), (now) => now.kernelSteps],
  [
    own(
      "counter",
      "kernel_change_failures_total",
      "Changes that the kernel refused; of a pending target each reason once",
    ),
    (now) => now.failedSteps,
  ],
  [own("counter", "repairs_total", "Changes that made good what somebody else had undone"), (now) => now.repairs],
  [own("counter", "kernel_event_overruns_total", "Times the kernel's events ran over"), (now) => now.overruns],
  [own("counter", "kernel_drifts_total", "Readings that differed from the events"), (now) => now.drifts],
  [own("counter", "interfaces_set_down_total", "Interfaces that were set down"), (now) => now.interfacesSetDown],
  [own("counter", "data_plane_deaths_total", "Times the data plane ended unasked"), (now) => now.dataPlaneDeaths],
  [own("gauge", "nsp_connected", "Whether the NSP answers all watches"), (now) => Number(now.isNspConnected)],
  [own("gauge", "available", "Whether the frontend may attract traffic"), (now) => Number(now.isAvailable)],
];

/** The control plane's own numbers, and the statuses that probes get. */
export function controlSource(numbers: () => ControlNumbers, health: Pick<HealthTree, "statuses">): Source {
  return {
    name: "control",
    write: (out) => {
      const now = numbers();
      const byLabel = (definition: Definition, label: string, values: Iterable<readonly [string, number]>) => {
        out.family(definition);
        for (const [text, value] of values) out.sample(labelText({ [label]: text }), value);
      };
      const { turns } = now;
      out.family(DURATION);
      histogram(out, "", turns.bounds.map(String), turns.counts, turns.seconds);
      for (const [definition, numberOf] of NUMBERS) single(out, definition, numberOf(now));
      out.family(IN_FORCE);
      for (const { labels, isInForce } of now.streams) out.sample(labelText(labels), Number(isInForce));
      out.family(FRONTEND);
      if (now.isFrontendAnnounced !== null) out.sample("", Number(now.isFrontendAnnounced));
      const statuses = health.statuses().map(([name, isServing]) => [name, Number(isServing)] as const);
      byLabel(HEALTH, "service", statuses);
      byLabel(OBJECTS, "kind", Object.entries(now.objects));
      byLabel(REFUSED, "kind", Object.entries(now.refused));
    },
  };
}
