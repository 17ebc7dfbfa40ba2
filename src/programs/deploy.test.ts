// Dashboard and alert rules fit the metrics: every metric they name exists, and promtool understands every expression.
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { ABSENT, ALERT_CASES } from "../../test/harness/alert-cases.js";
import { ROOT } from "../../test/harness/bundled.js";
import { InstanceMetrics, request } from "../../test/harness/instance-metrics.js";
import type { TargetView } from "./stateless-lb/metrics/stream-metrics.js";

const RULES = join(ROOT, "deploy/prometheus/stateless-lb.rules.yaml");
const OURS = /\b(?:stateless_lb|meridio|process|promhttp|otel|target)[_:][a-zA-Z0-9_:]+/g;

type Rule = {
  readonly alert?: string;
  readonly record?: string;
  readonly expr: string;
  readonly annotations?: Readonly<Record<string, string>>;
};
type Panel = { readonly title: string; readonly targets?: readonly { readonly expr: string }[] };

const rules = (
  parse(readFileSync(RULES, "utf8")) as { readonly groups: readonly { readonly rules: readonly Rule[] }[] }
).groups.flatMap((group) => group.rules);
const dashboard = JSON.parse(readFileSync(join(ROOT, "deploy/grafana/stateless-lb.json"), "utf8")) as {
  readonly panels: readonly Panel[];
  readonly templating: { readonly list: readonly { readonly definition?: string }[] };
};
/** Every expression with the place where it stands. */
const expressions = [
  ...rules.map(({ alert, record, expr }) => [`rule ${alert ?? record}`, expr] as const),
  ...dashboard.panels.flatMap(({ title, targets = [] }) =>
    targets.map(({ expr }) => [`panel ${title}`, expr] as const),
  ),
];
const variables = dashboard.templating.list.flatMap(({ definition }) => definition ?? []);

const folder = mkdtempSync(join(tmpdir(), "deploy-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** The text of a scrape, and the names that its series have. */
let scrape = "";
const names = new Set<string>();
beforeAll(async () => {
  await using instance = await InstanceMetrics.start(1, 3, () => new Map([[5_001, { packets: 1, bytes: 1 }]]));
  scrape = (await request(instance.port)).text;
  for (const [, name = "", type] of scrape.matchAll(/^# TYPE (\S+) (\S+)$/gm))
    for (const suffix of type === "histogram" ? ["_bucket", "_sum", "_count"] : [""]) names.add(name + suffix);
});

/** Names in an expression, without labels and strings. */
const namesIn = (expression: string) => [...expression.replace(/\{[^}]*\}|"[^"]*"/g, "").matchAll(OURS)].map(String);

test("every metric that the dashboard and the rules name exists", () => {
  const known = new Set([...names, ...rules.flatMap(({ record }) => record ?? [])]);
  expect(expressions.length).toBeGreaterThan(60);
  known.add("up"); // Prometheus's own
  for (const [place, expression] of [...expressions, ...variables.map((text) => ["variable", text] as const)]) {
    const used = namesIn(expression);
    expect(used.length, place).toBeGreaterThan(0);
    expect(
      used.filter((name) => !known.has(name)),
      place,
    ).toEqual([]);
  }
});

/** States that an instance may tell, besides those in the scrape. */
const STATES: readonly TargetView["state"][] = ["ready", "pending", "unreachable"];
/** Labels that Prometheus adds. */
const ADDED = ["job", "instance"];

test("labels in matchers, groupings and annotations exist, and their values are told", () => {
  const labelsOf = new Map<string, Map<string, Set<string>>>();
  for (const [, name = "", text = ""] of scrape.matchAll(/^([a-z][a-z0-9_]*)(?:\{(.*)\})? \S+$/gm)) {
    const labels = labelsOf.get(name) ?? new Map<string, Set<string>>();
    labelsOf.set(name, labels);
    for (const [, label = "", value = ""] of text.matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g))
      labels.set(label, (labels.get(label) ?? new Set()).add(value));
  }
  for (const labels of labelsOf.values()) for (const state of STATES) labels.get("state")?.add(state);
  const share = "stateless_lb:target_share:ratio_rate5m";
  labelsOf.set(share, labelsOf.get("stateless_lb_target_packets_total")!);
  let matchers = 0;
  for (const [place, expression] of expressions) {
    const known = new Set([
      ...ADDED,
      ...namesIn(expression).flatMap((name) => [...(labelsOf.get(name)?.keys() ?? [])]),
    ]);
    for (const [, list = ""] of expression.matchAll(/\b(?:by|on|group_left|without) \(([^)]*)\)/g))
      for (const label of list.split(",").map((one) => one.trim()))
        if (label !== "") expect(known, place).toContain(label);
    for (const [, name = "", text = ""] of expression.matchAll(/([a-z][a-z0-9_]*)\{([^}]*)\}/g))
      for (const [, label = "", operator = "", value = ""] of text.matchAll(/([a-z_]+)(=~?|!=|!~)"([^"]*)"/g)) {
        if (ADDED.includes(label)) continue;
        matchers++;
        expect([...(labelsOf.get(name)?.keys() ?? [])], place).toContain(label);
        if (operator === "=") expect([...labelsOf.get(name)!.get(label)!], place).toContain(value);
      }
  }
  expect(matchers).toBeGreaterThan(5);
  for (const { alert, expr, annotations = {} } of rules) {
    const known = [...ADDED, ...namesIn(expr).flatMap((name) => [...(labelsOf.get(name)?.keys() ?? [])])];
    for (const text of Object.values(annotations))
      for (const [, label] of text.matchAll(/\$labels\.([a-z_]+)/g)) expect(known, alert).toContain(label);
  }
});

test("every metric is on the dashboard, in a rule, or for other tools", () => {
  const used = new Set(expressions.flatMap(([, expression]) => namesIn(expression)));
  const isUsed = (name: string) => [name, `${name}_bucket`, `${name}_count`].some((one) => used.has(one));
  const unused = [...scrape.matchAll(/^# TYPE (\S+) /gm)].map(([, name = ""]) => name).filter((name) => !isUsed(name));
  expect(unused).toEqual([
    "process_open_fds",
    "process_start_time_seconds",
    "stateless_lb_build_info",
    "target_info",
    "otel_scope_info",
    "promhttp_metric_handler_requests_total",
  ]);
});

test("every metric is in docs/metrics.md, and no other", () => {
  const text = readFileSync(join(ROOT, "docs/metrics.md"), "utf8");
  const documented = [...text.matchAll(/^\| `([a-z_]+)`/gm)].map(([, name = ""]) => name);
  expect(documented.toSorted()).toEqual(
    [...scrape.matchAll(/^# TYPE (\S+) /gm)].map(([, name = ""]) => name).toSorted(),
  );
});

const promtool = ["promtool", join(ROOT, ".cache/promtool")].find(
  (path) => spawnSync(path, ["--version"]).status === 0 || (existsSync(path) && path.startsWith("/")),
);

describe.skipIf(promtool === undefined)("promtool (of Debian's prometheus package)", () => {
  const run = (args: readonly string[], input = "") => {
    const { status, stdout, stderr } = spawnSync(promtool!, args, { input, encoding: "utf8" });
    return { status, output: `${stdout}${stderr}` };
  };

  test("takes the text of a scrape and finds no fault in names and help", () => {
    const { status, output } = run(["check", "metrics"], scrape);
    expect({ status, output }).toEqual({ status: 0, output: "" });
  });

  test("takes the rules, and every expression of the dashboard", () => {
    expect(run(["check", "rules", RULES])).toMatchObject({ status: 0 });
    const records = expressions.map(([, expression], i) => ({
      record: `expression:${i}`,
      expr: expression.replaceAll("$__rate_interval", "5m").replaceAll(/\$(?:job|instance)/g, ".*"),
    }));
    const file = join(folder, "dashboard.yaml");
    writeFileSync(file, JSON.stringify({ groups: [{ name: "dashboard", rules: records }] }));
    expect(run(["check", "rules", file])).toMatchObject({ status: 0 });
  });

  test("each alert fires for what it is about, alone, and not just beside it", () => {
    expect(Object.keys(ALERT_CASES).toSorted()).toEqual(rules.flatMap(({ alert }) => alert ?? []).toSorted());
    const cases = Object.entries(ALERT_CASES);
    // Each case is a job of its own in one world: no rule looks beyond a job, but the one for no instance at all.
    const inJob = (job: string, series: Readonly<Record<string, string>>) =>
      Object.entries(series).map(([one, values]) => ({ series: one.replace("{", `{job="${job}",`), values }));
    const worlds = [
      {
        series: cases.flatMap(([name, { fires, silent }]) => [...inJob(name, fires), ...inJob(`not ${name}`, silent)]),
        firing: cases.map(([name]) => name).filter((name) => name !== ABSENT),
      },
      { series: inJob(ABSENT, ALERT_CASES[ABSENT]!.fires), firing: [ABSENT] },
    ];
    const tests = worlds.map(({ series, firing }) => ({
      interval: "15s",
      input_series: series,
      promql_expr_test: [
        {
          expr: 'count by (alertname, job) (ALERTS{alertstate="firing"}) ^ 0',
          eval_time: "24m",
          exp_samples: firing.map((name) => ({
            labels: name === ABSENT ? `{alertname="${name}"}` : `{alertname="${name}",job="${name}"}`,
            value: 1,
          })),
        },
      ],
    }));
    const file = join(folder, "each-alert.test.yaml");
    writeFileSync(file, JSON.stringify({ rule_files: [RULES], evaluation_interval: "15s", tests }));
    expect(run(["test", "rules", file])).toEqual({ status: 0, output: expect.any(String) });
  });

  test("alerts fire for what they are about, and no other", () => {
    const series = (name: string, values: string) => ({ series: name, values });
    const sample = (labels: string, value: number) => ({ labels: `{${labels}}`, value });
    const place = 'job="lb",instance="a",trench="t",conduit="c",stream="s"';
    const place2 = place.replace('"a"', '"b"');
    const tests = {
      rule_files: [RULES],
      evaluation_interval: "15s",
      tests: [
        {
          interval: "15s",
          input_series: [
            series('stateless_lb_data_plane_up{job="lb",instance="a"}', "0x100"),
            series('stateless_lb_data_plane_up{job="lb",instance="b"}', "1x100"),
            series('stateless_lb_queue_lost_packets_total{job="lb",instance="a",queue="3",full="queue"}', "0+10x100"),
            series('stateless_lb_queue_lost_packets_total{job="lb",instance="a",queue="2",full="queue"}', "5x100"),
            series('stateless_lb_queue_lost_packets_total{job="lb",instance="b",queue="2",full="queue"}', "5x100"),
            series(`stateless_lb_table_generation{${place}}`, "7x100"),
            series(`stateless_lb_stream_in_force{${place}}`, "0x100"),
            series(`stateless_lb_stream_in_force{${place2}}`, "0x100"), // its frontend is away
            series('stateless_lb_frontend_announced{job="lb",instance="a"}', "1x100"),
            series('stateless_lb_frontend_announced{job="lb",instance="b"}', "0x2 1 0x97"),
            series(`stateless_lb_targets{${place},state="pending",reason="noRoute"}`, "2x100"),
            series(`stateless_lb_target_ideal_ratio{${place},identifier="1"}`, "0.5x100"),
            series(`stateless_lb_target_ideal_ratio{${place2},identifier="1"}`, "0.25x100"),
            series(`stateless_lb_target_ideal_ratio{${place},identifier="2"}`, "0.5x100"),
            series(`stateless_lb_target_packets_total{${place},identifier="1"}`, "0+9000x100"),
            series(`stateless_lb_target_packets_total{${place},identifier="2"}`, "0+1000x100"),
          ],
          promql_expr_test: [
            {
              expr: "round(stateless_lb:target_share:ratio_rate5m, 0.001)",
              eval_time: "10m",
              exp_samples: [0.9, 0.1].map((share, i) => sample(`${place},identifier="${i + 1}"`, share)),
            },
            {
              expr: 'count by (alertname, instance, queue, stream) (ALERTS{alertstate="firing"})',
              eval_time: "24m",
              exp_samples: [
                sample('alertname="StatelessLbDataPlaneDown",instance="a"', 1),
                sample('alertname="StatelessLbPacketsLost",instance="a",queue="3"', 1),
                sample('alertname="StatelessLbStreamWithoutTargets",instance="a",stream="s"', 1),
                sample('alertname="StatelessLbStreamNotInForce",instance="a",stream="s"', 1),
                sample('alertname="StatelessLbFrontendMissing",instance="b"', 1),
                sample('alertname="StatelessLbTargetsPending",instance="a",stream="s"', 1),
                sample('alertname="StatelessLbShareUneven",instance="a",stream="s"', 2),
                sample('alertname="StatelessLbInstancesDisagree",stream="s"', 1),
              ],
            },
          ],
        },
      ],
    };
    const file = join(folder, "alerts.test.yaml");
    writeFileSync(file, JSON.stringify(tests));
    const { status, output } = run(["test", "rules", file]);
    expect({ status, output }).toEqual({ status: 0, output: expect.any(String) });
  });
});
