import { type FragmentKey, KEY_WORDS } from "./fragment-key.js";
import { addSpan, clearSpans, spanWords } from "./spans.js";

const WAYS = 8;
/** Spans that a record can tell apart; a packet of 64 KiB in 1500-byte fragments, shuffled, rarely needs as many. */
const SPANS = 13;

/**
 * A record, 32 words: SEQUENCE is odd while key, fwmark and deadline are being written, and different afterwards; CLAIM
 * names the thread that may write, 0 none; TAG is the key's hash, 0 in a free place; the deadline is in whole ms; DONE is
 * 1 when the packet is complete: anybody may have the place, but until then late duplicates still find the record.
 */
const SEQUENCE = 0;
const CLAIM = 1;
const TAG = 2;
const FWMARK = 3;
const DEADLINE_HIGH = 4;
const DEADLINE_LOW = 5;
const KEY = 6;
const SPAN_LIST = KEY + KEY_WORDS;
const DONE = SPAN_LIST + spanWords(SPANS);
const WORDS = DONE + 2;

const NO_PLACE = -1;
/** Tries of a read or a claim that another thread disturbs. A bound and not a wait: a writer needs well under 1 us. */
const ATTEMPTS = 64;

/** Sizes of the table, nfqlb's options `--ft_size`, `--ft_buckets`, `--ft_ttl`. */
export type RecordOptions = {
  /** Records, at least 1, and further ones where several meet; their sum is rounded up to a multiple of 8. */
  readonly size: number;
  readonly buckets: number;
  /** How long a record lives, in ms. */
  readonly lifetimeMs: number;
  /** A complete packet is forgotten at once: its identification may belong to a new packet. nfqlb: `--reassembler`. */
  readonly isForgetful: boolean;
};

/** What an insertion did, for the counters. */
export type Insertion = {
  /** A record was written, and no record of the packet was there before. */
  isNew: boolean;
  /** There were live records of other packets in its set. */
  isShared: boolean;
  /** It took a place beyond the share of `size` in its set. */
  isExtra: boolean;
  /** A live record of another packet gave way, or, when not `isNew`, the new one found no place. */
  isRejected: boolean;
  /** A record that had outlived its time gave way. */
  isExpired: boolean;
};

/** Memory for the records of all threads of a process; zero is empty. */
export function createRecordMemory({ size, buckets }: RecordOptions): SharedArrayBuffer {
  return new SharedArrayBuffer(setsOf(size + buckets) * WAYS * WORDS * 4);
}

const setsOf = (records: number) => Math.max(1, Math.ceil(records / WAYS));

/**
 * Which fwmark the first fragment of a packet got, and which parts of the packet went that way. One table for all
 * threads, in shared memory: sets of 8 places, chosen by the key's hash; a full set gives up its oldest record.
 *
 * Nobody waits. Who wants to write a record claims it (compare-and-swap on CLAIM) or goes without; who reads looks at
 * SEQUENCE before and after, and reads again when it has changed. All shared words that a reader looks at are accessed
 * with Atomics, which are sequentially consistent; the span list only belongs to the holder of the claim.
 *
 * Allocates nothing after construction, throws nothing.
 */
export class FragmentRecords {
  /** What the last `record` did. */
  readonly insertion: Insertion = {
    isNew: false,
    isShared: false,
    isExtra: false,
    isRejected: false,
    isExpired: false,
  };
  readonly #words: Int32Array;
  readonly #sets: number;
  readonly #lifetimeMs: number;
  readonly #isForgetful: boolean;
  readonly #ownWays: number;
  readonly #claimant: number;
  /** The record that the last `find` found, and its sequence; a note is for that one. */
  #place = NO_PLACE;
  #sequence = 0;
  /** Deadline and sequence that the last `#read` saw. */
  #deadline = 0;
  #sequenceRead = 0;

  /** @param claimant number of the thread, 1 or more, different for each thread that uses the memory */
  constructor(memory: SharedArrayBuffer, options: RecordOptions, claimant: number) {
    const { size, buckets, lifetimeMs, isForgetful } = options;
    this.#words = new Int32Array(memory);
    this.#sets = setsOf(size + buckets);
    this.#lifetimeMs = lifetimeMs;
    this.#isForgetful = isForgetful;
    this.#ownWays = Math.ceil((WAYS * size) / (size + buckets));
    this.#claimant = claimant;
    this.#dropClaims();
  }

  /** The fwmark (≥ 0) on record for the key, of the latest first fragment, or -1. `nowMs` monotonic, of all threads. */
  find(key: FragmentKey, nowMs: number): number {
    let fwmark = -1;
    let latest = Math.max(0, Math.ceil(nowMs) - 1);
    this.#place = NO_PLACE;
    const first = this.#firstOf(key);
    for (let place = first; place < first + WAYS * WORDS; place += WORDS) {
      if (Atomics.load(this.#words, place + TAG) !== (key.hash | 0)) continue;
      const found = this.#read(place, key);
      if (found < 0 || this.#deadline <= latest) continue;
      latest = this.#deadline;
      fwmark = found;
      this.#place = place;
      this.#sequence = this.#sequenceRead;
    }
    return fwmark;
  }

  /**
   * Notes that a part of the packet last found went its way; see {@link addSpan}. When the packet is complete the place
   * of its record is free. Another thread that writes the record at the same moment wins: the part is not noted, and the
   * record lives to its deadline.
   * @returns whether the packet is complete by this part
   */
  note(from: number, to: number, isLast: boolean): boolean {
    const place = this.#place;
    if (place === NO_PLACE || !this.#claim(place)) return false;
    let isComplete = false;
    const words = this.#words;
    if (Atomics.load(words, place + SEQUENCE) === this.#sequence && Atomics.load(words, place + DONE) === 0) {
      isComplete = addSpan(words, place + SPAN_LIST, SPANS, from, to, isLast);
      if (isComplete && this.#isForgetful) this.#free(place);
      else if (isComplete) Atomics.store(words, place + DONE, 1);
    }
    this.#unclaim(place);
    return isComplete;
  }

  /**
   * Writes the fwmark of a first fragment on record. A packet that is on record already takes the new fwmark and
   * lifetime, and its parts are counted anew: it may be a new packet with an old identification.
   */
  record(key: FragmentKey, fwmark: number, nowMs: number): void {
    const { insertion } = this;
    insertion.isNew = false;
    insertion.isShared = false;
    insertion.isExtra = false;
    insertion.isRejected = false;
    insertion.isExpired = false;
    const deadline = Math.ceil(nowMs) + this.#lifetimeMs;
    if (this.find(key, nowMs) >= 0 && this.#renew(fwmark, deadline)) return;
    const place = this.#takePlace(key, nowMs);
    if (place === NO_PLACE) {
      insertion.isRejected = true;
      return;
    }
    insertion.isNew = true;
    insertion.isExtra = place - this.#firstOf(key) >= this.#ownWays * WORDS;
    this.#write(place, key, fwmark, deadline);
    this.#unclaim(place);
  }

  /**
   * Frees the records whose time is over in places [from, to) of 0…`places`. For the one thread that looks after the
   * table; `live` and `extra` add up records of packets that are not complete, and those beyond the share of `size`.
   * @returns records freed whose packet was never complete
   */
  sweep(from: number, to: number, nowMs: number, count: { live: number; extra: number }): number {
    let freed = 0;
    for (let index = from; index < to; index++) {
      const place = index * WORDS;
      if (Atomics.load(this.#words, place + TAG) === 0) continue;
      if (this.#isLive(place, nowMs)) {
        count.live++;
        if (index % WAYS >= this.#ownWays) count.extra++;
      } else if (this.#claim(place)) {
        if (Atomics.load(this.#words, place + TAG) !== 0 && this.#deadlineAt(place) < nowMs) {
          if (Atomics.load(this.#words, place + DONE) === 0) freed++;
          this.#free(place);
        }
        this.#unclaim(place);
      }
    }
    return freed;
  }

  /** Places in all. */
  get places(): number {
    return this.#sets * WAYS;
  }

  /** The fwmark in a place if it holds the key, else -1. Sets `#deadline` and `#sequenceRead`. */
  #read(place: number, key: FragmentKey): number {
    const words = this.#words;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const sequence = Atomics.load(words, place + SEQUENCE);
      if ((sequence & 1) !== 0) continue;
      let isEqual = true;
      for (let word = 0; word < KEY_WORDS && isEqual; word++)
        isEqual = Atomics.load(words, place + KEY + word) === key.words[word];
      const fwmark = Atomics.load(words, place + FWMARK);
      this.#deadline = this.#deadlineAt(place);
      if (Atomics.load(words, place + SEQUENCE) !== sequence) continue;
      this.#sequenceRead = sequence;
      return isEqual ? fwmark : -1;
    }
    return -1; // being written all the time: the packet's first fragment comes at this very moment
  }

  /** New fwmark and deadline for the record last found. @returns false if it is gone or another thread writes it */
  #renew(fwmark: number, deadline: number): boolean {
    const place = this.#place;
    if (!this.#claim(place)) return false;
    const isSame = Atomics.load(this.#words, place + SEQUENCE) === this.#sequence;
    if (isSame) {
      // Readers meanwhile see the old or the new fwmark, both of a first fragment; of the deadline the later half is
      // written first, so that a record never looks older than it is.
      Atomics.store(this.#words, place + FWMARK, fwmark);
      this.#setDeadline(place, deadline);
      clearSpans(this.#words, place + SPAN_LIST);
      Atomics.store(this.#words, place + DONE, 0);
    }
    this.#unclaim(place);
    return isSame;
  }

  /** Claims a place of the key's set: the first that is free or whose record is over, else that of the oldest record. */
  #takePlace(key: FragmentKey, nowMs: number): number {
    const words = this.#words;
    const { insertion } = this;
    const first = this.#firstOf(key);
    let taken = NO_PLACE;
    let oldest = first;
    for (let place = first; place < first + WAYS * WORDS; place += WORDS) {
      if (this.#isLive(place, nowMs)) {
        insertion.isShared = true;
        if (this.#deadlineAt(place) < this.#deadlineAt(oldest)) oldest = place;
      } else if (taken === NO_PLACE && this.#claim(place)) {
        if (this.#isLive(place, nowMs)) {
          this.#unclaim(place); // another thread was faster
        } else {
          taken = place;
          insertion.isExpired = Atomics.load(words, place + TAG) !== 0 && Atomics.load(words, place + DONE) === 0;
        }
      }
    }
    if (taken !== NO_PLACE) return taken;
    insertion.isRejected = true;
    return this.#claim(oldest) ? oldest : NO_PLACE;
  }

  #write(place: number, key: FragmentKey, fwmark: number, deadline: number): void {
    const words = this.#words;
    Atomics.add(words, place + SEQUENCE, 1); // odd: readers come back
    Atomics.store(words, place + TAG, key.hash | 0);
    for (let word = 0; word < KEY_WORDS; word++) Atomics.store(words, place + KEY + word, key.words[word]!);
    Atomics.store(words, place + FWMARK, fwmark);
    this.#setDeadline(place, deadline);
    clearSpans(words, place + SPAN_LIST);
    Atomics.store(words, place + DONE, 0);
    const sequence = Atomics.add(words, place + SEQUENCE, 1) + 1; // even: all of the above is in force
    this.#place = place;
    this.#sequence = sequence;
  }

  /** Empties a place that the caller has claimed. */
  #free(place: number): void {
    Atomics.add(this.#words, place + SEQUENCE, 1);
    Atomics.store(this.#words, place + TAG, 0);
    this.#setDeadline(place, 0);
    Atomics.store(this.#words, place + DONE, 0);
    Atomics.add(this.#words, place + SEQUENCE, 1);
  }

  #claim(place: number): boolean {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++)
      if (Atomics.compareExchange(this.#words, place + CLAIM, 0, this.#claimant) === 0) return true;
    return false;
  }

  #unclaim(place: number): void {
    Atomics.store(this.#words, place + CLAIM, 0);
  }

  /** A thread that starts holds no claim: what it left when it died half-way is given up. */
  #dropClaims(): void {
    for (let place = 0; place < this.places * WORDS; place += WORDS) {
      if (Atomics.load(this.#words, place + CLAIM) !== this.#claimant) continue;
      if ((Atomics.load(this.#words, place + SEQUENCE) & 1) !== 0) Atomics.add(this.#words, place + SEQUENCE, 1);
      this.#free(place);
      this.#unclaim(place);
    }
  }

  /** Whether the place holds a record that is needed: its time is not over, its packet not complete. */
  #isLive(place: number, nowMs: number): boolean {
    const words = this.#words;
    return (
      Atomics.load(words, place + TAG) !== 0 &&
      Atomics.load(words, place + DONE) === 0 &&
      this.#deadlineAt(place) >= nowMs
    );
  }

  #firstOf(key: FragmentKey): number {
    return (key.hash % this.#sets) * WAYS * WORDS;
  }

  #deadlineAt(place: number): number {
    const high = Atomics.load(this.#words, place + DEADLINE_HIGH);
    return high * 2 ** 32 + (Atomics.load(this.#words, place + DEADLINE_LOW) >>> 0);
  }

  #setDeadline(place: number, deadline: number): void {
    Atomics.store(this.#words, place + DEADLINE_HIGH, Math.floor(deadline / 2 ** 32));
    Atomics.store(this.#words, place + DEADLINE_LOW, deadline | 0);
  }
}
