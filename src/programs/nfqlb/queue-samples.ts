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

/** What only the kernel knows of a queue. */
export type QueueSamples = {
  /** Packets that wait for their verdict. */
  readonly waiting: number;
  /** Packets lost because the queue, or the socket's buffer, was full; since the data plane's start. */
  readonly queueFull: number;
  readonly bufferFull: number;
};

/**
 * The kernel's word where the data plane's samples are old, for one that hangs takes none; null where they are fresh, or this
 * user may not know.
 * @param nowMs CLOCK_MONOTONIC in ms
 */
export function statesInsteadOfSamples(counters: CounterFile, nowMs: number): ReadonlyMap<number, QueueState> | null {
  const isFresh = nowMs - counters.block(0).samples[SAMPLE_TIME_MS]! < FRESH_MS;
  return isFresh ? null : readQueueStates();
}

/** @param states as {@link statesInsteadOfSamples} gave them */
export function queueSamples(
  { samples }: CounterBlock,
  queue: number,
  states: ReadonlyMap<number, QueueState> | null,
): QueueSamples {
  const state = states?.get(queue);
  // The kernel counts from the binding on, the data plane from its start on: whichever has seen more.
  return {
    waiting: state?.waiting ?? samples[SAMPLE_WAITING]!,
    queueFull: Math.max(samples[SAMPLE_QUEUE_DROPPED]!, state?.queueDropped ?? 0),
    bufferFull: Math.max(samples[SAMPLE_USER_DROPPED]!, state?.userDropped ?? 0),
  };
}
