// Random fragment traffic against the slow model; run bundled. Arguments: number of events, seed. Prints one JSON object.

import { Packet, parse, RC_FIRST_FRAGMENT } from "#packet";
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
import { FragmentKey } from "../../src/dataplane/fragment-key.js";
import { createFragmentMemory } from "../../src/dataplane/fragment-memory.js";
import { Fragments, HELD_FRAGMENT } from "../../src/dataplane/fragments.js";
import { HeldFragments, sourceList } from "../../src/dataplane/held-fragments.js";
import { FragmentModel } from "../oracle/fragment-model.js";
import { FragmentEvents, seededRandom } from "./fragment-events.js";

const count = Number(process.argv[2] ?? 200_000);
const seed = Number(process.argv[3] ?? 1);

/** How the data plane is set up; each gets a part of the events. */
const SET_UPS = [
  { name: "many records, small pool", size: 65_536, isForgetful: true, slots: 12, slotBytes: 600 },
  { name: "many records, large pool", size: 65_536, isForgetful: true, slots: 200, slotBytes: 120 },
  { name: "eight records", size: 8, isForgetful: false, slots: 40, slotBytes: 600 },
  { name: "eight records, forgetful", size: 8, isForgetful: true, slots: 5, slotBytes: 600 },
  { name: "none held", size: 8, isForgetful: false, slots: 0, slotBytes: 0 },
];
const LIFETIME_MS = 100;
const START_MS = 2 ** 33 - 500; // the upper half of the deadlines changes on the way

const memory = new Uint8Array(2_048);
const BEFORE = 64;
/** Distinct answers that were seen, so that a run that exercises nothing fails. */
const seen = {
  known: 0,
  held: 0,
  unknown: 0,
  reinjected: 0,
  returned: 0,
  completed: 0,
  displaced: 0,
  discarded: 0,
  cut: 0,
};

for (const [index, setUp] of SET_UPS.entries()) run(setUp, Math.ceil(count / SET_UPS.length), seed + index * 7_919);
process.stdout.write(JSON.stringify({ events: count, ...seen }));

function run({ name, size, isForgetful, slots, slotBytes }: (typeof SET_UPS)[number], events: number, runSeed: number) {
  const random = seededRandom(runSeed ^ 0x5eed);
  const shared = createFragmentMemory({ size, buckets: 0, lifetimeMs: LIFETIME_MS, isForgetful }, 1, runSeed);
  const counters = new Float64Array(64);
  let nowMs = START_MS;
  let written: string[] = [];
  let isReinjected = false;
  const fragments = new Fragments({
    ...shared,
    worker: 0,
    counters,
    nowMs: () => nowMs,
    hold:
      slots === 0
        ? null
        : {
            slots,
            slotBytes,
            signalMemory: shared.signalMemory,
            workers: 1,
            wake: () => {},
            isReinjected: () => isReinjected,
            openSink: (bytes) => ({
              write: (start, length) => {
                written.push(Buffer.from(bytes.subarray(start, start + length)).toString("hex"));
                return 0;
              },
            }),
          },
  });
  const { share, sourceMask } = new HeldFragments(
    { slots: Math.max(slots, 1), slotBytes: 8, lifetimeMs: 1 },
    { wait() {}, stopWaiting() {} },
  );
  const model = new FragmentModel({
    records: size > 8 ? 0 : 8,
    lifetimeMs: LIFETIME_MS,
    isForgetful,
    slots,
    slotBytes,
    share,
    sourceOf: (source) => sourceNumber(source, runSeed, sourceMask),
    fwmarkOf: portsFwmark,
  });
  const packet = new Packet();
  const returning: { bytes: Uint8Array; is4: boolean }[] = [];
  const generator = new FragmentEvents(runSeed);
  for (let n = 0; n < events; n++) {
    const event = generator.next();
    if (event.kind === "wait") {
      nowMs += event.ms;
      fragments.turn();
      continue;
    }
    isReinjected = event.kind === "return";
    const arrival =
      event.kind === "return" ? returning.splice(random(2) === 0 ? 0 : random(returning.length || 1), 1)[0] : event;
    if (arrival === undefined) continue;
    if (event.kind === "return") seen.returned++;
    memory.fill(n & 255);
    memory.set(arrival.bytes, BEFORE);
    const end = BEFORE + arrival.bytes.length;
    const etherType = arrival.is4 ? 0x0800 : 0x86dd;
    const rc = parse(memory, BEFORE, end, etherType, 0, packet);
    if (rc < 0 || (rc & 3) === 0) throw new Error(`no fragment: ${Buffer.from(arrival.bytes).toString("hex")}`);
    written = [];
    let fwmark: number;
    if ((rc & RC_FIRST_FRAGMENT) !== 0) {
      fwmark = portsFwmark([...arrival.bytes]);
      fragments.first(packet, memory, BEFORE, end, etherType, fwmark);
    } else {
      fwmark = fragments.later(packet, memory, BEFORE, end, etherType);
    }
    const want = model.take([...arrival.bytes], arrival.is4, nowMs, isReinjected);
    const got = { fwmark: Math.max(fwmark, -1), isHeld: fwmark === HELD_FRAGMENT, reinjected: written };
    if (JSON.stringify(got) !== JSON.stringify(want))
      throw new Error(
        `${name}, event ${n}: ${JSON.stringify({ got, want, packet: Buffer.from(arrival.bytes).toString("hex") })}`,
      );
    for (const text of written) returning.push({ bytes: new Uint8Array(Buffer.from(text, "hex")), is4: arrival.is4 });
    if ((rc & RC_FIRST_FRAGMENT) === 0) seen[got.isHeld ? "held" : fwmark >= 0 ? "known" : "unknown"]++;
    seen.reinjected += written.length;
  }
  fragments.turn();
  model.expire(nowMs);
  const numbers = [
    ["inserts", counters[COUNTER_FRAGMENT_INSERTS], model.counts.inserts],
    ["completed", counters[COUNTER_FRAGMENT_COMPLETED], model.counts.completed],
    ["displaced", counters[COUNTER_FRAGMENT_REJECTED], model.counts.displaced],
    ["held", counters[COUNTER_FRAGMENT_HELD], model.counts.held],
    ["held now", counters[COUNTER_FRAGMENT_HELD_NOW], model.heldNow],
    ["discarded", counters[COUNTER_FRAGMENT_DISCARDED], model.counts.discarded],
    ["cut", counters[COUNTER_FRAGMENT_CUT], model.counts.cut],
    ["stray", counters[COUNTER_FRAGMENT_STRAY], model.counts.stray],
  ] as const;
  for (const [what, got, want] of numbers) if (got !== want) throw new Error(`${name}: ${what} ${got}, not ${want}`);
  seen.completed += model.counts.completed;
  seen.displaced += model.counts.displaced;
  seen.discarded += model.counts.discarded;
  seen.cut += model.counts.cut;
}

/** The fwmark of a first fragment follows from its ports. */
function portsFwmark(bytes: readonly number[]): number {
  const is4 = bytes[0]! >> 4 === 4;
  const at = is4 ? 20 : bytes[6] === 60 ? 56 : 48;
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 1;
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
