import { Classification, classify } from "#flow";
import type { PacketBatch } from "#netlink/queue";
import { RC_FIRST_FRAGMENT, RC_LATER_FRAGMENT, UNUSABLE } from "#packet";
import { RECORD, type RingMemory, RingWriter, SELECTION, type TraceFile } from "#tables";
import type { Decider } from "./decide.js";
import type { RuleView } from "./rule-view.js";
import type { TableView } from "./table-view.js";
import { TokenBuckets } from "./token-buckets.js";

const SCTP = 132;
const NONE = -1;
/** The wall clock is looked at again after so long without a batch that somebody watched; in between a monotonic one counts. */
const CLOCK_GAP_MS = 1_000;

/**
 * Records the decisions that somebody watches, in the worker's own ring of shared memory. While nobody watches, `enter`
 * is one atomic load per batch and nothing else is called. Allocates nothing, waits for nobody; each selection has a rate
 * of its own, so that a flood under one never hides the few packets of another.
 */
export class TraceTap {
  readonly #file: TraceFile;
  readonly #ring: RingWriter;
  readonly #hits: Float64Array;
  readonly #rules: RuleView;
  readonly #tables: TableView;
  readonly #buckets: TokenBuckets;
  readonly #nowMs: () => number;
  readonly #wallMs: () => number;
  readonly #classification = new Classification();
  /** Selections in force for the batch. */
  #mask = 0;
  #lastMs = Number.NEGATIVE_INFINITY;
  /** Wall clock at `nowMs` = 0: whole seconds, and what is missing to them in ms. */
  #originSeconds = 0;
  #originMs = 0;
  #seconds = 0;
  #nanoseconds = 0;

  constructor(parts: {
    readonly file: TraceFile;
    /** The ring that this worker alone writes. */
    readonly ring: RingMemory;
    /** The trace rules. */
    readonly rules: RuleView;
    /** Where the decider's flow rules come from. */
    readonly tables: TableView;
    /** Packets a second that each selection may record. */
    readonly packetsPerSecond: number;
    /** Monotonic clock, and the wall clock, in ms. */
    readonly nowMs: () => number;
    readonly wallMs: () => number;
  }) {
    this.#file = parts.file;
    this.#ring = new RingWriter(parts.ring);
    this.#hits = parts.ring.ruleHits;
    this.#rules = parts.rules;
    this.#tables = parts.tables;
    this.#buckets = new TokenBuckets(parts.packetsPerSecond);
    this.#nowMs = parts.nowMs;
    this.#wallMs = parts.wallMs;
  }

  /** Begins a batch. @returns whether anybody watches; then `packet` is to be called for each packet, and `leave` */
  enter(): boolean {
    const mask = this.#file.mask;
    if (mask === 0) return false;
    this.#mask = mask;
    this.#readClock();
    if ((mask & SELECTION.flows) !== 0) this.#rules.enter();
    return true;
  }

  /** Records the packet that `decider` has just decided, if it is selected and the rate allows. */
  packet(batch: PacketBatch, index: number, decider: Decider, fwmark: number): void {
    const { packet } = decider;
    const { rc } = packet;
    let selected: number = SELECTION.packet;
    if (decider.stream >= 0) selected |= SELECTION.target;
    let traceRule = NONE;
    if (rc !== UNUSABLE) {
      if ((rc & (RC_FIRST_FRAGMENT | RC_LATER_FRAGMENT)) !== 0) selected |= SELECTION.frag;
      if (packet.protocol === SCTP) selected |= SELECTION.sctp;
      if ((this.#mask & SELECTION.flows) !== 0) {
        // A later fragment has no protocol and no ports: rules that ask for addresses alone take it.
        traceRule = classify(
          this.#rules.program,
          packet,
          batch.bytes,
          batch.end[index]!,
          true, // nfqlb: trace flows always have promiscuous ping on
          this.#hits,
          this.#classification,
        );
        if (traceRule !== NONE) selected |= SELECTION.flows;
      }
    }
    selected &= this.#mask;
    if (selected === 0) return;
    const allowed = this.#buckets.take(selected, this.#ring);
    if (allowed !== 0) this.#record(allowed, batch, index, decider, fwmark, traceRule);
  }

  /** Ends a batch that somebody watches. */
  leave(): void {
    if ((this.#mask & SELECTION.flows) !== 0) this.#rules.leave();
  }

  #record(
    selection: number,
    batch: PacketBatch,
    index: number,
    decider: Decider,
    fwmark: number,
    traceRule: number,
  ): void {
    const ring = this.#ring;
    const { words } = ring;
    const { packet } = decider;
    const at = ring.next();
    words[at + RECORD.selection] = selection;
    words[at + RECORD.seconds] = this.#seconds;
    words[at + RECORD.nanoseconds] = this.#nanoseconds;
    words[at + RECORD.etherType] = batch.etherType[index]!;
    words[at + RECORD.outcome] = decider.outcome;
    words[at + RECORD.fwmark] = fwmark;
    words[at + RECORD.rule] = decider.rule;
    words[at + RECORD.ruleGeneration] = this.#tables.rulesGeneration;
    words[at + RECORD.traceRule] = traceRule;
    words[at + RECORD.traceGeneration] = this.#rules.generation;
    words[at + RECORD.stream] = decider.stream;
    words[at + RECORD.hash] = decider.hash;
    words[at + RECORD.lookupIndex] = decider.lookupIndex;
    words[at + RECORD.activeIndex] = decider.activeIndex;
    words[at + RECORD.rc] = packet.rc;
    words[at + RECORD.length] = batch.originalLength(index);
    ring.setKey(at, packet.key);
    ring.setPacket(at, batch.bytes, batch.start[index]!, batch.end[index]!);
    ring.commit();
  }

  /** The time of the batch, and what it adds to the buckets. */
  #readClock(): void {
    const nowMs = this.#nowMs();
    if (nowMs - this.#lastMs > CLOCK_GAP_MS) {
      const originMs = this.#wallMs() - nowMs;
      this.#originSeconds = Math.floor(originMs / 1000);
      this.#originMs = originMs - this.#originSeconds * 1000;
    }
    const sinceMs = this.#originMs + nowMs;
    const seconds = Math.floor(sinceMs / 1000);
    this.#seconds = this.#originSeconds + seconds;
    this.#nanoseconds = Math.floor((sinceMs - seconds * 1000) * 1e6);
    this.#buckets.fill(nowMs - this.#lastMs);
    this.#lastMs = nowMs;
  }
}
