import { type FragmentKey, KEY_WORDS } from "./fragment-key.js";
import { SlotLists } from "./slot-lists.js";

const NONE = -1;
/** Queues of the one list in which all held fragments stand. */
const ALL = 0;

/** A device that held fragments go back into the kernel through. */
export type FragmentSink = {
  /** Hands on the packet in bytes [start, start + length) of the memory given to it. @returns 0 or the errno */
  readonly write: (start: number, length: number) => number;
};

/** Sizes of the pool. */
export type PoolOptions = {
  /** Fragments held at most; nfqlb: `--ft_frag`. */
  readonly slots: number;
  /** Longest fragment; nfqlb: `--mtu`. */
  readonly slotBytes: number;
  /** How long a fragment is held, in ms; nfqlb: `--ft_ttl`. */
  readonly lifetimeMs: number;
};

/** Who is told when a queue of packets gets its first held fragment, and when it has lost its last one. */
export type PoolWatcher = {
  wait(list: number): void;
  stopWaiting(list: number): void;
};

/** Queues that the packets' keys are spread over; a power of two. */
export const PACKET_LISTS = 4096;
const SOURCE_LISTS_PER_SLOT = 8;
const SHARES = 4;
/** A source is trusted for so long after fragments of it went back, their packet's first one having come. */
export const TRUST_MS = 10_000;
/** Queues by age: fragments whose source was not trusted when they came, and the others. */
const STRANGERS = 0;
const TRUSTED = 1;

/** Queue of a source address among `mask + 1`; sources that meet there share their part of the pool. */
export const sourceList = ({ sourceHash }: FragmentKey, mask: number): number => (sourceHash & mask) >>> 0;
/** Queue of a packet's key. Not the bits that choose its set of records. */
export const packetList = ({ hash }: FragmentKey): number => hash >>> 20;

/**
 * Copies of later fragments that came before their first one, in order of arrival. Memory is fixed, and so is time: a
 * fragment is held for `lifetimeMs`. When all slots are taken the oldest fragment gives way, so that newcomers always
 * find room; but as long as a source holds more than its share, a quarter of the slots, it is the oldest fragment of
 * that source. Who keeps within the share can only be pushed out by the number of sources: first of those of which no
 * packet was seen that had its first fragment (random sources of a flood never have one), unless the others take more
 * than half of the slots (docs/decisions/0070).
 *
 * Belongs to one thread. Allocates nothing after construction, throws nothing.
 */
export class HeldFragments {
  /** Fragments held now. */
  count = 0;
  /** Fragments pushed out or outlived so far. */
  discarded = 0;
  readonly bytes: Uint8Array;
  readonly slotBytes: number;
  readonly share: number;
  readonly sourceMask: number;
  readonly #slots: number;
  readonly #lifetimeMs: number;
  readonly #watcher: PoolWatcher;
  readonly #lengths: Int32Array;
  readonly #keys: Int32Array;
  readonly #hashes: Uint32Array;
  readonly #deadlines: Float64Array;
  readonly #packetOf: Int32Array;
  readonly #sourceOf: Int32Array;
  /** STRANGERS or TRUSTED, by slot. */
  readonly #classOf: Uint8Array;
  /** Until when a source is trusted. */
  readonly #trustedUntil: Float64Array;
  readonly #free: Int32Array;
  readonly #byAge: SlotLists;
  readonly #byClass: SlotLists;
  readonly #bySource: SlotLists;
  readonly #byPacket: SlotLists;
  /** Sources that hold more than their share. */
  readonly #greedy: SlotLists;

  constructor({ slots, slotBytes, lifetimeMs }: PoolOptions, watcher: PoolWatcher) {
    const sources = 2 ** Math.ceil(Math.log2(slots * SOURCE_LISTS_PER_SLOT));
    this.slotBytes = Math.ceil(slotBytes / 8) * 8;
    this.bytes = new Uint8Array(slots * this.slotBytes);
    this.share = Math.max(1, Math.floor(slots / SHARES));
    this.sourceMask = sources - 1;
    this.#slots = slots;
    this.#lifetimeMs = lifetimeMs;
    this.#watcher = watcher;
    this.#lengths = new Int32Array(slots);
    this.#keys = new Int32Array(slots * KEY_WORDS);
    this.#hashes = new Uint32Array(slots);
    this.#deadlines = new Float64Array(slots);
    this.#packetOf = new Int32Array(slots);
    this.#sourceOf = new Int32Array(slots);
    this.#classOf = new Uint8Array(slots);
    this.#trustedUntil = new Float64Array(sources).fill(Number.NEGATIVE_INFINITY);
    this.#free = Int32Array.from({ length: slots }, (_, slot) => slot);
    this.#byAge = new SlotLists(1, slots);
    this.#byClass = new SlotLists(2, slots);
    this.#bySource = new SlotLists(sources, slots);
    this.#byPacket = new SlotLists(PACKET_LISTS, slots);
    this.#greedy = new SlotLists(1, sources);
  }

  /** Copies the fragment in `bytes[start, start + length)`; `length` is at most `slotBytes`. */
  hold(key: FragmentKey, bytes: Uint8Array, start: number, length: number, nowMs: number): void {
    if (this.count === this.#slots) this.#makeRoom();
    const slot = this.#free[this.count++]!;
    const to = slot * this.slotBytes;
    for (let i = 0; i < length; i++) this.bytes[to + i] = bytes[start + i]!; // a subarray would be allocated
    for (let word = 0; word < KEY_WORDS; word++) this.#keys[slot * KEY_WORDS + word] = key.words[word]!;
    this.#hashes[slot] = key.hash;
    this.#lengths[slot] = length;
    this.#deadlines[slot] = nowMs + this.#lifetimeMs;
    const packet = packetList(key);
    const source = sourceList(key, this.sourceMask);
    this.#packetOf[slot] = packet;
    this.#sourceOf[slot] = source;
    const kind = this.#trustedUntil[source]! >= nowMs ? TRUSTED : STRANGERS;
    this.#classOf[slot] = kind;
    this.#byClass.append(kind, slot);
    this.#byAge.append(ALL, slot);
    this.#byPacket.append(packet, slot);
    this.#bySource.append(source, slot);
    if (this.#bySource.length(source) === this.share + 1) this.#greedy.append(ALL, source);
    if (this.#byPacket.length(packet) === 1) this.#watcher.wait(packet);
  }

  /**
   * Hands on what is held of the key's packet, in order of arrival, and forgets it: its first fragment has come, so its
   * source is trusted for a while.
   * @returns how many the sink refused
   */
  release(key: FragmentKey, sink: FragmentSink, nowMs: number): number {
    let failed = 0;
    let slot = this.#byPacket.oldest(packetList(key));
    while (slot !== NONE) {
      const next = this.#byPacket.next(slot);
      if (key.isAt(this.#keys, slot * KEY_WORDS)) {
        if (sink.write(slot * this.slotBytes, this.#lengths[slot]!) !== 0) failed++;
        this.#trustedUntil[this.#sourceOf[slot]!] = nowMs + TRUST_MS;
        this.#drop(slot);
      }
      slot = next;
    }
    return failed;
  }

  /** Forgets what was held for its whole time. */
  expire(nowMs: number): void {
    for (;;) {
      const slot = this.#byAge.oldest(ALL);
      if (slot === NONE || this.#deadlines[slot]! >= nowMs) return;
      this.discarded++;
      this.#drop(slot);
    }
  }

  /**
   * Hands on the packets of a queue whose first fragment `isKnown`, as `release` does.
   * @param probe overwritten
   * @returns how many the sink refused
   */
  releaseKnown(
    list: number,
    probe: FragmentKey,
    isKnown: (key: FragmentKey) => boolean,
    sink: FragmentSink,
    nowMs: number,
  ): number {
    let failed = 0;
    let slot = this.#byPacket.oldest(list);
    while (slot !== NONE) {
      probe.restore(this.#keys, slot * KEY_WORDS, this.#hashes[slot]!);
      if (isKnown(probe)) {
        failed += this.release(probe, sink, nowMs);
        slot = this.#byPacket.oldest(list); // its followers may have left with it
      } else {
        slot = this.#byPacket.next(slot);
      }
    }
    return failed;
  }

  #makeRoom(): void {
    const greedy = this.#greedy.oldest(ALL);
    this.discarded++;
    if (greedy !== NONE) this.#drop(this.#bySource.oldest(greedy));
    else this.#drop(this.#byClass.oldest(2 * this.#byClass.length(TRUSTED) > this.#slots ? TRUSTED : STRANGERS));
  }

  #drop(slot: number): void {
    const packet = this.#packetOf[slot]!;
    const source = this.#sourceOf[slot]!;
    this.#free[--this.count] = slot;
    this.#byAge.remove(ALL, slot);
    this.#byClass.remove(this.#classOf[slot]!, slot);
    this.#byPacket.remove(packet, slot);
    if (this.#bySource.length(source) === this.share + 1) this.#greedy.remove(ALL, source);
    this.#bySource.remove(source, slot);
    if (this.#byPacket.length(packet) === 0) this.#watcher.stopWaiting(packet);
  }
}
