import type { HealthTree } from "#availability";
import { type Definition, type Family, histogramSamples, type Labels, type Sample, type Source } from "./family.js";

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

const family = (type: Definition["type"], name: string, help: string, samples: readonly Sample[]): Family => {
  return { name: `stateless_lb_${name}`, type, help, samples };
};
const single = (value: number): readonly Sample[] => [{ labels: {}, value }];
const byLabel = (label: string, values: Readonly<Record<string, number>>): readonly Sample[] =>
  Object.entries(values).map(([text, value]) => ({ labels: { [label]: text }, value }));

/** The control plane's own numbers, and the statuses that probes get. */
export function controlSource(numbers: () => ControlNumbers, health: Pick<HealthTree, "statuses">): Source {
  return {
    name: "control",
    read: () => {
      const now = numbers();
      const { turns } = now;
      const durations = histogramSamples({}, turns.bounds.map(String), turns.counts, turns.seconds);
      const statuses = health.statuses().map(([name, isServing]) => [name, Number(isServing)] as const);
      const frontend = now.isFrontendAnnounced;
      return [
        family("histogram", "reconcile_duration_seconds", "Duration of the turns of the reconcile loop", durations),
        family("counter", "reconcile_failures_total", "Turns that broke off", single(now.failedTurns)),
        family("counter", "kernel_changes_total", "Changes of the kernel that were tried", single(now.kernelSteps)),
        family(
          "counter",
          "kernel_change_failures_total",
          "Changes that the kernel refused; of a pending target each reason once",
          single(now.failedSteps),
        ),
        family("counter", "repairs_total", "Changes that made good what somebody else had undone", single(now.repairs)),
        family("counter", "kernel_event_overruns_total", "Times the kernel's events ran over", single(now.overruns)),
        family("counter", "kernel_drifts_total", "Readings that differed from the events", single(now.drifts)),
        family("counter", "interfaces_set_down_total", "Interfaces that were set down", single(now.interfacesSetDown)),
        family(
          "gauge",
          "stream_in_force",
          "1 for each stream that has its table and marks",
          now.streams.map(({ labels, isInForce }) => ({ labels, value: Number(isInForce) })),
        ),
        family("counter", "data_plane_deaths_total", "Times the data plane ended unasked", single(now.dataPlaneDeaths)),
        family("gauge", "nsp_connected", "Whether the NSP answers all watches", single(Number(now.isNspConnected))),
        family(
          "gauge",
          "frontend_announced",
          "Whether the frontend of this host is registered; absent where there is none to wait for",
          frontend === null ? [] : single(Number(frontend)),
        ),
        family("gauge", "available", "Whether the frontend may attract traffic", single(Number(now.isAvailable))),
        family(
          "gauge",
          "health_status",
          "1 = SERVING, by health service",
          byLabel("service", Object.fromEntries(statuses)),
        ),
        family("gauge", "configuration_objects", "Objects of the configuration by kind", byLabel("kind", now.objects)),
        family(
          "gauge",
          "refused_objects",
          "Objects of the NSP that are left out, by kind",
          byLabel("kind", now.refused),
        ),
      ];
    },
  };
}
