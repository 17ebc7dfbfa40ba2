import { OUTCOME } from "#dataplane";
import {
  BATCH_SIZES,
  COUNTER_BATCH_SIZES,
  COUNTER_BATCHES,
  COUNTER_OUTCOMES,
  COUNTER_PACKETS,
  COUNTER_STARTS,
  CounterFile,
  isHanging,
  matchesOf,
  readFlows,
  readStreamCounts,
  SAMPLE_SYSTEM_MS,
  SAMPLE_TIME_MS,
  SAMPLE_USER_MS,
} from "#tables";
import { COUNTERS } from "./names.js";
import { type QueueSamples, queueSamples, statesInsteadOfSamples } from "./queue-samples.js";
import { optionsFrom, queueNumbers, type RunningOptions } from "./running.js";

/** What a queue has counted since the data plane's start. */
export type QueueCounts = QueueSamples & {
  readonly queue: number;
  readonly packets: number;
  readonly batches: number;
  /** Batches of 1, 2, 3…4, 5…8, 9…16, 17…32, 33…64 packets. */
  readonly batchSizes: readonly number[];
  /** Packets that the decision dropped. */
  readonly dropped: number;
  readonly userMs: number;
  readonly systemMs: number;
  /** When the data plane last read losses, waiting packets and CPU time, CLOCK_MONOTONIC in ms. */
  readonly sampleMs: number;
  /** How often a thread has begun to serve the queue. */
  readonly starts: number;
};

type FlowCounts = { readonly flow: string; readonly stream: string; readonly matches: number };

type TargetCounts = {
  readonly stream: string;
  readonly index: number;
  readonly fwmark: number;
  readonly packets: number;
  /** Its part of the lookup table's positions, 0…1. */
  readonly ideal: number;
};

/** Everything counted so far, at one moment. */
export type Snapshot = {
  /** CLOCK_MONOTONIC in ms. */
  readonly timeMs: number;
  readonly pid: number;
  readonly isReady: boolean;
  /** Its main thread has not done anything for seconds: it is stopped, or stuck. */
  readonly isHanging: boolean;
  readonly queues: readonly QueueCounts[];
  readonly flows: readonly FlowCounts[];
  readonly targets: readonly TargetCounts[];
};

/** Reads the counters of the data plane that runs on a folder, or null when none does. Nobody is asked or held up. */
export function readSnapshot(folder: string): Snapshot | null {
  const file = orNull(() => CounterFile.open(folder, COUNTERS));
  if (file === null) return null;
  using counters = file;
  const owner = counters.owner();
  if (owner === null) return null;
  const running = optionsFrom(owner.settings);
  const { flowsName } = running;
  const flows = flowsName === null ? null : orNull(() => readFlows(folder, flowsName));
  const streams = flows?.streams ?? (running.streamName === null ? [] : [running.streamName]);
  const timeMs = Number(process.hrtime.bigint()) / 1e6;
  const states = statesInsteadOfSamples(counters, timeMs);
  return {
    timeMs,
    pid: owner.pid,
    isReady: owner.isReady,
    isHanging: isHanging(owner, timeMs),
    queues: queueNumbers(running.queues).map((queue, worker) => ({
      ...readQueue(counters, queue, worker, running),
      ...queueSamples(counters.block(worker), queue, states),
    })),
    flows: (flows?.rules ?? []).map((stored) => ({
      flow: stored.rule.name,
      stream: stored.rule.target,
      matches: matchesOf(stored, (slot) => counters.sumRule(slot)),
    })),
    targets: streams.flatMap((stream) => orNull(() => readTargets(folder, stream)) ?? []),
  };
}

function readQueue(
  file: CounterFile,
  queue: number,
  worker: number,
  running: RunningOptions,
): Omit<QueueCounts, keyof QueueSamples> {
  const { counters, samples } = file.block(worker);
  const outcome = (index: number) => counters[COUNTER_OUTCOMES + index]!;
  const dropped =
    outcome(OUTCOME.unusable) +
    outcome(OUTCOME.unknownFragment) +
    (running.noFlowFwmark < 0 ? outcome(OUTCOME.noFlow) : 0) +
    (running.noTargetFwmark < 0 ? outcome(OUTCOME.noTarget) : 0);
  return {
    queue,
    packets: counters[COUNTER_PACKETS]!,
    batches: counters[COUNTER_BATCHES]!,
    batchSizes: Array.from(counters.subarray(COUNTER_BATCH_SIZES, COUNTER_BATCH_SIZES + BATCH_SIZES)),
    dropped,
    userMs: samples[SAMPLE_USER_MS]!,
    systemMs: samples[SAMPLE_SYSTEM_MS]!,
    sampleMs: samples[SAMPLE_TIME_MS]!,
    starts: counters[COUNTER_STARTS]!,
  };
}

/** The active targets of a stream, and those that are gone but have been counted. */
function readTargets(folder: string, stream: string): readonly TargetCounts[] {
  const { size, active, positions, hits } = readStreamCounts(folder, stream);
  return Array.from(active, (fwmark, index) => ({
    stream,
    index,
    fwmark,
    packets: hits[index]!,
    ideal: positions[index]! / size,
  })).filter(({ fwmark, packets }) => fwmark >= 0 || packets > 0);
}

/** What may be gone at any moment (a table, a file of counters) is null then. */
function orNull<T>(read: () => T): T | null {
  try {
    return read();
  } catch (error) {
    const { code } = error as { code?: string };
    if (code === "ENOENT" || code === "ERR_LAYOUT") return null;
    throw error;
  }
}
