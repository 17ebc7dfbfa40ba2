import { readFileSync } from "node:fs";
import { type QueueState, QueueStateReader } from "#netlink/queue";
import {
  COUNTER_BATCHES,
  COUNTER_IDLE_RECEIVES,
  COUNTER_LAST_PACKET_ID,
  COUNTER_STARTS,
  COUNTER_THREAD_ID,
  type CounterBlock,
  type CounterFile,
  SAMPLE_QUEUE_DROPPED,
  SAMPLE_SYSTEM_MS,
  SAMPLE_TIME_MS,
  SAMPLE_USER_DROPPED,
  SAMPLE_USER_MS,
  SAMPLE_WAITING,
} from "#tables";

/** A loss is told at most this often per queue. */
const TELL_EVERY_MS = 60_000;
/**
 * Samples in a row, a second of them, after which a thread without a sign of life hangs; it gives two a second at least. They
 * are counted, not timed: who stood still together with the thread sees a difference with the second sample.
 */
const HANGING_SAMPLES = 5;
/** USER_HZ, the unit of times in /proc: 100 on every Linux we run on. */
const MS_PER_TICK = 10;

/** What is told to the program. */
export type QueueEvents = {
  /** Packets were lost; at most once a minute per queue. */
  readonly onLoss: (loss: Loss) => void;
  /** A queue's thread does nothing, though packets wait (or may wait, where it is not known); with each sample. */
  readonly onHang: (queueNumber: number) => void;
};

/** Packets that a queue lost since it was last told. */
export type Loss = { readonly queueNumber: number; readonly queueDropped: number; readonly userDropped: number };

type Watched = {
  readonly queueNumber: number;
  readonly block: CounterBlock;
  /** The kernel's and the thread's numbers at the last sample: both begin anew with a new socket or thread. */
  queueDropped: number;
  userDropped: number;
  threadId: number;
  /** The last packet that it had received then. */
  packetId: number;
  userMs: number;
  systemMs: number;
  /** Signs of life at the last sample, and samples since they last changed. */
  signs: number;
  silentSamples: number;
  /** What of the losses was told, and when. */
  toldQueueDropped: number;
  toldUserDropped: number;
  toldAtMs: number;
};

/**
 * Reads from the kernel, with each sample, what the queues' threads cannot know (packets lost before they were received,
 * packets that wait, CPU time) into the counters, where everybody can see it. Tells of threads that hang.
 */
export class QueueMonitor implements Disposable {
  readonly #reader = new QueueStateReader();
  readonly #watched: readonly Watched[];
  readonly #events: QueueEvents;
  readonly #nowMs: () => number;
  /** As of the last sample; the same object as long as nothing changes in the kernel. */
  #states: ReadonlyMap<number, QueueState> | null = null;

  /**
   * @param queues numbers, in the order of the counters' blocks
   * @param nowMs CLOCK_MONOTONIC in ms
   */
  constructor(
    counters: CounterFile,
    queues: readonly number[],
    events: QueueEvents,
    nowMs: () => number = monotonicMs,
  ) {
    this.#watched = queues.map((queueNumber, worker) => ({
      queueNumber,
      block: counters.block(worker),
      queueDropped: 0,
      userDropped: 0,
      threadId: 0,
      packetId: 0,
      userMs: 0,
      systemMs: 0,
      signs: 0,
      silentSamples: 0,
      toldQueueDropped: 0,
      toldUserDropped: 0,
      toldAtMs: Number.NEGATIVE_INFINITY,
    }));
    this.#events = events;
    this.#nowMs = nowMs;
  }

  /** Takes one sample of every queue. `states`: null where this user may not know them; then losses are NaN. */
  sample(states: ReadonlyMap<number, QueueState> | null = this.#reader.read()): void {
    const timeMs = this.#nowMs();
    const isSame = states === this.#states;
    this.#states = states;
    for (const queue of this.#watched) {
      const { samples } = queue.block;
      const state = states?.get(queue.queueNumber);
      if (states === null) forgetLosses(samples);
      else if (state !== undefined && !isSame) addLosses(queue, state);
      addCpuTime(queue);
      samples[SAMPLE_TIME_MS] = timeMs;
      this.#tell(queue, timeMs);
      const mayWait = states === null || (state?.waiting ?? 0) > 0;
      if (countSilence(queue) >= HANGING_SAMPLES && mayWait) this.#events.onHang(queue.queueNumber);
    }
  }

  #tell(queue: Watched, timeMs: number): void {
    const { queueNumber, block } = queue;
    const queueDropped = block.samples[SAMPLE_QUEUE_DROPPED]! - queue.toldQueueDropped;
    const userDropped = block.samples[SAMPLE_USER_DROPPED]! - queue.toldUserDropped;
    const isLoss = queueDropped + userDropped > 0; // not if they are not known
    if (!isLoss || timeMs - queue.toldAtMs < TELL_EVERY_MS) return;
    queue.toldAtMs = timeMs;
    queue.toldQueueDropped += queueDropped;
    queue.toldUserDropped += userDropped;
    this.#events.onLoss({ queueNumber, queueDropped, userDropped });
  }

  [Symbol.dispose](): void {
    this.#reader[Symbol.dispose]();
  }
}

/** 0 would say that none were lost. */
function forgetLosses(samples: Float64Array): void {
  for (const sample of [SAMPLE_WAITING, SAMPLE_QUEUE_DROPPED, SAMPLE_USER_DROPPED]) samples[sample] = Number.NaN;
}

/** The kernel's counters are u32 and begin at 0 whenever a queue is bound. */
function addLosses(queue: Watched, { waiting, queueDropped, userDropped }: QueueState): void {
  const { samples } = queue.block;
  samples[SAMPLE_WAITING] = waiting;
  samples[SAMPLE_QUEUE_DROPPED]! += growth(queue.queueDropped, queueDropped);
  samples[SAMPLE_USER_DROPPED]! += growth(queue.userDropped, userDropped);
  queue.queueDropped = queueDropped;
  queue.userDropped = userDropped;
}

function addCpuTime(queue: Watched): void {
  const { samples, counters } = queue.block;
  const threadId = counters[COUNTER_THREAD_ID]!;
  const packetId = counters[COUNTER_LAST_PACKET_ID]!;
  if (threadId === queue.threadId && packetId === queue.packetId) return; // it has slept since then
  queue.packetId = packetId;
  const times = threadTimes(threadId);
  if (times === null) return;
  const isSame = threadId === queue.threadId;
  samples[SAMPLE_USER_MS]! += growth(isSame ? queue.userMs : 0, times.userMs);
  samples[SAMPLE_SYSTEM_MS]! += growth(isSame ? queue.systemMs : 0, times.systemMs);
  queue.threadId = threadId;
  queue.userMs = times.userMs;
  queue.systemMs = times.systemMs;
}

/** @returns samples in a row without a sign of the thread's life */
function countSilence(queue: Watched): number {
  const { counters } = queue.block;
  const signs = counters[COUNTER_BATCHES]! + counters[COUNTER_IDLE_RECEIVES]! + counters[COUNTER_STARTS]!;
  queue.silentSamples = signs === queue.signs ? queue.silentSamples + 1 : 0;
  queue.signs = signs;
  return queue.silentSamples;
}

function growth(before: number, now: number): number {
  return now >= before ? now - before : now;
}

/** CPU time of a thread of this process, or null when there is none (proc_pid_stat(5), fields 14 and 15). */
function threadTimes(threadId: number): { readonly userMs: number; readonly systemMs: number } | null {
  if (threadId === 0) return null;
  try {
    const text = readFileSync(`/proc/self/task/${threadId}/stat`, "utf8");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return { userMs: Number(fields[11]) * MS_PER_TICK, systemMs: Number(fields[12]) * MS_PER_TICK };
  } catch {
    return null; // it has ended
  }
}

/** CLOCK_MONOTONIC in ms: the same for every process of the machine. */
function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
