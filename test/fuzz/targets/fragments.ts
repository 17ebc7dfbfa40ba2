// Fragments over some workers, with time, floods, and what was held coming back: each event against the slow model.
import { Packet, parse, RC_FIRST_FRAGMENT, RC_LATER_FRAGMENT } from "#packet";
import {
  COUNTER_FRAGMENT_COMPLETED,
  COUNTER_FRAGMENT_CUT,
  COUNTER_FRAGMENT_DISCARDED,
  COUNTER_FRAGMENT_HELD,
  COUNTER_FRAGMENT_HELD_NOW,
  COUNTER_FRAGMENT_INSERTS,
  COUNTER_FRAGMENT_REJECTED,
  COUNTER_FRAGMENT_STRAY,
} from "#tables";
import { FragmentKey } from "../../../src/dataplane/fragment-key.js";
import { createFragmentMemory, type FragmentMemory } from "../../../src/dataplane/fragment-memory.js";
import { Fragments, HELD_FRAGMENT } from "../../../src/dataplane/fragments.js";
import { HeldFragments, sourceList, TRUST_MS } from "../../../src/dataplane/held-fragments.js";
import type { Random } from "../../harness/random.js";
import { FragmentModel } from "../../oracle/fragment-model.js";
import { FragmentEvents } from "../fragment-events.js";
import { differ, type FuzzCase, type TargetMaker } from "../target.js";

/** How the data plane is set up. With many records none is ever displaced. */
const SET_UPS = [
  { size: 8_192, isForgetful: true, slots: 12, slotBytes: 600, workers: 1 },
  { size: 8_192, isForgetful: true, slots: 60, slotBytes: 120, workers: 3 },
  { size: 8, isForgetful: false, slots: 40, slotBytes: 600, workers: 2 },
  { size: 8, isForgetful: true, slots: 5, slotBytes: 600, workers: 1 },
  { size: 8, isForgetful: false, slots: 0, slotBytes: 0, workers: 2 },
] as const;
type SetUp = (typeof SET_UPS)[number];
const LIFETIME_MS = 100;
const START_MS = 2 ** 33 - 500; // the upper half of the deadlines changes on the way
const EVENTS = 150;
const BEFORE = 64;

/** A part of a case: kind, number of the worker, and what the kind needs. */
const FRAGMENT_4 = 0; // the packet
const FRAGMENT_6 = 1;
const RETURN = 2; // u16: which of those that were sent back
const WAIT = 3; // u16: milliseconds
const TURN = 4;
const KINDS = 5;

function generate(random: Random): FuzzCase {
  const setUp = random(SET_UPS.length);
  const { workers } = SET_UPS[setUp]!;
  const events = new FragmentEvents(random);
  const parts: Uint8Array[] = [];
  while (parts.length < EVENTS) {
    const worker = random(workers);
    if (workers > 1 && random(8) === 0) parts.push(Uint8Array.of(TURN, worker));
    const event = events.next();
    if (event.kind === "wait") parts.push(Uint8Array.of(WAIT, worker, event.ms >> 8, event.ms));
    else if (event.kind === "return") parts.push(Uint8Array.of(RETURN, worker, random(3) === 0 ? random(256) : 0, 0));
    else {
      const part = new Uint8Array(2 + event.bytes.length);
      part[0] = event.is4 ? FRAGMENT_4 : FRAGMENT_6;
      part[1] = worker;
      part.set(event.bytes, 2);
      parts.push(part);
    }
  }
  return { settings: [setUp, 1 + random(2 ** 30)], parts };
}

export const fragmentsTarget: TargetMaker = () => {
  const seen = {
    known: 0,
    held: 0,
    unknown: 0,
    reinjected: 0,
    "reinjected by another worker": 0,
    returned: 0,
    completed: 0,
    displaced: 0,
    discarded: 0,
    cut: 0,
  };
  const memories = SET_UPS.map(({ size, isForgetful, workers }) =>
    createFragmentMemory({ size, buckets: 0, lifetimeMs: LIFETIME_MS, isForgetful }, workers, 0),
  );
  return {
    seen,
    generate,
    weigh: ({ parts }) => parts.length,
    check({ settings: [which = 0, hashSeed = 1], parts }) {
      const setUp = SET_UPS[which % SET_UPS.length]!;
      const shared = { ...memories[which % SET_UPS.length]!, seed: hashSeed };
      return new Run(setUp, shared, seen).all(parts);
    },
  };
};

type Seen = ReturnType<typeof fragmentsTarget>["seen"] & Record<string, number>;

/** One sequence of events on fresh records. */
class Run {
  readonly #setUp: SetUp;
  readonly #seen: Seen;
  readonly #model: FragmentModel;
  readonly #workers: readonly { readonly fragments: Fragments; readonly counters: Float64Array }[];
  readonly #memory = new Uint8Array(1_024);
  readonly #packet = new Packet();
  readonly #returning: { readonly bytes: Uint8Array; readonly is4: boolean }[] = [];
  #nowMs = START_MS;
  #written: string[] = [];
  #isReinjected = false;

  constructor(setUp: SetUp, shared: FragmentMemory, seen: Seen) {
    this.#setUp = setUp;
    this.#seen = seen;
    const { slots, slotBytes, isForgetful, size } = setUp;
    new Uint8Array(shared.recordMemory).fill(0);
    new Uint8Array(shared.signalMemory).fill(0);
    this.#workers = Array.from({ length: setUp.workers }, (_, worker) => this.#createWorker(shared, worker));
    const { share, sourceMask } = new HeldFragments(
      { slots: Math.max(slots, 1), slotBytes: 8, lifetimeMs: 1 },
      { wait() {}, stopWaiting() {} },
    );
    const options = {
      lifetimeMs: LIFETIME_MS,
      isForgetful,
      slots,
      slotBytes,
      share,
      trustMs: TRUST_MS,
      fwmarkOf: portsFwmark,
    };
    const sourceOf = (source: string) => sourceNumber(source, shared.seed, sourceMask);
    this.#model = new FragmentModel({ ...options, records: size > 8 ? 0 : 8, sourceOf }, setUp.workers);
  }

  all(parts: readonly Uint8Array[]): string | null {
    for (const [index, part] of parts.entries()) {
      const problem = this.#take(part);
      if (problem !== null) return `event ${index}: ${problem}`;
    }
    for (const worker of this.#workers.keys()) {
      const problem = this.#turn(worker);
      if (problem !== null) return `at the end: ${problem}`;
    }
    return this.#compareCounters();
  }

  #createWorker(shared: FragmentMemory, worker: number) {
    const { slots, slotBytes, workers } = this.#setUp;
    const counters = new Float64Array(64);
    const openSink = (bytes: Uint8Array) => ({
      write: (start: number, length: number) => {
        this.#written.push(Buffer.from(bytes.subarray(start, start + length)).toString("hex"));
        return 0;
      },
    });
    const { signalMemory } = shared;
    const isReinjected = () => this.#isReinjected;
    const hold = { slots, slotBytes, signalMemory, workers, wake: () => {}, isReinjected, openSink };
    const nowMs = () => this.#nowMs;
    const fragments = new Fragments({ ...shared, worker, counters, nowMs, hold: slots === 0 ? null : hold });
    return { fragments, counters };
  }

  #take(part: Uint8Array): string | null {
    const kind = (part[0] ?? 0) % KINDS;
    const worker = (part[1] ?? 0) % this.#setUp.workers;
    const number = ((part[2] ?? 0) << 8) | (part[3] ?? 0);
    if (kind === TURN) return this.#turn(worker);
    if (kind === WAIT) {
      this.#nowMs += number;
      return this.#turn(worker);
    }
    this.#isReinjected = kind === RETURN;
    if (kind !== RETURN) return this.#fragment(part.subarray(2), kind === FRAGMENT_4, worker);
    const [back] = this.#returning.splice(number % (this.#returning.length || 1), 1);
    if (back === undefined) return null;
    this.#seen["returned"]!++;
    return this.#fragment(back.bytes, back.is4, worker);
  }

  #turn(worker: number): string | null {
    this.#written = [];
    this.#workers[worker]!.fragments.turn();
    const want = this.#model.turn(worker, this.#nowMs);
    this.#seen["reinjected by another worker"]! += want.length;
    this.#sendBack(this.#written);
    return differ("turn", this.#written.toSorted(), want.toSorted());
  }

  #fragment(bytes: Uint8Array, is4: boolean, worker: number): string | null {
    const memory = this.#memory;
    memory.fill(bytes.length & 255);
    memory.set(bytes.subarray(0, memory.length - 2 * BEFORE), BEFORE);
    const end = BEFORE + bytes.length;
    const etherType = is4 ? 0x0800 : 0x86dd;
    const rc = parse(memory, BEFORE, end, etherType, 0, this.#packet);
    if (rc < 0 || (rc & (RC_FIRST_FRAGMENT | RC_LATER_FRAGMENT)) === 0) return null; // a case that was made smaller
    this.#written = [];
    const { fragments } = this.#workers[worker]!;
    const isFirst = (rc & RC_FIRST_FRAGMENT) !== 0;
    let fwmark = portsFwmark(bytes);
    if (isFirst) fragments.first(this.#packet, memory, BEFORE, end, etherType, fwmark);
    else fwmark = fragments.later(this.#packet, memory, BEFORE, end, etherType);
    const want = this.#model.take(bytes, is4, this.#nowMs, this.#isReinjected, worker);
    const got = { fwmark: Math.max(fwmark, -1), isHeld: fwmark === HELD_FRAGMENT, reinjected: this.#written };
    if (!isFirst) this.#seen[got.isHeld ? "held" : fwmark >= 0 ? "known" : "unknown"]!++;
    this.#seen["reinjected"]! += got.reinjected.length;
    this.#sendBack(got.reinjected);
    return differ("answer", got, want);
  }

  #sendBack(written: readonly string[]): void {
    for (const text of written) {
      const bytes = new Uint8Array(Buffer.from(text, "hex"));
      this.#returning.push({ bytes, is4: bytes[0]! >> 4 === 4 });
    }
  }

  #compareCounters(): string | null {
    const { counts, heldNow } = this.#model;
    const sum = (counter: number) => this.#workers.reduce((total, { counters }) => total + counters[counter]!, 0);
    const got = {
      inserts: sum(COUNTER_FRAGMENT_INSERTS),
      completed: sum(COUNTER_FRAGMENT_COMPLETED),
      held: sum(COUNTER_FRAGMENT_HELD),
      discarded: sum(COUNTER_FRAGMENT_DISCARDED),
      cut: sum(COUNTER_FRAGMENT_CUT),
      stray: sum(COUNTER_FRAGMENT_STRAY),
      displaced: sum(COUNTER_FRAGMENT_REJECTED),
    };
    for (const name of ["completed", "displaced", "discarded", "cut"] as const) this.#seen[name]! += counts[name];
    return differ("counters", { ...got, heldNow: sum(COUNTER_FRAGMENT_HELD_NOW) }, { ...counts, heldNow });
  }
}

/** The fwmark of a first fragment follows from its ports. */
function portsFwmark(bytes: Uint8Array): number {
  const is4 = bytes[0]! >> 4 === 4;
  const at = is4 ? 20 : bytes[6] === 60 ? 56 : 48;
  return (((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 1) & 0x7fffffff;
}

/** Sources that meet in one queue share their part of the pool: which do depends on the key of the hash. */
function sourceNumber(source: string, hashSeed: number, mask: number): number {
  const address = Buffer.from(source.length === 8 ? `00000000000000000000ffff${source}` : source, "hex");
  const packet = new Packet();
  packet.key.set(address);
  const key = new FragmentKey(hashSeed);
  key.load(packet);
  return sourceList(key, mask);
}
