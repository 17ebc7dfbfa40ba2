import { type Classification, classify } from "#flow";
import {
  hashAddresses,
  hashKey,
  Packet,
  parse,
  RC_FIRST_FRAGMENT,
  RC_ICMP_ERROR,
  RC_LATER_FRAGMENT,
  UNUSABLE,
} from "#packet";
import { type Fragments, HELD_FRAGMENT } from "./fragments.js";
import { OUTCOME, type Outcome } from "./outcome.js";
import type { QuotedFragments } from "./quoted-fragments.js";
import type { StreamTables } from "./stream-tables.js";

const UDP = 17;
const NONE = -1;

/** Settings of a decision; names and meanings as nfqlb's options. */
export type DeciderOptions = {
  /** 1: SCTP is hashed on its ports only; anything else: on the whole key. */
  readonly hashMode: number;
  /** fwmark for packets that no flow takes; -1 drops. nfqlb: --nolb_fwmark. */
  readonly noFlowFwmark: number;
  /** fwmark for packets whose stream has no active target; -1 drops. nfqlb: --notargets_fwmark. */
  readonly noTargetFwmark: number;
  /** Echo requests match a flow by addresses alone. nfqlb: --promiscuous_ping. */
  readonly isPromiscuousPing: boolean;
};

/**
 * Decides the fwmark of packets: parse, tier, fragments, classify, hash, look up, in nfqlb's order (nfqlb 1.2.0
 * cmdLb.c and cmdFlowLb.c, packet handlers). One object per thread, reused for every packet; `decide` allocates nothing
 * and never throws. After a call the public fields tell how the decision came about.
 */
export class Decider {
  readonly packet = new Packet();
  outcome: Outcome = OUTCOME.unusable;
  /** Index of the rule that took the packet, in evaluation order, or -1. */
  rule = NONE;
  /** Index of the stream's table, or -1 when it was not asked. */
  stream = NONE;
  /** Hash of the packet's key (u32); valid when `stream` is not -1. */
  hash = 0;
  /** Position in the lookup table, or -1. */
  lookupIndex = NONE;
  /** Index of the target at that position, or -1. */
  activeIndex = NONE;

  /** Hits per counter slot; the owner's memory. */
  readonly hits: Float64Array;
  readonly #classification: Classification;
  readonly #options: DeciderOptions;
  readonly #streams: StreamTables;
  readonly #fragments: Fragments;
  readonly #quoted: QuotedFragments;
  readonly #tier: StreamTables | null;
  readonly #isHandedOver: (start: number) => boolean;
  readonly #udpEncapPort: number;
  readonly #hasFlows: boolean;
  /** The classifier program in force; set by the owner between batches. */
  program: Int32Array;

  constructor(parts: {
    readonly options: DeciderOptions;
    readonly classification: Classification;
    /** Flow rules, or null: stream 0 takes every packet. */
    readonly program: Int32Array | null;
    /** UDP destination port whose payload is SCTP, without flow rules; 0 = none. nfqlb: --sctp_encap. */
    readonly udpEncapPort: number;
    readonly streams: StreamTables;
    readonly fragments: Fragments;
    /** Where errors about fragments went. */
    readonly quoted: QuotedFragments;
    /** Table of the tier's balancers, keyed by addresses, or null. nfqlb: --lbshm. */
    readonly tier: StreamTables | null;
    /** Whether another balancer of the tier has handed the fragment at `start` to this one: no fragment travels twice. */
    readonly isHandedOver: (start: number) => boolean;
    readonly hits: Float64Array;
  }) {
    this.#options = parts.options;
    this.#classification = parts.classification;
    this.program = parts.program ?? new Int32Array(0);
    this.#hasFlows = parts.program !== null;
    this.#udpEncapPort = parts.udpEncapPort;
    this.#streams = parts.streams;
    this.#fragments = parts.fragments;
    this.#quoted = parts.quoted;
    this.#tier = parts.tier;
    this.hits = parts.hits;
    this.#isHandedOver = parts.isHandedOver;
  }

  /**
   * The fwmark (≥ 0) for the IP packet in `bytes[start, end)`, or -1: drop.
   * @param etherType 0x0800 IPv4, 0x86dd IPv6; anything else is unusable
   */
  decide(bytes: Uint8Array, start: number, end: number, etherType: number): number {
    const { packet } = this;
    this.rule = NONE;
    this.stream = NONE;
    this.lookupIndex = NONE;
    this.activeIndex = NONE;
    let rc = parse(bytes, start, end, etherType, this.#udpEncapPort, packet);
    if (rc === UNUSABLE) return this.#quotedLater();
    if ((rc & (RC_FIRST_FRAGMENT | RC_LATER_FRAGMENT)) !== 0) {
      const other = this.#tierFwmark(start);
      if (other !== NONE) return this.#answer(OUTCOME.tier, other);
      if ((rc & RC_LATER_FRAGMENT) !== 0) {
        const fwmark = this.#fragments.later(packet, bytes, start, end, etherType);
        if (fwmark >= 0) return this.#answer(OUTCOME.fragment, fwmark);
        return this.#answer(fwmark === HELD_FRAGMENT ? OUTCOME.heldFragment : OUTCOME.unknownFragment, NONE);
      }
    }
    if (this.#hasFlows) {
      this.#classify(bytes, end);
      const udpEncapPort = this.#classification.udpEncapPort;
      if (udpEncapPort !== 0 && packet.protocol === UDP && packet.destinationPort === udpEncapPort) {
        rc = parse(bytes, start, end, etherType, udpEncapPort, packet);
        if (rc === UNUSABLE) return this.#quotedLater();
        this.#classify(bytes, end);
      }
      if (this.rule < 0) return this.#answer(OUTCOME.noFlow, this.#options.noFlowFwmark);
      this.stream = this.#classification.stream;
    } else {
      this.stream = 0;
    }
    const fwmark = this.#lookUp();
    if (fwmark < 0) return this.#answer(OUTCOME.noTarget, this.#options.noTargetFwmark);
    if ((rc & (RC_FIRST_FRAGMENT | RC_ICMP_ERROR)) !== 0) {
      // Later fragments of the packet, or errors about them, go the way of the first.
      if ((rc & RC_FIRST_FRAGMENT) !== 0) this.#fragments.first(packet, bytes, start, end, etherType, fwmark);
      else if (packet.quotedFragment === RC_FIRST_FRAGMENT) this.#quoted.record(packet, fwmark);
    }
    return this.#answer(OUTCOME.forwarded, fwmark);
  }

  #answer(outcome: Outcome, fwmark: number): number {
    this.outcome = outcome;
    return fwmark;
  }

  /** An unusable packet can still be an error about a fragment whose first one is known. */
  #quotedLater(): number {
    const { packet } = this;
    const fwmark = packet.quotedFragment === RC_LATER_FRAGMENT ? this.#quoted.find(packet) : NONE;
    return this.#answer(fwmark < 0 ? OUTCOME.unusable : OUTCOME.fragment, fwmark);
  }

  #classify(bytes: Uint8Array, end: number): void {
    const { isPromiscuousPing } = this.#options;
    this.rule = classify(this.program, this.packet, bytes, end, isPromiscuousPing, this.hits, this.#classification);
  }

  /** fwmark of the balancer that owns the packet's addresses when that is not this one, else -1. */
  #tierFwmark(start: number): number {
    const tier = this.#tier?.current(0) ?? null;
    if (tier === null) return NONE;
    const target = tier.lookup[hashAddresses(this.packet) % tier.size]!;
    const fwmark = target < 0 ? NONE : tier.active[target]!;
    return fwmark >= 0 && fwmark !== tier.ownFwmark && !this.#isHandedOver(start) ? fwmark : NONE;
  }

  #lookUp(): number {
    const table = this.#streams.current(this.stream);
    this.hash = hashKey(this.packet, this.#options.hashMode);
    if (table === null) return NONE;
    this.lookupIndex = this.hash % table.size;
    this.activeIndex = table.lookup[this.lookupIndex]!;
    if (this.activeIndex < 0) return NONE;
    table.hits[this.activeIndex]!++;
    return table.active[this.activeIndex]!;
  }
}
