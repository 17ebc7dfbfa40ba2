import type { Stopwatch } from "#sys";
import {
  COUNTER_BATCH_SIZES,
  COUNTER_BATCHES,
  COUNTER_IDLE_RECEIVES,
  COUNTER_KERNEL_ERRORS,
  COUNTER_LAST_PACKET_ID,
  COUNTER_LATENCIES,
  COUNTER_LATENCY_SUM_US,
  COUNTER_OUTCOMES,
  COUNTER_OVERRUNS,
  COUNTER_PACKETS,
  COUNTER_SEND_FAILURES,
  type CounterBlock,
  LATENCY_BUCKETS,
  LATENCY_EVERY,
  LATENCY_FIRST_US,
} from "#tables";
import type { Outcome } from "./outcome.js";

/** Divides a time by the first bucket's bound. */
const LATENCY_SHIFT = Math.log2(LATENCY_FIRST_US);

/** The packet loop's counters, in its own block of shared memory; one writer, no atomics. */
export class LoopCounters {
  readonly #counters: Float64Array;
  readonly #stopwatch: Stopwatch;
  /** Batches until the next one whose time is taken; 0 = this one. */
  #untilTimed = 0;

  constructor(block: CounterBlock, stopwatch: Stopwatch) {
    this.#counters = block.counters;
    this.#stopwatch = stopwatch;
  }

  /** Packets up to this one were received; should the thread fail, its successor drops those that have no verdict. */
  received(packetId: number): void {
    this.#counters[COUNTER_LAST_PACKET_ID] = packetId;
    if (this.#untilTimed === 0) this.#stopwatch.start();
  }

  outcome(outcome: Outcome): void {
    this.#counters[COUNTER_OUTCOMES + outcome]!++;
  }

  /** A batch was answered. `sendErrno` 0 = its verdicts were taken; `kernelErrors` seen so far in all. */
  batch(packets: number, sendErrno: number, kernelErrors: number): void {
    const counters = this.#counters;
    if (this.#untilTimed === 0) this.#timed(packets);
    else this.#untilTimed--;
    counters[COUNTER_BATCHES]!++;
    counters[COUNTER_BATCH_SIZES + 32 - Math.clz32(packets - 1)]!++; // log2, rounded up
    counters[COUNTER_PACKETS]! += packets;
    if (sendErrno !== 0) counters[COUNTER_SEND_FAILURES]!++;
    counters[COUNTER_KERNEL_ERRORS] = kernelErrors;
  }

  /** Every packet of a batch has its verdict when the send is over, so the batch's time is each packet's. */
  #timed(packets: number): void {
    this.#untilTimed = LATENCY_EVERY - 1;
    const us = this.#stopwatch.elapsedUs();
    const bucket = us <= LATENCY_FIRST_US ? 0 : 32 - Math.clz32((us - 1) >> LATENCY_SHIFT);
    this.#counters[COUNTER_LATENCIES + Math.min(bucket, LATENCY_BUCKETS - 1)]! += packets;
    this.#counters[COUNTER_LATENCY_SUM_US]! += us * packets;
  }

  /** A receive ended without a packet: its time was over, or somebody woke the thread. */
  idle(): void {
    this.#counters[COUNTER_IDLE_RECEIVES]!++;
  }

  /** The socket's buffer was full: the kernel dropped packets. */
  overrun(): void {
    this.#counters[COUNTER_OVERRUNS]!++;
  }
}
