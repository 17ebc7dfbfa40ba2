// What Prometheus has of an instance when an alert has to fire, and what when it just has not to: series by name, with
// promtool's notation of values, one every 15 s for 25 min.

type Series = Readonly<Record<string, string>>;

const series = (name: string, values: string, labels = "", instance = "a"): Series => ({
  [`${name}{instance="${instance}"${labels === "" ? "" : `,${labels}`}}`]: values,
});
const ours = (name: string, values: string, labels = "", instance = "a") =>
  series(`stateless_lb_${name}`, values, labels, instance);

const PLACE = 'trench="t",conduit="c",stream="s"';
const QUEUE = 'queue="0"';

/** The one alert about all instances together; it has no labels. */
export const ABSENT = "StatelessLbAbsent";

/** A metric without labels of its own, when its alert fires and when not. */
const one = (name: string, fires: string, silent: string, labels = "") => ({
  fires: ours(name, fires, labels),
  silent: ours(name, silent, labels),
});
const target = (name: string, identifier: number, values: string, instance = "a") =>
  ours(name, values, `${PLACE},identifier="${identifier}"`, instance);
const buckets = (name: string, counts: Readonly<Record<string, string>>): Series =>
  Object.assign(
    {},
    ...Object.entries(counts).map(([le, values]) => ours(`${name}_bucket`, values, `le="${le}"`)),
  ) as Series;
const busy = (user: string, system: string): Series => ({
  ...ours("queue_cpu_seconds_total", user, `${QUEUE},mode="user"`),
  ...ours("queue_cpu_seconds_total", system, `${QUEUE},mode="system"`),
});
const full = (waiting: string): Series => ({
  ...ours("queue_waiting_packets", waiting, QUEUE),
  ...ours("queue_limit_packets", "1000x100", QUEUE),
});
const shares = (first: string, second: string): Series => ({
  ...target("target_ideal_ratio", 1, "0.5x100"),
  ...target("target_ideal_ratio", 2, "0.5x100"),
  ...target("target_packets_total", 1, first),
  ...target("target_packets_total", 2, second),
});
const targets = (state: string, reason: string) =>
  ours("targets", "2x100", `${PLACE},state="${state}",reason="${reason}"`);

/** By the alert's name. */
export const ALERT_CASES: Readonly<Record<string, { readonly fires: Series; readonly silent: Series }>> = {
  StatelessLbNotScraped: {
    fires: { ...series("up", "1x40 0x60"), ...ours("data_plane_up", "1x40") },
    silent: series("up", "0x100"), // of another program
  },
  [ABSENT]: { fires: series("up", "1x100"), silent: {} },
  StatelessLbDataPlaneDown: {
    fires: ours("data_plane_up", "0x100"),
    silent: {
      ...ours("data_plane_up", "1x100"),
      ...ours("queue_lost_packets_total", "0x100", `${QUEUE},full="queue"`),
    },
  },
  StatelessLbDataPlaneDies: one("data_plane_deaths_total", "0+1x100", "0x80 1x20"),
  StatelessLbThreadFails: one("queue_thread_starts_total", "1x80 2x20", "1x100", QUEUE),
  StatelessLbPacketsLost: one("queue_lost_packets_total", "0+1x100", "7x100", `${QUEUE},full="buffer"`),
  StatelessLbLossesUnknown: {
    fires: ours("data_plane_up", "1x100"),
    silent: {
      ...ours("data_plane_up", "1x100"),
      ...ours("queue_lost_packets_total", "0x100", `${QUEUE},full="queue"`),
    },
  },
  StatelessLbQueueNearlyFull: { fires: full("810x100"), silent: full("790x100") },
  StatelessLbQueueBusy: { fires: busy("0+8x100", "0+6x100"), silent: busy("0+8x100", "0+5x100") },
  StatelessLbVerdictsSlow: {
    fires: buckets("verdict_latency_seconds", { "0.008": "0+5x100", "0.016": "0+10x100", "+Inf": "0+10x100" }),
    silent: buckets("verdict_latency_seconds", { "0.008": "0+10x100", "0.016": "0+10x100", "+Inf": "0+10x100" }),
  },
  StatelessLbNoTarget: {
    fires: ours("packets_total", "0+1x100", `${QUEUE},outcome="noTarget"`),
    silent: ours("packets_total", "0+1x100", `${QUEUE},outcome="noFlow"`),
  },
  StatelessLbStreamWithoutTargets: {
    fires: ours("table_generation", "7x100", PLACE),
    silent: { ...ours("table_generation", "7x100", PLACE), ...targets("ready", "") },
  },
  StatelessLbStreamNotInForce: one("stream_in_force", "0x100", "1x100", PLACE),
  StatelessLbTargetsPending: { fires: targets("pending", "noRoute"), silent: targets("ready", "") },
  StatelessLbTargetsUnreachable: { fires: targets("unreachable", "linkDown"), silent: targets("ready", "") },
  StatelessLbShareUneven: { fires: shares("0+9000x100", "0+1000x100"), silent: shares("0+6000x100", "0+4000x100") },
  StatelessLbInstancesDisagree: {
    fires: { ...target("target_ideal_ratio", 1, "0.5x100"), ...target("target_ideal_ratio", 1, "0.499x100", "b") },
    silent: { ...target("target_ideal_ratio", 1, "0.5x100"), ...target("target_ideal_ratio", 1, "0.5x100", "b") },
  },
  StatelessLbNspAway: one("nsp_connected", "0x100", "1x100"),
  StatelessLbFrontendMissing: one("frontend_announced", "0x100", "1x100"),
  StatelessLbUnavailable: one("available", "0x100", "1x100"),
  StatelessLbNotReady: {
    fires: ours("health_status", "0x100", 'service="Readiness"'),
    silent: ours("health_status", "0x100", 'service="Flow"'),
  },
  StatelessLbNotAlive: {
    fires: ours("health_status", "0x100", 'service="Liveness"'),
    silent: ours("health_status", "0x100", 'service="Flow"'),
  },
  StatelessLbReconcileFails: one("reconcile_failures_total", "0x90 1x10", "1x100"),
  StatelessLbKernelRefuses: one("kernel_change_failures_total", "0+1x100", "0+0.4x100"),
  StatelessLbReconcileSlow: {
    fires: buckets("reconcile_duration_seconds", { "0.5": "0+5x100", "1": "0+10x100", "+Inf": "0+10x100" }),
    silent: buckets("reconcile_duration_seconds", { "0.5": "0+10x100", "1": "0+10x100", "+Inf": "0+10x100" }),
  },
  StatelessLbRepairs: one("repairs_total", "0x80 1x20", "1x100"),
  StatelessLbObjectsRefused: one("refused_objects", "1x100", "0x100", 'kind="flow"'),
  StatelessLbMetricsIncomplete: one("scrape_errors_total", "0x80 1x20", "1x100", 'source="queues"'),
};
