// Files in shared memory that are not what they say: whoever opens one reads it, or gets an error that says so. What would
// be read outside ends the process (SIGBUS, SIGSEGV), and that is a failure.
import { ftruncateSync, openSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { parseFlowRule, setFlow } from "#flow";
import {
  CounterFile,
  createStreamTable,
  ensureFlows,
  FlowTableReader,
  flowsGeneration,
  readDataPlane,
  readFlows,
  readStreamTable,
  readTargetHits,
  StreamTableReader,
  TraceFile,
  TraceWatcher,
  updateFlows,
  updateStreamTable,
} from "#tables";
import { pick, type Random } from "../../harness/random.js";
import type { FuzzCase, TargetMaker } from "../target.js";

const NAMES = ["stream", "flows", "counters", "trace"] as const;
type Name = (typeof NAMES)[number];
/** What an error may be: no such file, no such region, no room for one reader more. */
const CODES = ["ENOENT", "ERR_LAYOUT", "ERR_CAPACITY"];
const HEADER_BYTES = 4096;
const WORDS = [0, 1, 2, 3, 4, 5, 7, 16, 64, 97, 100, 4_095, 4_096, 4_097, 8_192, 65_536, 0x7fffffff, 0x80000000];
const OTHER_WORDS = [0xfffff000, 0xffffffff, 0x40000000, 0x3fffffff, 0x20000000, 1_000_000];
/** Words of the header that mean something (docs/tables.md): magic … own bytes, sizes. */
const HEADER_WORDS = [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15];

/** settings: which file, its length or -1. Parts: u32 where in the file, then the bytes that stand there. */
function generate(random: Random, sizes: readonly number[]): FuzzCase {
  const which = random(NAMES.length);
  const size = sizes[which]!;
  const lengths = [0, 1, 63, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 4, size - 4_096, size - 1, size + 4_096];
  const length = random(6) === 0 ? pick(random, [...lengths, random(size)]) : -1;
  const parts: Uint8Array[] = [];
  for (let n = random(4); n >= 0; n--) {
    const kind = random(10);
    const image = HEADER_BYTES + 4 * random(kind === 9 ? (size - HEADER_BYTES) >> 2 : 40);
    const at = kind < 6 ? 4 * pick(random, HEADER_WORDS) : kind < 7 ? 4 * random(HEADER_BYTES / 4) : image;
    const word = random(5) === 0 ? random(2 ** 31) : pick(random, random(2) === 0 ? WORDS : OTHER_WORDS);
    const part = new Uint8Array(8);
    new DataView(part.buffer).setUint32(0, at);
    new DataView(part.buffer).setUint32(4, word, true);
    parts.push(part);
  }
  return { settings: [which, length], parts };
}

export const regionsTarget: TargetMaker = (folder) => {
  createFiles(folder);
  const seen = { read: 0, ERR_LAYOUT: 0 };
  const originals = NAMES.map((name) => new Uint8Array(readFileSync(join(folder, name))));
  const files = NAMES.map((name) => openSync(join(folder, name), "r+"));
  const readers = readersOf(folder);
  return {
    seen,
    generate: (random) =>
      generate(
        random,
        originals.map(({ length }) => length),
      ),
    check({ settings: [which = 0, length = -1], parts }) {
      const index = which % NAMES.length;
      const original = originals[index]!;
      const fd = files[index]!;
      ftruncateSync(fd, original.length);
      writeSync(fd, original, 0, original.length, 0);
      for (const part of parts) {
        if (part.length < 4) continue;
        const at = new DataView(part.buffer, part.byteOffset).getUint32(0) % original.length;
        writeSync(fd, part, 4, Math.min(part.length - 4, original.length - at), at);
      }
      if (length >= 0) ftruncateSync(fd, length);
      for (const [what, read] of Object.entries(readers[NAMES[index]!])) {
        try {
          read();
          seen.read++;
        } catch (error) {
          const { code = "", stack } = error as { code?: string; stack?: string };
          if (!CODES.includes(code)) return `${what}: ${stack}`;
          if (code === "ERR_LAYOUT") seen.ERR_LAYOUT++;
        }
      }
      return null;
    },
  };
};

function createFiles(folder: string): void {
  createStreamTable(folder, "stream", { size: 97, targets: 5, ownFwmark: 7 });
  updateStreamTable(folder, "stream", (active) => active.set([5_001, -1, 5_003]));
  const params = { target: "stream", protocols: "tcp,udp", dsts: "10.0.0.0/8,2001:db8::/32", dports: "80,100-200" };
  ensureFlows(folder, "flows");
  const rules = ["a", "b"].map((name) => parseFlowRule({ ...params, name }));
  updateFlows(
    folder,
    "flows",
    () => rules.reduce<ReturnType<typeof setFlow>>((all, rule) => setFlow(all, rule), []),
    () => 0,
  );
  CounterFile.create(folder, "counters", 1, '{"pid":1}')[Symbol.dispose]();
  TraceFile.own(folder, "trace", 2, 16)[Symbol.dispose]();
}

/** Every way in which programs open a region, each reading all that it gives. */
function readersOf(folder: string): Readonly<Record<Name, Readonly<Record<string, () => unknown>>>> {
  const sum = (numbers: Int32Array | Float64Array) => {
    let total = 0;
    for (let i = 0; i < numbers.length; i++) total += numbers[i]!;
    return total;
  };
  return {
    stream: {
      readStreamTable: () => readStreamTable(folder, "stream"),
      readTargetHits: () => readTargetHits(folder, "stream"),
      StreamTableReader: () => {
        using reader = new StreamTableReader(folder, "stream", { isCounting: true });
        reader.enter();
        sum(reader.lookup);
        sum(reader.active);
        sum(reader.hits);
        reader.leave();
      },
    },
    flows: {
      readFlows: () => readFlows(folder, "flows"),
      flowsGeneration: () => flowsGeneration(folder, "flows"),
      FlowTableReader: () => {
        using reader = new FlowTableReader(folder, "flows");
        reader.enter();
        if (reader.streams.some((name) => typeof name !== "string")) throw new Error("a stream that is no name");
        sum(reader.program);
        reader.leave();
      },
    },
    counters: {
      CounterFile: () => {
        using file = CounterFile.open(folder, "counters");
        for (let worker = 0; worker < file.workers; worker++) {
          const { counters, samples, ruleHits } = file.block(worker);
          sum(counters);
          sum(samples);
          sum(ruleHits);
        }
      },
      readDataPlane: () => readDataPlane(folder, "counters"),
    },
    trace: {
      TraceFile: () => {
        using file = TraceFile.open(folder, "trace");
        for (let ring = 0; ring < file.rings; ring++) {
          const { words, ruleHits, head } = file.ring(ring);
          sum(words);
          sum(ruleHits);
          sum(head);
        }
      },
      TraceWatcher: () => {
        using watcher = new TraceWatcher(folder, "trace", 127);
        watcher.poll();
        watcher.suppressed();
      },
    },
  };
}
