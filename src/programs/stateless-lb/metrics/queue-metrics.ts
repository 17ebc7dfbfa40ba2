import { OUTCOME } from "#dataplane";
import {
  BATCH_SIZES,
  COUNTER_BATCH_SIZES,
  COUNTER_FRAGMENT_DISCARDED,
  COUNTER_FRAGMENT_EXPIRED,
  COUNTER_FRAGMENT_HELD,
  COUNTER_FRAGMENT_HELD_NOW,
  COUNTER_FRAGMENT_INSERTS,
  COUNTER_FRAGMENT_LOOKUPS,
  COUNTER_FRAGMENT_REINJECT_FAILURES,
  COUNTER_FRAGMENT_REJECTED,
  COUNTER_KERNEL_ERRORS,
  COUNTER_LATENCIES,
  COUNTER_LATENCY_SUM_US,
  COUNTER_OUTCOMES,
  COUNTER_OVERRUNS,
  COUNTER_PACKETS,
  COUNTER_SEND_FAILURES,
  COUNTER_STARTS,
  type CounterBlock,
  type CounterFile,
  CounterWatch,
  isHanging,
  LATENCY_BUCKETS,
  LATENCY_FIRST_US,
  SAMPLE_SYSTEM_MS,
  SAMPLE_USER_MS,
} from "#tables";
import { type QueueSamples, queueSamples, statesInsteadOfSamples } from "../../nfqlb/queue-samples.js";
import { optionsFrom, queueNumbers } from "../../nfqlb/running.js";
import {
  type Definition,
  type Exposition,
  histogram,
  joinLabels,
  labelText,
  own,
  type Source,
  single,
} from "./family.js";

/** A queue's block of counters and its labels. */
type Queue = { readonly block: CounterBlock; readonly kernel: QueueSamples; readonly labels: string };

const counter = (name: string, help: string) => own("counter", name, help);
const gauge = (name: string, help: string) => own("gauge", name, help);
const distribution = (name: string, help: string) => own("histogram", name, help);

/** Metrics of one number per queue: one of the thread's counters. */
const COUNTERS: readonly (readonly [Definition, number])[] = [
  [counter("queue_overruns_total", "Receives that told of packets lost for a full socket buffer"), COUNTER_OVERRUNS],
  [counter("queue_send_failures_total", "Sends of verdicts that failed"), COUNTER_SEND_FAILURES],
  [counter("queue_kernel_errors_total", "Errors that the kernel told of verdicts"), COUNTER_KERNEL_ERRORS],
  [
    counter("queue_thread_starts_total", "Times a thread has begun to serve the queue; above 1 it failed or hung"),
    COUNTER_STARTS,
  ],
  [counter("fragment_lookups_total", "Look-ups of fragment records"), COUNTER_FRAGMENT_LOOKUPS],
  [counter("fragment_inserts_total", "Fragment records made"), COUNTER_FRAGMENT_INSERTS],
  [counter("fragment_rejected_total", "Fragment records displaced while they were alive"), COUNTER_FRAGMENT_REJECTED],
  [counter("fragment_expired_total", "Fragment records reused because their time was over"), COUNTER_FRAGMENT_EXPIRED],
  [counter("fragment_held_total", "Later fragments held until their first one comes"), COUNTER_FRAGMENT_HELD],
  [gauge("fragment_held_packets", "Later fragments that are held now"), COUNTER_FRAGMENT_HELD_NOW],
  [
    counter("fragment_discarded_total", "Held fragments given up: their first one did not come"),
    COUNTER_FRAGMENT_DISCARDED,
  ],
  [
    counter("fragment_reinject_failures_total", "Held fragments that the tun device refused"),
    COUNTER_FRAGMENT_REINJECT_FAILURES,
  ],
];

const PACKETS = counter("packets_total", "Packets by queue and outcome of the decision");
const BATCH = distribution("queue_batch_packets", "Packets per receive");
const LATENCY = distribution(
  "verdict_latency_seconds",
  "Time from receive to verdict sent, per packet, of every 16th batch; the time in the queue is not in it",
);
const WAITING = gauge(
  "queue_waiting_packets",
  "Packets in the kernel that wait for their verdict; absent where the data plane's user may not know",
);
const LIMIT = gauge("queue_limit_packets", "Packets that the queue holds; more are dropped");
const LOST = counter(
  "queue_lost_packets_total",
  "Packets that the kernel dropped before they were received, by what was full; absent where its user may not know",
);
const CPU = counter("queue_cpu_seconds_total", "CPU time of the queue's threads, the forwarding of packets included");
const UP = gauge("data_plane_up", "Whether a data plane runs and serves all its queues; not while it hangs");

const BATCH_BOUNDS = Array.from({ length: BATCH_SIZES - 1 }, (_, i) => String(2 ** i));
const LATENCY_BOUNDS = Array.from({ length: LATENCY_BUCKETS - 1 }, (_, i) => String((LATENCY_FIRST_US * 2 ** i) / 1e6));

/**
 * What the data plane counts, read from its shared memory.
 * @param name of the counter file
 */
export function queueSource(folder: string, name: string): Source {
  const watch = new CounterWatch(folder, name);
  return { name: "queues", write: (out) => writeQueues(out, watch.current()) };
}

/** @param counters null before the first data plane */
function writeQueues(out: Exposition, counters: CounterFile | null): void {
  const owner = counters?.owner() ?? null;
  const { queues: range, queueLength } = optionsFrom(owner?.settings ?? "");
  const numbers = counters === null ? [] : queueNumbers(range);
  const nowMs = Number(process.hrtime.bigint()) / 1e6;
  const states = counters === null || numbers.length === 0 ? null : statesInsteadOfSamples(counters, nowMs);
  const queues = numbers.map((queue, worker): Queue => {
    const block = counters!.block(worker);
    return { block, kernel: queueSamples(block, queue, states), labels: labelText({ queue: String(queue) }) };
  });
  single(out, UP, Number(owner?.isReady === true && !isHanging(owner, nowMs)));
  writeDecisions(out, queues);
  writeKernel(out, queues, queueLength);
  for (const [definition, index] of COUNTERS) {
    out.family(definition);
    for (const { labels, block } of queues) out.sample(labels, block.counters[index]!);
  }
}

/** What the threads decided, and how long it took. */
function writeDecisions(out: Exposition, queues: readonly Queue[]): void {
  out.family(PACKETS);
  for (const { labels, block } of queues)
    for (const [outcome, at] of Object.entries(OUTCOME))
      out.sample(joinLabels(labels, labelText({ outcome })), block.counters[COUNTER_OUTCOMES + at]!);
  out.family(BATCH);
  for (const { labels, block } of queues) {
    const sizes = block.counters.subarray(COUNTER_BATCH_SIZES, COUNTER_BATCH_SIZES + BATCH_SIZES);
    histogram(out, labels, BATCH_BOUNDS, sizes, block.counters[COUNTER_PACKETS]!);
  }
  out.family(LATENCY);
  for (const { labels, block } of queues) {
    const times = block.counters.subarray(COUNTER_LATENCIES, COUNTER_LATENCIES + LATENCY_BUCKETS);
    histogram(out, labels, LATENCY_BOUNDS, times, block.counters[COUNTER_LATENCY_SUM_US]! / 1e6);
  }
}

/** What the kernel says of the queues and of their threads. */
function writeKernel(out: Exposition, queues: readonly Queue[], queueLength: number): void {
  const known = queues.filter(({ kernel }) => !Number.isNaN(kernel.waiting));
  out.family(WAITING);
  for (const { labels, kernel } of known) out.sample(labels, kernel.waiting);
  out.family(LIMIT);
  for (const { labels } of queues) out.sample(labels, queueLength);
  out.family(LOST);
  for (const { labels, kernel } of known) {
    out.sample(joinLabels(labels, labelText({ full: "queue" })), kernel.queueFull);
    out.sample(joinLabels(labels, labelText({ full: "buffer" })), kernel.bufferFull);
  }
  out.family(CPU);
  for (const { labels, block } of queues) {
    out.sample(joinLabels(labels, labelText({ mode: "user" })), block.samples[SAMPLE_USER_MS]! / 1_000);
    out.sample(joinLabels(labels, labelText({ mode: "system" })), block.samples[SAMPLE_SYSTEM_MS]! / 1_000);
  }
}
