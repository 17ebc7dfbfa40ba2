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
import { type Definition, type Family, histogramSamples, type Labels, type Sample, type Source } from "./family.js";

/** A queue's block of counters and its labels. */
type Queue = { readonly block: CounterBlock; readonly kernel: QueueSamples; readonly labels: Labels };

const counter = (name: string, help: string): Definition => ({ name: `stateless_lb_${name}`, type: "counter", help });
const gauge = (name: string, help: string): Definition => ({ name: `stateless_lb_${name}`, type: "gauge", help });
const histogram = (name: string, help: string): Definition => ({
  name: `stateless_lb_${name}`,
  type: "histogram",
  help,
});

/** Metrics of one number per queue: one of the thread's counters. */
const COUNTERS: readonly (readonly [Definition, number])[] = [
  [counter("queue_overruns_total", "Receives that told of packets lost for a full socket buffer"), COUNTER_OVERRUNS],
  [counter("queue_send_failures_total", "Sends of verdicts that failed"), COUNTER_SEND_FAILURES],
  [counter("queue_kernel_errors_total", "Errors that the kernel told of verdicts"), COUNTER_KERNEL_ERRORS],
  [
    counter("queue_thread_starts_total", "Times a thread has begun to serve the queue; above 1 it failed"),
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
const BATCH = histogram("queue_batch_packets", "Packets per receive");
const LATENCY = histogram(
  "verdict_latency_seconds",
  "Time from receive to verdict sent, per packet, of every 16th batch; the time in the queue is not in it",
);
const WAITING = gauge("queue_waiting_packets", "Packets in the kernel that wait for their verdict");
const LIMIT = gauge("queue_limit_packets", "Packets that the queue holds; more are dropped");
const LOST = counter(
  "queue_lost_packets_total",
  "Packets that the kernel dropped before they were received, by full buffer",
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
  return { name: "queues", read: () => readQueues(watch.current()) };
}

/** @param counters null before the first data plane */
function readQueues(counters: CounterFile | null): readonly Family[] {
  if (counters === null) return toFamilies([], 0, false);
  const owner = counters.owner();
  const { queues: range, queueLength } = optionsFrom(owner?.settings ?? "");
  const queues = queueNumbers(range);
  const nowMs = Number(process.hrtime.bigint()) / 1e6;
  const states = queues.length === 0 ? null : statesInsteadOfSamples(counters, nowMs);
  const blocks = queues.map((queue, worker) => {
    const block = counters.block(worker);
    return { block, kernel: queueSamples(block, queue, states), labels: { queue: String(queue) } };
  });
  return toFamilies(blocks, queueLength, owner?.isReady === true && !isHanging(owner, nowMs));
}

function toFamilies(queues: readonly Queue[], queueLength: number, isReady: boolean): readonly Family[] {
  const perQueue = (samplesOf: (queue: Queue) => readonly Sample[]) => queues.flatMap(samplesOf);
  const split = ({ labels }: Queue, label: string, values: Readonly<Record<string, number>>): readonly Sample[] =>
    Object.entries(values).map(([text, value]) => ({ labels: { ...labels, [label]: text }, value }));
  return [
    { ...UP, samples: [{ labels: {}, value: Number(isReady) }] },
    {
      ...PACKETS,
      samples: perQueue((queue) => {
        const { counters } = queue.block;
        const outcomes = Object.entries(OUTCOME).map(([text, at]) => [text, counters[COUNTER_OUTCOMES + at]!]);
        return split(queue, "outcome", Object.fromEntries(outcomes));
      }),
    },
    {
      ...BATCH,
      samples: perQueue(({ labels, block: { counters } }) => {
        const sizes = counters.subarray(COUNTER_BATCH_SIZES, COUNTER_BATCH_SIZES + BATCH_SIZES);
        return histogramSamples(labels, BATCH_BOUNDS, sizes, counters[COUNTER_PACKETS]!);
      }),
    },
    {
      ...LATENCY,
      samples: perQueue(({ labels, block: { counters } }) => {
        const times = counters.subarray(COUNTER_LATENCIES, COUNTER_LATENCIES + LATENCY_BUCKETS);
        return histogramSamples(labels, LATENCY_BOUNDS, times, counters[COUNTER_LATENCY_SUM_US]! / 1e6);
      }),
    },
    {
      ...WAITING,
      samples: queues.map(({ labels, kernel }) => ({ labels, value: kernel.waiting })),
    },
    {
      ...LIMIT,
      samples: queues.map(({ labels }) => ({ labels, value: queueLength })),
    },
    {
      ...LOST,
      samples: perQueue((queue) => {
        const { queueFull, bufferFull } = queue.kernel;
        return split(queue, "full", { queue: queueFull, buffer: bufferFull });
      }),
    },
    {
      ...CPU,
      samples: perQueue((queue) => {
        const { samples } = queue.block;
        return split(queue, "mode", {
          user: samples[SAMPLE_USER_MS]! / 1_000,
          system: samples[SAMPLE_SYSTEM_MS]! / 1_000,
        });
      }),
    },
    ...COUNTERS.map(([definition, index]) => ({
      ...definition,
      samples: queues.map(({ labels, block }) => ({ labels, value: block.counters[index]! })),
    })),
  ];
}
