// Threads that get the fragments of the same packets, each some of them, at the same time; run bundled. Arguments:
// packets, threads, seed. Every thread blocks when it has nothing to do, so a wake-up that is lost ends the run.
// Prints one JSON object.
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { Packet, parse, RC_FIRST_FRAGMENT } from "#packet";
import { COUNTER_FRAGMENT_COMPLETED, COUNTER_FRAGMENT_HELD, COUNTER_FRAGMENT_HELD_NOW } from "#tables";
import { createFragmentMemory, type FragmentMemory, monotonicClock } from "../../src/dataplane/fragment-memory.js";
import { Fragments } from "../../src/dataplane/fragments.js";
import { udpFragments } from "./fragment-packets.js";
import { randomNumbers } from "./random.js";

type Shared = {
  readonly memory: FragmentMemory;
  /** Per thread: wake-ups sent to it, then how far it is. */
  readonly state: SharedArrayBuffer;
  readonly packets: number;
  readonly threads: number;
  readonly seed: number;
};
type Result = {
  known: number;
  wrong: number;
  firsts: number;
  held: number;
  heldNow: number;
  completed: number;
  stuck: number;
};

const PAYLOAD_BYTES = 700;
const MTU = 148;
/** How many packets the fastest thread may be ahead of the slowest. */
const WINDOW = 200;
const BATCH = 8;
const STUCK_MS = 10_000;

async function main(): Promise<void> {
  const [packets = 20_000, threads = 4, seed = 1] = process.argv.slice(2).map(Number);
  const options = { size: 4_096, buckets: 0, lifetimeMs: 60_000, isForgetful: true };
  const memory = createFragmentMemory(options, threads, seed);
  const shared: Shared = { memory, state: new SharedArrayBuffer(threads * 8), packets, threads, seed };
  const results = await Promise.all(
    Array.from({ length: threads }, (_, thread) => {
      const worker = new Worker(process.argv[1]!, { workerData: { ...shared, thread } });
      return new Promise<Result>((resolve, reject) => worker.once("message", resolve).once("error", reject));
    }),
  );
  const sum = (field: keyof Result) => results.reduce((total, result) => total + result[field], 0);
  const fields = ["known", "wrong", "firsts", "held", "heldNow", "completed", "stuck"] as const;
  const fragments = udpFragments(ends(0), 0, new Uint8Array(PAYLOAD_BYTES), MTU).length;
  process.stdout.write(
    JSON.stringify({
      later: packets * (fragments - 1),
      ...Object.fromEntries(fields.map((field) => [field, sum(field)])),
    }),
  );
}

function ends(packet: number) {
  const source = `10.1.${(packet >> 8) & 255}.${packet & 255}`;
  return { family: 4, source, destination: "10.0.0.1", sourcePort: 1_000, destinationPort: packet & 0xffff } as const;
}

/** What packet `n` is to be marked with. */
const fwmarkOf = (n: number) => 1 + n;

function work({ memory, state, packets, threads, seed, thread }: Shared & { thread: number }): void {
  const words = new Int32Array(state);
  const counters = new Float64Array(64);
  const back: Uint8Array[] = [];
  let isReinjected = false;
  const fragments = new Fragments({
    ...memory,
    worker: thread,
    counters,
    nowMs: monotonicClock(),
    hold: {
      slots: 4_096,
      slotBytes: 256,
      signalMemory: memory.signalMemory,
      workers: threads,
      wake: (port) => {
        Atomics.add(words, port, 1);
        Atomics.notify(words, port);
      },
      isReinjected: () => isReinjected,
      openSink: (bytes) => ({
        write: (start, length) => {
          back.push(bytes.slice(start, start + length));
          return 0;
        },
      }),
    },
  });
  fragments.setPort(thread);
  const packet = new Packet();
  const result: Result = { known: 0, wrong: 0, firsts: 0, held: 0, heldNow: 0, completed: 0, stuck: 0 };
  const take = (bytes: Uint8Array) => {
    const rc = parse(bytes, 0, bytes.length, 0x0800, 0, packet);
    const n = ((bytes[14]! << 8) | bytes[15]!) + 65_536 * ((bytes[4]! << 8) | bytes[5]!);
    if ((rc & RC_FIRST_FRAGMENT) !== 0) {
      result.firsts++;
      fragments.first(packet, bytes, 0, bytes.length, 0x0800, fwmarkOf(n));
      return;
    }
    const fwmark = fragments.later(packet, bytes, 0, bytes.length, 0x0800);
    if (fwmark === fwmarkOf(n)) result.known++;
    else if (fwmark !== -2) result.wrong++;
  };
  const takeBack = () => {
    isReinjected = true;
    for (let bytes = back.shift(); bytes !== undefined; bytes = back.shift()) take(bytes);
    isReinjected = false;
  };
  const turn = () => {
    fragments.turn();
    takeBack();
  };
  /** Blocks until it was woken since `before`, as a receive does. */
  const block = (before: number, ms: number) => Atomics.wait(words, thread, before, ms) !== "timed-out";

  const random = randomNumbers(seed * 31 + thread + 1);
  for (let base = 0; base < packets; base += WINDOW / 4) {
    for (const bytes of own(base, Math.min(base + WINDOW / 4, packets), threads, thread, random)) {
      take(bytes);
      if (random(BATCH) === 0) turn();
    }
    turn();
    Atomics.store(words, threads + thread, base);
    while (base - slowest(words, threads) > WINDOW - WINDOW / 4) {
      const before = Atomics.load(words, thread);
      turn();
      block(before, 1);
    }
  }
  Atomics.store(words, threads + thread, packets);
  for (;;) {
    const before = Atomics.load(words, thread);
    turn();
    if (counters[COUNTER_FRAGMENT_HELD_NOW] === 0 && back.length === 0) break;
    if (block(before, STUCK_MS)) continue;
    result.stuck++;
    break;
  }
  result.held = counters[COUNTER_FRAGMENT_HELD]!;
  result.heldNow = counters[COUNTER_FRAGMENT_HELD_NOW]!;
  result.completed = counters[COUNTER_FRAGMENT_COMPLETED]!;
  parentPort!.postMessage(result);
}

function slowest(words: Int32Array, threads: number): number {
  let least = Number.POSITIVE_INFINITY;
  for (let thread = 0; thread < threads; thread++) least = Math.min(least, Atomics.load(words, threads + thread));
  return least;
}

/** The fragments of packets first…end-1 that come to this thread, shuffled. Which they are follows from their numbers. */
function own(first: number, end: number, threads: number, thread: number, random: (limit: number) => number) {
  const list: Uint8Array[] = [];
  for (let n = first; n < end; n++) {
    const parts = udpFragments(ends(n), n >> 16, new Uint8Array(PAYLOAD_BYTES), MTU);
    for (const [i, part] of parts.entries())
      if (((n * 7 + i * 3 + (n >> 4)) % 13) % threads === thread) list.push(part);
  }
  for (let i = list.length - 1; i > 0; i--) {
    const other = random(i + 1);
    [list[i], list[other]] = [list[other]!, list[i]!];
  }
  return list;
}

if (isMainThread) void main();
else work(workerData as Shared & { thread: number });
