import {
  COUNTER_BATCH_SIZES,
  COUNTER_BATCHES,
  COUNTER_KERNEL_ERRORS,
  COUNTER_LAST_PACKET_ID,
  COUNTER_OUTCOMES,
  COUNTER_OVERRUNS,
  COUNTER_PACKETS,
  COUNTER_SEND_FAILURES,
  type CounterBlock,
} from "#tables";
import type { Outcome } from "./outcome.js";

/** The packet loop's counters, in its own block of shared memory; one writer, no atomics. */
export class LoopCounters {
  readonly #counters: Float64Array;

  constructor(block: CounterBlock) {
    this.#counters = block.counters;
  }

  /** Packets up to this one were received; should the thread fail, its successor drops those that have no verdict. */
  received(packetId: number): void {
    this.#counters[COUNTER_LAST_PACKET_ID] = packetId;
  }

  outcome(outcome: Outcome): void {
    this.#counters[COUNTER_OUTCOMES + outcome]!++;
  }

  /** A batch was answered. `sendErrno` 0 = its verdicts were taken; `kernelErrors` seen so far in all. */
  batch(packets: number, sendErrno: number, kernelErrors: number): void {
    const counters = this.#counters;
    counters[COUNTER_BATCHES]!++;
    counters[COUNTER_BATCH_SIZES + 32 - Math.clz32(packets - 1)]!++; // log2, rounded up
    counters[COUNTER_PACKETS]! += packets;
    if (sendErrno !== 0) counters[COUNTER_SEND_FAILURES]!++;
    counters[COUNTER_KERNEL_ERRORS] = kernelErrors;
  }

  /** The socket's buffer was full: the kernel dropped packets. */
  overrun(): void {
    this.#counters[COUNTER_OVERRUNS]!++;
  }
}
