// Real HTTP scrapes of an instance whose tables and counters are real; of the kernel's numbers see test/netns/metrics.test.ts.
import { once } from "node:events";
import { connect } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import {
  COUNTER_BATCH_SIZES,
  COUNTER_LATENCIES,
  COUNTER_LATENCY_SUM_US,
  COUNTER_PACKETS,
  SAMPLE_QUEUE_DROPPED,
  SAMPLE_TIME_MS,
  SAMPLE_USER_DROPPED,
  SAMPLE_WAITING,
} from "#tables";
import { InstanceMetrics, offsetOf, request, textOf } from "../../test/harness/instance-metrics.js";
import { chooseEscaping } from "./stateless-lb/metrics/exposition.js";
import { interfaceSource } from "./stateless-lb/metrics/interface-metrics.js";
import { targetInterfaces } from "./stateless-lb/target-interfaces.js";

const hits = new Map([
  [offsetOf(0, 3) + 1, { packets: 7, bytes: 700 }],
  [9_999, { packets: 1, bytes: 1 }], // no target of ours: left out, as in the reference
]);
const PLACE = 'trench="trench-a",conduit="load-balancer"';
const SCOPE = 'otel_scope_name="Meridio",otel_scope_version=""';

async function start(read = () => hits as ReadonlyMap<number, { packets: number; bytes: number }>) {
  const instance = await InstanceMetrics.start(2, 3, read);
  onTestFinished(() => instance[Symbol.asyncDispose]());
  return instance;
}

/** Lines about one metric, without its help. */
const linesOf = (text: string, name: string) =>
  text.split("\n").filter((line) => line.includes(name) && !line.startsWith("# HELP"));

test("Meridio's names and labels, with underscores", async () => {
  const { port } = await start();
  const { status, type, text } = await request(port);
  expect({ status, type }).toEqual({
    status: 200,
    type: "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
  });
  const target = `${PLACE},stream="s0",identifier="5001",target_ips="[\\"172.16.19.137/24\\",\\"fd00::1389/64\\"]",${SCOPE}`;
  expect(linesOf(text, "target_hit")).toEqual([
    "# TYPE meridio_conduit_stream_target_hit_packets_total counter",
    `meridio_conduit_stream_target_hit_packets_total{${target}} 7`,
    "# TYPE meridio_conduit_stream_target_hit_bytes_total counter",
    `meridio_conduit_stream_target_hit_bytes_total{${target}} 700`,
  ]);
  expect(linesOf(text, "flow_matches")).toEqual([
    "# TYPE meridio_conduit_stream_flow_matches_total counter",
    `meridio_conduit_stream_flow_matches_total{${PLACE},stream="s0",flow="http",${SCOPE}} 0`,
    `meridio_conduit_stream_flow_matches_total{${PLACE},stream="s1",flow="http",${SCOPE}} 0`,
  ]);
  expect(linesOf(text, "target_info").at(-1)).toBe('target_info{service_name="meridio",service_version="v1.0.0"} 1');
  expect(linesOf(text, "otel_scope_info").at(-1)).toBe(`otel_scope_info{${SCOPE}} 1`);
  for (const name of ["process_cpu_seconds_total", "process_open_fds", "promhttp_metric_handler_requests_total"])
    expect(linesOf(text, name).length, name).toBeGreaterThan(1);
});

test("interfaces: by NSM_INTERFACE_PREFIX, else by the service's name; no other is told of", async () => {
  expect(targetInterfaces({ interfacePrefix: "", serviceName: "load-balancer.trench-a" })).toBe("load-balan");
  expect(targetInterfaces({ interfacePrefix: "net", serviceName: "load-balancer.trench-a" })).toBe("net");
  for (const [prefix, count] of [
    ["nowhere", 0],
    ["lo", 1],
  ] as const) {
    const source = interfaceSource(prefix, {});
    const text = textOf(source);
    source.close?.();
    expect(linesOf(text, 'stateless_lb_interface_up{interface_name="lo"}')).toHaveLength(count);
  }
});

test("the same with dots, for a scraper that takes UTF-8: Prometheus 3", async () => {
  const { port } = await start();
  const accept =
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5,*/*;q=0.2";
  const { type, text } = await request(port, "/metrics", { accept });
  expect(type).toBe("text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8");
  const name = '"meridio.conduit.stream.target.hit.packets_total"';
  const target = `stream="s0",identifier="5001",target_ips="[\\"172.16.19.137/24\\",\\"fd00::1389/64\\"]"`;
  expect(linesOf(text, name)).toEqual([`# TYPE ${name} counter`, `{${name},${PLACE},${target},${SCOPE}} 7`]);
  expect(text).toContain(`# HELP ${name} Packets that left for the target`);
  expect(linesOf(text, '"meridio.conduit.stream.flow.matches_total"').length).toBe(3);
  for (const direction of ["rx", "tx"])
    for (const what of ["packets", "bytes", "errors", "dropped"])
      expect(text).toContain(`# TYPE "meridio.interface.${direction}_${what}_total" counter`);
  expect(linesOf(text, "target_info").at(-1)).toBe(
    'target_info{"service.name"="meridio","service.version"="v1.0.0"} 1',
  );
  expect(text).not.toContain("meridio_");
  expect(text).toContain("\nstateless_lb_data_plane_up 1\n"); // ours are the same in both
});

test.each([
  [undefined, "underscores"],
  ["*/*", "underscores"],
  ["text/plain;version=0.0.4;q=0.5", "underscores"],
  ["text/plain; version=1.0.0; escaping=allow-utf-8", "allow-utf-8"],
  ["text/plain;version=1.0.0;escaping=underscores", "underscores"],
  ["text/plain;escaping=values,text/plain;escaping=allow-utf-8", "underscores"],
])("Accept %s: %s", (accept, escaping) => expect(chooseEscaping(accept)).toBe(escaping));

test("O5: queues: histograms add up, depth, limit; shares; states with their reason", async () => {
  const { port, counters } = await start();
  const { counters: numbers, samples } = counters.block(1);
  numbers.set([5, 0, 2, 1], COUNTER_BATCH_SIZES);
  numbers[COUNTER_PACKETS] = 20;
  numbers.set([10, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], COUNTER_LATENCIES);
  numbers[COUNTER_LATENCY_SUM_US] = 2_500_000;
  samples[SAMPLE_WAITING] = 17;
  const { text } = await request(port);
  const queue5 = (name: string) => linesOf(text, name).filter((line) => line.includes('queue="5"'));
  expect(queue5("stateless_lb_queue_batch_packets")).toEqual([
    ...[5, 5, 7, 8, 8, 8].map(
      (count, i) => `stateless_lb_queue_batch_packets_bucket{le="${2 ** i}",queue="5"} ${count}`,
    ),
    'stateless_lb_queue_batch_packets_bucket{le="+Inf",queue="5"} 8',
    'stateless_lb_queue_batch_packets_sum{queue="5"} 20',
    'stateless_lb_queue_batch_packets_count{queue="5"} 8',
  ]);
  const latency = queue5("stateless_lb_verdict_latency_seconds");
  expect(latency.slice(0, 3)).toEqual(
    [
      ["0.000008", 10],
      ["0.000016", 14],
      ["0.000032", 14],
    ].map(([le, count]) => `stateless_lb_verdict_latency_seconds_bucket{le="${le}",queue="5"} ${count}`),
  );
  expect(latency.slice(-3)).toEqual([
    'stateless_lb_verdict_latency_seconds_bucket{le="+Inf",queue="5"} 15',
    'stateless_lb_verdict_latency_seconds_sum{queue="5"} 2.5',
    'stateless_lb_verdict_latency_seconds_count{queue="5"} 15',
  ]);
  expect(text).toContain('stateless_lb_queue_waiting_packets{queue="5"} 17\n');
  expect(text).toContain('stateless_lb_queue_limit_packets{queue="4"} 512\n');
  expect(linesOf(text, "stateless_lb_targets{")).toEqual([
    `stateless_lb_targets{${PLACE},stream="s0",state="ready",reason=""} 2`,
    `stateless_lb_targets{${PLACE},stream="s0",state="pending",reason="noRoute"} 1`,
    `stateless_lb_targets{${PLACE},stream="s1",state="ready",reason=""} 2`,
    `stateless_lb_targets{${PLACE},stream="s1",state="pending",reason="noRoute"} 1`,
  ]);
  expect(linesOf(text, "stateless_lb_target_not_ready{").length).toBe(2);
  const ideal = linesOf(text, "stateless_lb_target_ideal_ratio{").map((line) => Number(line.split(" ").at(-1)));
  expect(ideal.length).toBe(4); // a target that is not in the table has no share
  expect(ideal.reduce((sum, part) => sum + part)).toBeCloseTo(2, 10);
  expect(linesOf(text, "stateless_lb_target_packets_total{")[0]).toBe(
    `stateless_lb_target_packets_total{${PLACE},stream="s0",identifier="1"} 3`,
  );
  const [age = ""] = linesOf(text, "stateless_lb_table_age_seconds{");
  expect(Number(age.split(" ").at(-1))).toBeLessThan(60);
  expect(text).toContain(`stateless_lb_table_generation{${PLACE},stream="s1"} 1\n`);
  expect(text).toContain('stateless_lb_refused_objects{kind="flow"} 1\n');
  expect(text).toContain('stateless_lb_health_status{service="Flow"} 0\n');
});

test("losses by what was full; without series, instead of 0, for a data plane whose user may not know them", async () => {
  const { port, counters } = await start();
  const [known, unknown] = [counters.block(0).samples, counters.block(1).samples];
  known[SAMPLE_TIME_MS] = Number(process.hrtime.bigint()) / 1e6 + 60_000; // fresh: the kernel is not asked instead
  [known[SAMPLE_QUEUE_DROPPED], known[SAMPLE_USER_DROPPED]] = [7, 3];
  unknown.fill(NaN, SAMPLE_WAITING, SAMPLE_USER_DROPPED + 1);
  const { text } = await request(port);
  expect(linesOf(text, "queue_lost_packets_total{")).toEqual([
    'stateless_lb_queue_lost_packets_total{queue="4",full="queue"} 7',
    'stateless_lb_queue_lost_packets_total{queue="4",full="buffer"} 3',
  ]);
  expect(linesOf(text, "queue_waiting_packets{")).toEqual(['stateless_lb_queue_waiting_packets{queue="4"} 0']);
});

test("R25: a source that fails is left out and counted; what peers do never ends the server", async () => {
  let isBroken = true;
  const { port, faults } = await start(() => {
    if (isBroken) throw new Error("no memory");
    return hits;
  });
  const broken = await request(port);
  expect(broken.status).toBe(200);
  expect(broken.text).toContain('stateless_lb_scrape_errors_total{source="target hits"} 1\n');
  expect(broken.text).toContain("stateless_lb_data_plane_up 1\n");
  expect(broken.text).not.toContain("target_hit_packets");
  expect(faults).toEqual(["target hits: no memory"]);
  isBroken = false;
  expect((await request(port, "/metrics?x=1")).text).toContain("target_hit_packets_total{");
  expect((await request(port, "/")).status).toBe(404);
  expect((await request(port, "/metrics", {}, "POST")).status).toBe(405);
  expect(await request(port, "/metrics", {}, "HEAD")).toMatchObject({ status: 200, text: "" });
  const rude = connect(port, "127.0.0.1");
  await once(rude, "connect");
  rude.write("nonsense\r\n\r\n");
  await once(rude.resume(), "close");
  for (const socket of Array.from({ length: 20 }, () => connect(port, "127.0.0.1"))) {
    socket.on("error", () => {});
    socket.write("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", () => socket.destroy());
  }
  const { text } = await request(port);
  expect(text).toContain('promhttp_metric_handler_requests_total{code="200"}');
});
