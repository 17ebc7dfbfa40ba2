// Question: how long does a cache line take from one CPU to another and back? On a virtual machine that changes from second to
// second with the cores that the host gives; every packet that passes from the kernel's side to the worker's moves some of them.
import { Worker } from "node:worker_threads";

const ROUND_TRIPS = 20_000;
/** The other thread answers each odd number with the next even one, spinning. */
const PARTNER = `
  const { workerData } = require("node:worker_threads");
  const word = new Int32Array(workerData);
  for (let turn = 1; turn < ${2 * ROUND_TRIPS}; turn += 2) {
    while (Atomics.load(word, 0) !== turn);
    Atomics.store(word, 0, turn + 1);
  }
`;

/** ns that a word takes to a thread on another CPU and back; the median of some tries. Needs two idle CPUs. */
export async function cacheLineRoundTrip(): Promise<number> {
  const tries: number[] = [];
  for (let i = 0; i < 3; i++) tries.push(await roundTrip());
  return tries.sort((a, b) => a - b)[1]!;
}

async function roundTrip(): Promise<number> {
  const shared = new SharedArrayBuffer(64);
  const word = new Int32Array(shared);
  const partner = new Worker(PARTNER, { eval: true, workerData: shared });
  await new Promise((resolve) => partner.once("online", resolve));
  const start = process.hrtime.bigint();
  for (let turn = 1; turn < 2 * ROUND_TRIPS; turn += 2) {
    Atomics.store(word, 0, turn);
    while (Atomics.load(word, 0) !== turn + 1);
  }
  const ns = Number(process.hrtime.bigint() - start) / ROUND_TRIPS;
  await new Promise((resolve) => partner.once("exit", resolve));
  return Math.round(ns);
}
