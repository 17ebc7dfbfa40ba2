import { type QueueState, readQueueStates } from "#netlink/queue";
import {
  type CounterBlock,
  type CounterFile,
  SAMPLE_QUEUE_DROPPED,
  SAMPLE_TIME_MS,
  SAMPLE_USER_DROPPED,
  SAMPLE_WAITING,
} from "#tables";

/** Samples are five a second; older ones tell nothing of now. */
const FRESH_MS = 1_000;

/** What only the kernel knows of a queue. Each is NaN where neither the data plane nor this user may know. */
export type QueueSamples = {
  /** Packets that wait for their verdict. */
  readonly waiting: number;
  /** Packets lost because the queue, or the socket's buffer, was full; since the data plane's start. */
  readonly queueFull: number;
  readonly bufferFull: number;
};

/**
 * The kernel's word where the data plane's samples are old, for one that hangs takes none, or where its user may not know;
 * null where they are good, or this user may not know either.
 * @param nowMs CLOCK_MONOTONIC in ms
 */
export function statesInsteadOfSamples(counters: CounterFile, nowMs: number): ReadonlyMap<number, QueueState> | null {
  const { samples } = counters.block(0);
  const isFresh = nowMs - samples[SAMPLE_TIME_MS]! < FRESH_MS;
  return isFresh && !Number.isNaN(samples[SAMPLE_WAITING]!) ? null : readQueueStates();
}

/** @param states as {@link statesInsteadOfSamples} gave them */
export function queueSamples(
  { samples }: CounterBlock,
  queue: number,
  states: ReadonlyMap<number, QueueState> | null,
): QueueSamples {
  const state = states?.get(queue);
  const [waiting, queueFull, bufferFull] = [SAMPLE_WAITING, SAMPLE_QUEUE_DROPPED, SAMPLE_USER_DROPPED].map(
    (sample) => samples[sample]!,
  ) as [number, number, number];
  if (state === undefined) return { waiting, queueFull, bufferFull };
  // The kernel counts from the binding on, the data plane from its start on: whichever has seen more.
  return {
    waiting: state.waiting,
    queueFull: Math.max(queueFull || 0, state.queueDropped),
    bufferFull: Math.max(bufferFull || 0, state.userDropped),
  };
}
