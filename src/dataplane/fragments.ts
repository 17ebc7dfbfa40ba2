import { FragmentSpan, type Packet } from "#packet";
import {
  COUNTER_FRAGMENT_BUCKETS,
  COUNTER_FRAGMENT_COLLISIONS,
  COUNTER_FRAGMENT_COMPLETED,
  COUNTER_FRAGMENT_CUT,
  COUNTER_FRAGMENT_DISCARDED,
  COUNTER_FRAGMENT_EXPIRED,
  COUNTER_FRAGMENT_HELD,
  COUNTER_FRAGMENT_HELD_NOW,
  COUNTER_FRAGMENT_INSERTS,
  COUNTER_FRAGMENT_LOOKUPS,
  COUNTER_FRAGMENT_REINJECT_FAILURES,
  COUNTER_FRAGMENT_REJECTED,
  COUNTER_FRAGMENT_STRAY,
} from "#tables";
import { FragmentKey } from "./fragment-key.js";
import { createRecordMemory, FragmentRecords, type RecordOptions } from "./fragment-records.js";
import { FragmentSignals } from "./fragment-signals.js";
import { type FragmentSink, HeldFragments, PACKET_LISTS, packetList } from "./held-fragments.js";

/** Counters of a thread, at least; see src/tables/counters.ts. */
const COUNTERS = 64;

/** What `later` answers instead of a fwmark: the packet's first fragment is not on record. */
export const UNKNOWN_FRAGMENT = -1;
/** The same, and a copy is held until it is. */
export const HELD_FRAGMENT = -2;

/** What holding fragments takes. */
export type HoldOptions = {
  readonly slots: number;
  readonly slotBytes: number;
  readonly signalMemory: SharedArrayBuffer;
  readonly workers: number;
  readonly wake: (portId: number) => void;
  /** Makes the way back into the kernel for fragments that lie in `bytes`. */
  readonly openSink: (bytes: Uint8Array) => FragmentSink;
  /** Whether the packet whose bytes begin at `start` came back through that way. */
  readonly isReinjected: (start: number) => boolean;
};

export type FragmentsOptions = RecordOptions & {
  readonly recordMemory: SharedArrayBuffer;
  /** Number of the thread, from 0. */
  readonly worker: number;
  /** Key of the hashes, the same in all threads. */
  readonly seed: number;
  /** null: later fragments that come before their first one are dropped. */
  readonly hold: HoldOptions | null;
  /** The thread's counters; COUNTER_FRAGMENT_… of it are written here. */
  readonly counters: Float64Array;
  /** Monotonic, of all threads and processes alike. */
  readonly nowMs: () => number;
};

/**
 * The fragments of one thread: later ones, which carry no ports, go the way of their packet's first one. What came too
 * early is held, and goes back into the kernel when the first one has been decided.
 *
 * A first fragment always goes the way of its own ports; a record only tells the others. Everything is bounded: records,
 * held fragments and their time. Allocates nothing per packet, throws nothing.
 */
export class Fragments {
  readonly #key: FragmentKey;
  readonly #probe: FragmentKey;
  readonly #span = new FragmentSpan();
  readonly #records: FragmentRecords;
  readonly #counters: Float64Array;
  readonly #nowMs: () => number;
  readonly #hold: {
    readonly pool: HeldFragments;
    readonly sink: FragmentSink;
    readonly signals: FragmentSignals;
  } | null;
  readonly #isReinjected: (start: number) => boolean;
  readonly #isKnown = (key: FragmentKey) => this.#records.find(key, this.#nowMs()) >= 0;

  constructor(options: FragmentsOptions) {
    const { worker, seed, hold } = options;
    this.#key = new FragmentKey(seed);
    this.#probe = new FragmentKey(seed);
    this.#records = new FragmentRecords(options.recordMemory, options, worker + 1);
    this.#counters = options.counters;
    this.#nowMs = options.nowMs;
    this.#isReinjected = hold?.isReinjected ?? (() => false);
    if (hold === null) {
      this.#hold = null;
      return;
    }
    const signals = new FragmentSignals(hold.signalMemory, worker, hold.workers, hold.wake);
    const pool = new HeldFragments({ ...hold, lifetimeMs: options.lifetimeMs }, signals);
    this.#hold = { pool, signals, sink: hold.openSink(pool.bytes) };
  }

  /** The netlink port that ends a blocking receive of this thread. */
  setPort(portId: number): void {
    this.#hold?.signals.setPort(portId);
  }

  /**
   * A later fragment, in `bytes[start, end)` as `packet` has it.
   * @returns the fwmark (≥ 0) of its first fragment, {@link UNKNOWN_FRAGMENT} or {@link HELD_FRAGMENT}
   */
  later(packet: Packet, bytes: Uint8Array, start: number, end: number, etherType: number): number {
    const nowMs = this.#nowMs();
    this.#count(COUNTER_FRAGMENT_LOOKUPS);
    this.#key.load(packet);
    this.#span.read(bytes, start, end, etherType);
    const fwmark = this.#records.find(this.#key, nowMs);
    if (fwmark < 0) return this.#keep(bytes, start, end, nowMs);
    this.#note();
    return fwmark;
  }

  /** A first fragment that was decided: its packet's other fragments follow, those held at once. */
  first(packet: Packet, bytes: Uint8Array, start: number, end: number, etherType: number, fwmark: number): void {
    const nowMs = this.#nowMs();
    this.#count(COUNTER_FRAGMENT_LOOKUPS);
    this.#key.load(packet);
    this.#span.read(bytes, start, end, etherType);
    this.#records.record(this.#key, fwmark, nowMs);
    this.#countInsertion();
    this.#note();
    if (this.#hold === null) return;
    const { pool, sink, signals } = this.#hold;
    pool.expire(nowMs);
    this.#countPool(pool, pool.release(this.#key, sink, nowMs));
    signals.tellOthers(packetList(this.#key));
  }

  /** Once per turn of the packet loop: hands on what other threads made ready, forgets what was held too long. */
  turn(): void {
    if (this.#hold === null) return;
    const { pool, signals, sink } = this.#hold;
    if (pool.count > 0) pool.expire(this.#nowMs());
    if (signals.takeWoken()) {
      const nowMs = this.#nowMs();
      for (let list = 0; list < PACKET_LISTS; list++)
        if (signals.takeReady(list))
          this.#countPool(pool, pool.releaseKnown(list, this.#probe, this.#isKnown, sink, nowMs));
    }
    this.#countPool(pool, 0);
  }

  /** Holds a copy of the fragment in hand, if it is whole and was not held before. */
  #keep(bytes: Uint8Array, start: number, end: number, nowMs: number): number {
    if (this.#hold === null) return UNKNOWN_FRAGMENT;
    const { pool, sink } = this.#hold;
    if (this.#isReinjected(start)) {
      this.#count(COUNTER_FRAGMENT_STRAY);
      return UNKNOWN_FRAGMENT;
    }
    const length = this.#span.packetBytes;
    if (length === 0 || length > end - start || length > pool.slotBytes) {
      this.#count(COUNTER_FRAGMENT_CUT);
      return UNKNOWN_FRAGMENT;
    }
    pool.expire(nowMs);
    pool.hold(this.#key, bytes, start, length, nowMs);
    this.#count(COUNTER_FRAGMENT_HELD);
    // Another thread may have written the record since; now that we are known to wait, later ones wake us.
    const isKnown = this.#records.find(this.#key, nowMs) >= 0;
    this.#countPool(pool, isKnown ? pool.release(this.#key, sink, nowMs) : 0);
    return HELD_FRAGMENT;
  }

  #note(): void {
    if (this.#records.note(this.#span.from, this.#span.to, this.#span.isLast)) this.#count(COUNTER_FRAGMENT_COMPLETED);
  }

  /** The pool has changed; `failed` of the fragments that left it were refused by the sink. */
  #countPool(pool: HeldFragments, failed: number): void {
    this.#counters[COUNTER_FRAGMENT_REINJECT_FAILURES]! += failed;
    this.#counters[COUNTER_FRAGMENT_HELD_NOW] = pool.count;
    this.#counters[COUNTER_FRAGMENT_DISCARDED] = pool.discarded;
  }

  #countInsertion(): void {
    const { insertion } = this.#records;
    if (insertion.isNew) this.#count(COUNTER_FRAGMENT_INSERTS);
    if (insertion.isShared) this.#count(COUNTER_FRAGMENT_COLLISIONS);
    if (insertion.isExtra) this.#count(COUNTER_FRAGMENT_BUCKETS);
    if (insertion.isRejected) this.#count(COUNTER_FRAGMENT_REJECTED);
    if (insertion.isExpired) this.#count(COUNTER_FRAGMENT_EXPIRED);
  }

  #count(counter: number): void {
    this.#counters[counter]!++;
  }
}

/** Fragments of one thread that shares them with nobody and holds none: for tools. */
export function soloFragments(options: RecordOptions, nowMs: () => number): Fragments {
  return new Fragments({
    ...options,
    recordMemory: createRecordMemory(options),
    worker: 0,
    seed: 0,
    hold: null,
    counters: new Float64Array(COUNTERS),
    nowMs,
  });
}
