import type { PacketBatch, VerdictBuffer } from "#netlink/queue";
import { MSG_DONTWAIT, sleepMicroseconds } from "#sys";
import type { LoopCounters } from "./counters.js";
import type { Decider } from "./decide.js";
import type { Fragments } from "./fragments.js";
import type { IdleRelease } from "./idle-release.js";
import type { TableView } from "./table-view.js";
import type { TraceTap } from "./trace-tap.js";

/**
 * After a small batch of several packets more are about to come: the thread lets them gather for the shortest sleep there
 * is (1 us and the timer slack, some 50 us in all; Maglev's batch timer is 50 us too) instead of being woken for each. A
 * lone packet is never followed by a sleep, and under load batches are too large for one.
 */
const GATHER_FROM = 2;
const GATHER_BELOW = 32;
const GATHER_US = 1;

/** What the packet loop works with; all of it belongs to one thread. */
export type Loop = {
  readonly fd: number;
  readonly batch: PacketBatch;
  readonly verdicts: VerdictBuffer;
  readonly tables: TableView;
  readonly decider: Decider;
  readonly fragments: Fragments;
  readonly counters: LoopCounters;
  readonly trace: TraceTap;
  readonly release: IdleRelease;
  /** Word 0 becomes 1 when the loop shall end. */
  readonly stop: Int32Array;
};

/**
 * The packet flow: takes packets from the queue, decides each, answers all of a batch in one send, in order of arrival.
 * No await, no allocation, no throw, no log inside the loop. Returns when `stop` is set and the queue is drained. While no packet
 * comes at all, what the thread's start left in memory is given back.
 * @throws {SysError} when the queue's socket cannot be used at all
 */
export function runLoop(loop: Loop): void {
  const { fd, batch, verdicts, tables, decider, fragments, counters, trace, release, stop } = loop;
  for (;;) {
    const isStopping = Atomics.load(stop, 0) !== 0;
    const count = isStopping ? batch.receive(fd, MSG_DONTWAIT) : batch.receive(fd); // up to 64 packets, one recvmmsg
    fragments.turn(); // what other threads made ready, what was held too long
    if (count <= 0) {
      counters.idle();
      if (count < 0) counters.overrun();
      else if (isStopping) return;
      else release.idle();
      continue;
    }
    counters.received(batch.packetId[count - 1]!);
    tables.enter(decider); // one atomic load: the whole batch sees these flow rules
    const isWatched = trace.enter(); // another one: whether anybody watches
    for (let i = 0; i < count; i++) {
      const fwmark = decider.decide(batch.bytes, batch.start[i]!, batch.end[i]!, batch.etherType[i]!);
      verdicts.put(batch.packetId[i]!, fwmark);
      counters.outcome(decider.outcome);
      if (isWatched) trace.packet(batch, i, decider, fwmark);
    }
    counters.batch(count, verdicts.send(fd), batch.errors); // one send, in the order of arrival; the packets travel on inside it

    if (isWatched) trace.leave();
    tables.leave(); // only now: who waits for readers of an old image knows that its marks are all on their way
    if (count >= GATHER_FROM && count < GATHER_BELOW) sleepMicroseconds(GATHER_US);
  }
}
