// `make fuzz`: generated input against slow models, in child processes. A child that crashes, or that goes on no more, is a
// failure like any other: the case is found by doing its batch again. Options: --target=NAME[,NAME] --seed=N --cases=N
// --minutes=N; without the last two it runs for five minutes a target.
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { buildHarness } from "./build-harness.mjs";

/** @typedef {import("../test/fuzz/run.ts").RunResult} RunResult */
/** @typedef {import("../test/fuzz/run.ts").RunOrder} RunOrder */
/** @typedef {{ target: RunOrder["target"], seed: number, cases: number, minutes?: number }} Wish */

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const foundFolder = join(root, "build", "fuzz-found");
/** All targets, with the cases that `make test` checks: a million each of what comes from outside. */
export const TARGETS = /** @type {const} */ ({
  packets: 1_000_000,
  fragments: 1_000_000,
  captures: 1_000_000,
  "flow-socket": 1_000_000,
  "queue-messages": 100_000,
  netlink: 50_000,
  regions: 5_000,
});
const CHILDREN_AT_A_TIME = 2;
/** A batch takes milliseconds; for as long a busy machine may leave a process without CPU. */
const SILENCE_MS = 60_000;
const LOOK_EVERY_MS = 1_000;

/** @param {string | undefined} text */
export const seedOf = (text) => (text === undefined ? Math.floor(Math.random() * 2 ** 31) + 1 : Number(text));

/**
 * Runs the targets, two at a time, and tells of each when it is done.
 * @param {readonly Wish[]} wishes @param {(result: RunResult) => void} tell @returns {Promise<void>}
 */
export async function fuzz(wishes, tell) {
  const program = join(await buildHarness(), "fuzz.cjs");
  const open = [...wishes];
  const work = async () => {
    for (let wish = open.shift(); wish !== undefined; wish = open.shift()) tell(await run(program, wish));
  };
  await Promise.all(Array.from({ length: CHILDREN_AT_A_TIME }, work));
}

/** @param {string} program @param {Wish} wish @returns {Promise<RunResult>} */
async function run(program, { target, seed, cases, minutes }) {
  const folder = mkdtempSync(join(tmpdir(), "fuzz-run-"));
  const progressFile = join(folder, "progress");
  const deadlineMs = minutes === undefined ? null : Date.now() + minutes * 60_000;
  /** @type {RunOrder} */
  const order = { root, target, seed, cases, deadlineMs, progressFile, trace: null, foundFolder };
  try {
    const { output, end } = await child(program, order);
    if (output.startsWith("{")) return JSON.parse(output);
    const batch = existsSync(progressFile) ? readFileSync(progressFile).readUInt32LE(0) : -1;
    const trace = { batch, file: join(folder, "case.json") };
    const again = await child(program, { ...order, trace });
    const problem = `the process ${end}, ${batch < 0 ? "in the corpus" : `in batch ${batch}`}; again: ${again.end}`;
    const file = join(foundFolder, `${target}-seed-${seed}.json`);
    if (!existsSync(trace.file)) return failed(target, seed, problem, null);
    mkdirSync(foundFolder, { recursive: true });
    renameSync(trace.file, file);
    return failed(target, seed, problem, file);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** @param {string} target @param {number} seed @param {string} problem @param {string | null} file @returns {RunResult} */
const failed = (target, seed, problem, file) => ({
  ...{ target, seed, cases: 0, corpus: 0, seconds: 0, heapGrowthBytes: 0, residentGrowthBytes: 0, seen: {} },
  failure: { problem, file },
});

/**
 * A process for the order; ended when its progress stands still.
 * @param {string} program @param {RunOrder} order @returns {Promise<{ output: string, end: string }>}
 */
async function child(program, order) {
  const node = spawn(process.execPath, ["--expose-gc", "--max-semi-space-size=32", program, JSON.stringify(order)], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  let errors = "";
  node.stdout.on("data", (chunk) => (output += String(chunk)));
  node.stderr.on("data", (chunk) => (errors = (errors + String(chunk)).slice(-2_000)));
  let last = "";
  let lastMs = Date.now();
  let isHanging = false;
  const timer = setInterval(() => {
    const watched = order.trace?.file ?? order.progressFile;
    const now = existsSync(watched) ? readFileSync(watched, "latin1") : "";
    if (now !== last) [last, lastMs] = [now, Date.now()];
    if (Date.now() - lastMs < SILENCE_MS) return;
    isHanging = true;
    node.kill("SIGKILL");
  }, LOOK_EVERY_MS);
  /** @type {[number | null, string | null]} */
  const [code, signal] = await new Promise((resolve) => node.on("close", (...how) => resolve(how)));
  clearInterval(timer);
  const end = isHanging ? "went on no more" : `ended with ${signal ?? code}${errors === "" ? "" : `: ${errors}`}`;
  return { output, end };
}

/** @param {RunResult} result */
export function describe({
  target,
  seed,
  cases,
  corpus,
  seconds,
  heapGrowthBytes,
  residentGrowthBytes,
  seen,
  failure,
}) {
  if (failure !== null) {
    const again = `make fuzz ARGS="--target=${target} --seed=${seed}"`;
    return `FAILED ${target}: ${failure.problem}\n  case: ${failure.file ?? "none"}\n  again: ${again}`;
  }
  const counts = Object.entries(seen).map(([what, count]) => `${count} ${what}`);
  const growth = `heap ${heapGrowthBytes >> 10}, resident ${residentGrowthBytes >> 10} KiB more`;
  return `${target}: seed ${seed}: ${cases} cases and ${corpus} of the corpus in ${seconds} s; ${growth}; ${counts.join(", ")}`;
}

async function main() {
  const string = /** @type {const} */ ({ type: "string" });
  const { values } = parseArgs({ options: { target: string, seed: string, cases: string, minutes: string } });
  const names = values.target?.split(",") ?? Object.keys(TARGETS);
  const unknown = names.filter((name) => !(name in TARGETS));
  if (unknown.length > 0) throw new Error(`no target ${unknown.join()}; there are ${Object.keys(TARGETS).join(", ")}`);
  const minutes = Number(values.minutes ?? (values.cases === undefined ? 5 : Number.POSITIVE_INFINITY));
  const wishes = names.map((name) => ({
    target: /** @type {RunOrder["target"]} */ (name),
    seed: seedOf(values.seed),
    cases: Number(values.cases ?? Number.MAX_SAFE_INTEGER),
    ...(Number.isFinite(minutes) ? { minutes } : {}),
  }));
  await fuzz(wishes, (result) => {
    console.log(describe(result));
    if (result.failure !== null) process.exitCode = 1;
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
