import type { Packet } from "#packet";

/** A router sends its errors about the fragments of one packet within milliseconds, and few of them. */
const RECORDS = 64;
const ADDRESS_BYTES = 32;
const NO_RECORD = -1;

/**
 * Where ICMP errors that quote fragments went. An error that quotes a first fragment is balanced by the ports in it;
 * one about a later fragment of the same packet, which has none, follows it while it is on record.
 *
 * Records of fragments that came to this balancer cannot answer that: they are about packets to a VIP, and an error
 * quotes a packet from one (docs/decisions/0027). So these are records of their own, which nobody can use up but senders
 * of errors: a ring of 64, oldest out, each with the lifetime of a fragment record. Single owner; allocates nothing after
 * construction, throws nothing.
 */
export class QuotedFragments {
  readonly #lifetimeMs: number;
  readonly #nowMs: () => number;
  readonly #ids = new Uint32Array(RECORDS);
  readonly #protocols = new Uint8Array(RECORDS);
  readonly #addresses = new Uint8Array(RECORDS * ADDRESS_BYTES);
  readonly #fwmarks = new Int32Array(RECORDS);
  readonly #deadlines = new Float64Array(RECORDS).fill(-1);
  #next = 0;

  /** @param nowMs monotonic, from 0 on */
  constructor(lifetimeMs: number, nowMs: () => number) {
    this.#lifetimeMs = lifetimeMs;
    this.#nowMs = nowMs;
  }

  /** The fwmark (≥ 0) that the error about the packet's first fragment got, or {@link NO_RECORD}. */
  find(packet: Packet): number {
    const nowMs = this.#nowMs();
    for (let place = 0; place < RECORDS; place++)
      if (this.#isAt(place, packet) && this.#deadlines[place]! >= nowMs) return this.#fwmarks[place]!;
    return NO_RECORD;
  }

  /** Records the fwmark of an error that quotes a first fragment; the same packet's earlier record is replaced. */
  record(packet: Packet, fwmark: number): void {
    let chosen = this.#next;
    for (let place = 0; place < RECORDS; place++) if (this.#isAt(place, packet)) chosen = place;
    if (chosen === this.#next) this.#next = (chosen + 1) % RECORDS;
    this.#ids[chosen] = packet.fragmentId;
    this.#protocols[chosen] = packet.l3Protocol;
    for (let i = 0; i < ADDRESS_BYTES; i++) this.#addresses[chosen * ADDRESS_BYTES + i] = packet.key[i]!;
    this.#fwmarks[chosen] = fwmark;
    this.#deadlines[chosen] = this.#nowMs() + this.#lifetimeMs;
  }

  #isAt(place: number, { key, fragmentId, l3Protocol }: Packet): boolean {
    if (this.#ids[place] !== fragmentId || this.#protocols[place] !== l3Protocol) return false;
    const at = place * ADDRESS_BYTES;
    for (let i = 0; i < ADDRESS_BYTES; i++) if (this.#addresses[at + i] !== key[i]) return false;
    return true;
  }
}
