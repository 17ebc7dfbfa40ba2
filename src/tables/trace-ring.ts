import type { RingMemory } from "./trace-file.js";
import {
  HEAD_NEXT,
  HEAD_SUPPRESSED,
  KEY_AT,
  KEY_BYTES,
  PACKET_AT,
  PACKET_BYTES,
  RECORD,
  RECORD_BYTES,
  RECORD_WORDS,
  SELECTIONS,
} from "./trace-layout.js";

/**
 * The oldest records are never read: a writer may be at work on the one that comes next, and on machines that reorder
 * stores some of its words may be seen before the number that announces them.
 */
const RESERVE = 64;

/** One record, copied. Fields as in trace-layout.ts. */
export type TraceRecord = {
  readonly selection: number;
  readonly seconds: number;
  readonly nanoseconds: number;
  readonly etherType: number;
  readonly outcome: number;
  readonly fwmark: number;
  readonly rule: number;
  readonly ruleGeneration: number;
  readonly traceRule: number;
  readonly traceGeneration: number;
  readonly stream: number;
  readonly hash: number;
  readonly lookupIndex: number;
  readonly activeIndex: number;
  readonly rc: number;
  /** Bytes of the packet; `bytes` holds its first ones. */
  readonly length: number;
  readonly key: Uint8Array;
  readonly bytes: Uint8Array;
};

/**
 * Writes a ring; one per ring and moment. Never waits and allocates nothing: it overwrites what is oldest, whether read or
 * not. A successor, after a thread's restart, goes on where the last one stopped.
 */
export class RingWriter {
  readonly words: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #head: Int32Array;
  readonly #mask: number;

  constructor({ head, words, bytes, records }: RingMemory) {
    this.#head = head;
    this.words = words;
    this.#bytes = bytes;
    this.#mask = records - 1;
  }

  /** Index in `words` of the record to fill; readers don't look at it before `commit`. */
  next(): number {
    return (this.#head[HEAD_NEXT]! & this.#mask) * RECORD_WORDS;
  }

  /** Hands the filled record to the readers: the store orders its words before the new number. */
  commit(): void {
    Atomics.store(this.#head, HEAD_NEXT, (this.#head[HEAD_NEXT]! + 1) | 0);
  }

  /** Copies a packet's hash key into the record at `at`. */
  setKey(at: number, key: Uint8Array): void {
    const bytes = this.#bytes;
    const to = at * 4 + KEY_AT;
    for (let i = 0; i < KEY_BYTES; i++) bytes[to + i] = key[i]!;
  }

  /** Copies the first bytes of the packet in `packet[start, end)` into the record at `at`. */
  setPacket(at: number, packet: Uint8Array, start: number, end: number): void {
    const bytes = this.#bytes;
    const to = at * 4 + PACKET_AT;
    const count = Math.min(end - start, PACKET_BYTES);
    for (let i = 0; i < count; i++) bytes[to + i] = packet[start + i]!;
    this.words[at + RECORD.copied] = count;
  }

  /** Counts a record that the rate forbade, under the selection with this bit number. */
  suppress(bit: number): void {
    this.#head[HEAD_SUPPRESSED + bit] = (this.#head[HEAD_SUPPRESSED + bit]! + 1) | 0;
  }

  /** Writes a record without a packet: a message of at most PACKET_BYTES bytes, cut there. Allocates. */
  writeMessage(selection: number, level: number, nowMs: number, text: string): void {
    const at = this.next();
    const seconds = Math.floor(nowMs / 1000);
    const bytes = new TextEncoder().encode(text).subarray(0, PACKET_BYTES);
    this.words.fill(0, at, at + RECORD_WORDS);
    this.words[at + RECORD.selection] = selection;
    this.words[at + RECORD.seconds] = seconds;
    this.words[at + RECORD.nanoseconds] = Math.floor((nowMs - seconds * 1000) * 1e6);
    this.words[at + RECORD.outcome] = level;
    this.words[at + RECORD.length] = bytes.length;
    this.words[at + RECORD.copied] = bytes.length;
    this.#bytes.set(bytes, at * 4 + PACKET_AT);
    this.commit();
  }
}

/** Follows a ring from its present end on; any number of readers may. */
export class RingReader {
  /** Records that were overwritten before they were read, all watchers' selections together. */
  lost = 0;
  readonly #ring: RingMemory;
  readonly #suppressedBefore: readonly number[];
  #cursor: number;

  constructor(ring: RingMemory) {
    this.#ring = ring;
    this.#cursor = Atomics.load(ring.head, HEAD_NEXT);
    this.#suppressedBefore = this.#suppressedTotals();
  }

  /** The next record, or null when there is none yet. */
  read(): TraceRecord | null {
    const { head, records } = this.#ring;
    for (;;) {
      const waiting = (Atomics.load(head, HEAD_NEXT) - this.#cursor) | 0;
      if (waiting === 0) return null;
      if (waiting > records - RESERVE || waiting < 0) this.#skip(waiting);
      const record = this.#copy(this.#cursor & (records - 1));
      // The writer may have come round meanwhile; then the copy may be of two records.
      const since = (Atomics.load(head, HEAD_NEXT) - this.#cursor) | 0;
      if (since > records - RESERVE) continue;
      this.#cursor = (this.#cursor + 1) | 0;
      return record;
    }
  }

  /** Records that the rate forbade since this reader began, by bit number of the selection. */
  suppressed(): readonly number[] {
    return this.#suppressedTotals().map((total, bit) => (total - this.#suppressedBefore[bit]!) >>> 0);
  }

  #suppressedTotals(): readonly number[] {
    return Array.from({ length: SELECTIONS }, (_, bit) => Atomics.load(this.#ring.head, HEAD_SUPPRESSED + bit));
  }

  /** Goes to half a ring behind the writer, so that the next turn does not lose at once again. */
  #skip(waiting: number): void {
    const skipped = waiting - this.#ring.records / 2;
    this.lost += skipped >>> 0;
    this.#cursor = (this.#cursor + skipped) | 0;
  }

  #copy(index: number): TraceRecord {
    const words = this.#ring.words.slice(index * RECORD_WORDS, (index + 1) * RECORD_WORDS);
    const bytes = new Uint8Array(words.buffer, 0, RECORD_BYTES);
    const copied = Math.min(words[RECORD.copied]! >>> 0, PACKET_BYTES);
    return {
      selection: words[RECORD.selection]!,
      seconds: words[RECORD.seconds]! >>> 0,
      nanoseconds: words[RECORD.nanoseconds]! >>> 0,
      etherType: words[RECORD.etherType]!,
      outcome: words[RECORD.outcome]!,
      fwmark: words[RECORD.fwmark]!,
      rule: words[RECORD.rule]!,
      ruleGeneration: words[RECORD.ruleGeneration]! >>> 0,
      traceRule: words[RECORD.traceRule]!,
      traceGeneration: words[RECORD.traceGeneration]! >>> 0,
      stream: words[RECORD.stream]!,
      hash: words[RECORD.hash]! >>> 0,
      lookupIndex: words[RECORD.lookupIndex]!,
      activeIndex: words[RECORD.activeIndex]!,
      rc: words[RECORD.rc]!,
      length: words[RECORD.length]! >>> 0,
      key: bytes.subarray(KEY_AT, KEY_AT + KEY_BYTES),
      bytes: bytes.subarray(PACKET_AT, PACKET_AT + copied),
    };
  }
}
