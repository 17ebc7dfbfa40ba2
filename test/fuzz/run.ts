// One target, in a process of its own, so that a crash or a hang ends that and nothing else; run bundled. Argument: a
// RunOrder as JSON. Prints a RunResult as JSON; the process ends with 1 when a case failed.
import { mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import { randomNumbers } from "../harness/random.js";
import { shrink } from "./shrink.js";
import { type FuzzCase, type FuzzTarget, loadCase, problemWith, type SavedCase, saveCase } from "./target.js";
import { targets } from "./targets.js";

export type RunOrder = {
  readonly root: string;
  readonly target: keyof typeof targets;
  readonly seed: number;
  /** Cases to check, and the time to stop at even if there are more to come; `null` = no such end. */
  readonly cases: number;
  readonly deadlineMs: number | null;
  /** Number of the batch being checked, u32 at byte 0, after each batch: whoever watches sees that it goes on. */
  readonly progressFile: string;
  /**
   * Only this batch, or the corpus for -1, and each case is written to that file before it is checked: to find the one that
   * never comes back.
   */
  readonly trace: { readonly batch: number; readonly file: string } | null;
  /** Where failing cases go. */
  readonly foundFolder: string;
};
export type RunResult = {
  readonly target: string;
  readonly seed: number;
  readonly cases: number;
  readonly corpus: number;
  readonly seconds: number;
  readonly heapGrowthBytes: number;
  readonly residentGrowthBytes: number;
  readonly seen: Readonly<Record<string, number>>;
  /** What failed, and the file that holds the case, made smaller; `null` = nothing did. */
  readonly failure: { readonly problem: string; readonly file: string | null } | null;
};

/** Cases of a batch, at least: what is measured in one go. */
const BATCH_CASES = 64;
/** CPU time that a case may take. A batch below it holds no such case; else each of its cases is measured alone. */
const CASE_LIMIT_US = 10_000;
/** A machine that is busy elsewhere, or a collection of garbage, spoils one measurement, not all of these. */
const MEASUREMENTS = 5;
/** Memory may grow by this much after the first fifth of a run. */
const HEAP_GROWTH_BYTES = 8 << 20;
const RESIDENT_GROWTH_BYTES = 96 << 20;

class Failure extends Error {
  readonly given: FuzzCase | null;
  constructor(problem: string, given: FuzzCase | null) {
    super(problem);
    this.given = given;
  }
}

function main(order: RunOrder): void {
  Error.stackTraceLimit = 0; // refusals are many, and their stacks would take most of the time
  const folder = mkdtempSync(join(dirname(order.progressFile), "files-")); // the parent removes it, however we end
  const startMs = performance.now();
  const target = targets[order.target](folder, order.root);
  const state = { cases: 0, corpus: 0, heap: 0, resident: 0, failure: null as RunResult["failure"] };
  try {
    if (order.trace === null) {
      const corpus = corpusOf(order);
      for (const [file, given] of corpus) checkKnown(target, file, given);
      state.corpus = corpus.length;
      runBatches(target, order, state);
    } else trace(target, order, order.trace);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    state.failure = { problem: error.message, file: keep(target, order, error) };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const result: RunResult = {
    target: order.target,
    seed: order.seed,
    cases: state.cases,
    corpus: state.corpus,
    seconds: Math.round((performance.now() - startMs) / 100) / 10,
    heapGrowthBytes: state.heap,
    residentGrowthBytes: state.resident,
    seen: target.seen,
    failure: state.failure,
  };
  process.stdout.write(`${JSON.stringify(result)}\n`);
  process.exitCode = state.failure === null ? 0 : 1;
}

/** What was found before, with the names of the files. */
function corpusOf({ root, target }: RunOrder): readonly (readonly [string, FuzzCase])[] {
  const folder = join(root, "test/fuzz/corpus", target);
  const files = readdirSync(folder).filter((file) => file.endsWith(".json"));
  return files.map((file) => [file, loadCase(JSON.parse(readFileSync(join(folder, file), "utf8")) as SavedCase)]);
}

function checkKnown(target: FuzzTarget, file: string, given: FuzzCase): void {
  const problem = problemWith(target, given) ?? slowness(target, given);
  if (problem !== null) throw new Failure(`${file}: ${problem}`, null);
}

function runBatches(
  target: FuzzTarget,
  order: RunOrder,
  state: { cases: number; heap: number; resident: number },
): void {
  const progress = openSync(order.progressFile, "w");
  const number = new Uint32Array(1);
  const isOver = () => order.deadlineMs !== null && Date.now() >= order.deadlineMs;
  let before: { heap: number; resident: number } | null = null;
  const startMs = Date.now();
  /** How much of the run is done, by cases or by time. */
  const share = () =>
    Math.max(
      state.cases / order.cases,
      order.deadlineMs === null ? 0 : (Date.now() - startMs) / (order.deadlineMs - startMs),
    );
  let lookAt = 0.2;
  for (let batch = 0; state.cases < order.cases && !isOver(); batch++) {
    number[0] = batch;
    writeSync(progress, number, 0, 4, 0);
    const cases = casesOf(target, order.seed, batch);
    checkBatch(target, cases);
    for (const given of cases) state.cases += weigh(target, given);
    if (share() < lookAt) continue;
    lookAt += 0.1;
    const memory = memoryNow();
    before ??= memory;
    state.heap = memory.heap - before.heap;
    state.resident = memory.resident - before.resident;
    if (state.heap > HEAP_GROWTH_BYTES || state.resident > RESIDENT_GROWTH_BYTES) {
      throw new Failure(
        `memory grows: heap by ${state.heap}, in all by ${state.resident} bytes, after ${state.cases} cases`,
        null,
      );
    }
  }
}

const weigh = (target: FuzzTarget, given: FuzzCase) => target.weigh?.(given) ?? 1;

/** The cases of a batch follow from the run's seed and the batch's number alone. */
function casesOf(target: FuzzTarget, seed: number, batch: number): readonly FuzzCase[] {
  const random = randomNumbers((Math.imul(seed, 0x9e3779b1) ^ Math.imul(batch + 1, 0x85ebca6b)) >>> 0 || 1);
  const cases: FuzzCase[] = [];
  for (let weight = 0; weight < BATCH_CASES; ) {
    const given = target.generate(random);
    cases.push(given);
    weight += weigh(target, given);
  }
  return cases;
}

function checkBatch(target: FuzzTarget, cases: readonly FuzzCase[]): void {
  const startMs = performance.now();
  for (const given of cases) {
    const problem = problemWith(target, given);
    if (problem !== null) throw new Failure(problem, given);
  }
  if ((performance.now() - startMs) * 1_000 <= CASE_LIMIT_US) return; // what took less time took less CPU, too
  const used = cpuTimeUs(() => {
    for (const given of cases) problemWith(target, given);
  });
  if (used <= CASE_LIMIT_US) return;
  for (const given of cases) {
    const problem = slowness(target, given);
    if (problem !== null) throw new Failure(problem, given);
  }
}

/** Whether a case takes too long, the model's time included. The CPU time counts, and the least of some measurements. */
function slowness(target: FuzzTarget, given: FuzzCase): string | null {
  const limit = CASE_LIMIT_US * (target.allowance?.(given) ?? 1);
  let least = Number.POSITIVE_INFINITY;
  for (let n = 0; n < MEASUREMENTS && least > limit; n++) {
    least = Math.min(
      least,
      cpuTimeUs(() => problemWith(target, given)),
    );
  }
  return least > limit ? `takes ${least} us of CPU time, more than ${limit}` : null;
}

function cpuTimeUs(work: () => void): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return user + system;
}

/** A batch that did not come back: the case that is checked when that happens is the last one written. */
function trace(target: FuzzTarget, order: RunOrder, { batch, file }: NonNullable<RunOrder["trace"]>): void {
  const cases = batch < 0 ? corpusOf(order).map(([, given]) => given) : casesOf(target, order.seed, batch);
  for (const given of cases) {
    writeFileSync(
      file,
      JSON.stringify(saveCase(order.target, `ends the process, or does not come back; seed ${order.seed}`, given)),
    );
    problemWith(target, given);
  }
}

/** Bytes in use after a collection: of the heap with array buffers, and of the process. */
function memoryNow(): { heap: number; resident: number } {
  const { gc } = globalThis as { gc?: () => void };
  gc?.();
  gc?.();
  const { heapUsed, arrayBuffers, rss } = process.memoryUsage();
  return { heap: heapUsed + arrayBuffers, resident: rss };
}

/** Writes the failing case, made smaller, to a file. @returns its path, or null where it is no case's fault */
function keep(target: FuzzTarget, order: RunOrder, { message, given }: Failure): string | null {
  if (given === null) return null;
  Error.stackTraceLimit = 10;
  const isSlow = problemWith(target, given) === null;
  const small = isSlow ? given : shrink(given, (candidate) => problemWith(target, candidate) !== null);
  const about = isSlow ? message : (problemWith(target, small) ?? message);
  mkdirSync(order.foundFolder, { recursive: true });
  const file = join(order.foundFolder, `${order.target}-seed-${order.seed}.json`);
  writeFileSync(
    file,
    `${JSON.stringify(saveCase(order.target, about.split("\n")[0]!.slice(0, 1_000), small), null, 2)}\n`,
  );
  return file;
}

main(JSON.parse(process.argv[2]!) as RunOrder);
