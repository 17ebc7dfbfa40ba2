import type { Packet } from "#packet";

const WAYS = 8;
const KEY_WORDS = 9;

/** What `find` answers when it knows nothing of a packet's first fragment. */
const NO_RECORD = -1;

/** Counters of a fragment table, in the words of nfqlb's `stats`. */
export type FragmentCounters = {
  /** Look-ups by later fragments and records by first ones. */
  lookups: number;
  /** Records of packets that were not on record. */
  inserts: number;
  /** Live records of other packets that had to give way. */
  rejected: number;
  /** Records that had outlived their time when their place was taken. */
  expired: number;
};

/**
 * Remembers which fwmark the first fragment of a packet got, so that the later ones, which carry no ports, go the same
 * way. A record lives `lifetimeMs` from its creation; look-ups do not extend it (RFC 8200 section 4.5 counts from the
 * first fragment). Memory is fixed: sets of 8 places chosen by a hash of the key; a full set gives up its oldest record.
 *
 * The key is source, destination, identification and, for IPv4, the protocol (RFC 791; RFC 8200 section 4.5).
 * Allocates nothing after construction; single owner.
 */
export class FragmentTable {
  readonly counters: FragmentCounters = { lookups: 0, inserts: 0, rejected: 0, expired: 0 };
  readonly #sets: number;
  readonly #lifetimeMs: number;
  readonly #keys: Uint32Array;
  readonly #fwmarks: Int32Array;
  readonly #deadlines: Float64Array;
  readonly #probe = new Uint32Array(KEY_WORDS);

  /**
   * @param capacity records kept at most, rounded up to a multiple of 8; at least 1
   * @param lifetimeMs how long a record lives
   */
  constructor(capacity: number, lifetimeMs: number) {
    this.#sets = Math.max(1, Math.ceil(capacity / WAYS));
    this.#lifetimeMs = lifetimeMs;
    this.#keys = new Uint32Array(this.#sets * WAYS * KEY_WORDS);
    this.#fwmarks = new Int32Array(this.#sets * WAYS);
    this.#deadlines = new Float64Array(this.#sets * WAYS);
  }

  /** The fwmark (≥ 0) recorded for the packet that this fragment belongs to, or {@link NO_RECORD}. `nowMs` monotonic. */
  find(packet: Packet, identification: number, nowMs: number): number {
    this.counters.lookups++;
    const first = this.#load(packet, identification);
    for (let place = first; place < first + WAYS; place++) {
      if (this.#deadlines[place]! >= nowMs && this.#isAt(place)) return this.#fwmarks[place]!;
    }
    return NO_RECORD;
  }

  /** Records the fwmark of a first fragment; one that is on record already takes the new fwmark and lifetime. */
  record(packet: Packet, identification: number, fwmark: number, nowMs: number): void {
    this.counters.lookups++;
    const first = this.#load(packet, identification);
    let chosen = first;
    for (let place = first; place < first + WAYS; place++) {
      if (this.#deadlines[place]! >= nowMs && this.#isAt(place)) {
        this.#write(place, fwmark, nowMs);
        return;
      }
      if (this.#deadlines[place]! < this.#deadlines[chosen]!) chosen = place;
    }
    this.counters.inserts++;
    if (this.#deadlines[chosen]! >= nowMs) this.counters.rejected++;
    else if (this.#deadlines[chosen]! > 0) this.counters.expired++;
    this.#keys.set(this.#probe, chosen * KEY_WORDS);
    this.#write(chosen, fwmark, nowMs);
  }

  #write(place: number, fwmark: number, nowMs: number): void {
    this.#fwmarks[place] = fwmark;
    this.#deadlines[place] = nowMs + this.#lifetimeMs;
  }

  /** Fills the probe with the packet's key and returns the first place of its set. */
  #load(packet: Packet, identification: number): number {
    const { key } = packet;
    const probe = this.#probe;
    let hash = 0x811c9dc5;
    for (let word = 0; word < 8; word++) {
      const at = word * 4;
      const value = (key[at]! << 24) | (key[at + 1]! << 16) | (key[at + 2]! << 8) | key[at + 3]!;
      probe[word] = value;
      hash = Math.imul(hash ^ value, 0x01000193);
      hash ^= hash >>> 15;
    }
    probe[8] = identification ^ (packet.l3Protocol << 24);
    hash = Math.imul(hash ^ probe[8]!, 0x85ebca6b);
    hash ^= hash >>> 13;
    return ((hash >>> 0) % this.#sets) * WAYS;
  }

  #isAt(place: number): boolean {
    const keys = this.#keys;
    const probe = this.#probe;
    const at = place * KEY_WORDS;
    for (let word = 0; word < KEY_WORDS; word++) if (keys[at + word] !== probe[word]) return false;
    return true;
  }
}
