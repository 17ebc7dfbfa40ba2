import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { Stopwatch } from "#sys";
import { COUNTER_LATENCIES, COUNTER_LATENCY_SUM_US, CounterFile, LATENCY_BUCKETS } from "#tables";
import { LoopCounters } from "./counters.js";

const folder = mkdtempSync(join(tmpdir(), "counters-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Times in us that the next timed batches take. */
function scripted(timesUs: readonly number[]): { readonly stopwatch: Stopwatch; readonly starts: () => number } {
  let starts = 0;
  const stopwatch = { start: () => starts++, elapsedUs: () => timesUs[starts - 1]! } as unknown as Stopwatch;
  return { stopwatch, starts: () => starts };
}

test("latency: every 16th batch is timed, its packets go to the first bucket that holds the time", () => {
  const times = [0, 8, 9, 16, 17, 131_072, 131_073, 2_000_000];
  const { stopwatch, starts } = scripted(times);
  using file = CounterFile.create(folder, "counters", 1, "{}");
  const block = file.block(0);
  const counters = new LoopCounters(block, stopwatch);
  for (let batch = 0; batch <= (times.length - 1) * 16; batch++) {
    counters.received(batch);
    counters.batch(3, 0, 0);
  }
  expect(starts()).toBe(times.length);
  const buckets = [...block.counters.subarray(COUNTER_LATENCIES, COUNTER_LATENCIES + LATENCY_BUCKETS)];
  expect(buckets).toEqual([6, 6, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 6]);
  expect(block.counters[COUNTER_LATENCY_SUM_US]).toBe(3 * times.reduce((sum, us) => sum + us, 0));
});

test("the stopwatch agrees with node's clock and allocates nothing per reading", () => {
  const stopwatch = new Stopwatch();
  const measure = () => {
    const beforeMs = performance.now();
    stopwatch.start();
    const insideMs = performance.now();
    while (performance.now() - insideMs < 3) stopwatch.elapsedUs();
    const insideEndMs = performance.now();
    const us = stopwatch.elapsedUs();
    expect(us).toBeGreaterThanOrEqual(Math.floor((insideEndMs - insideMs) * 1_000) - 1);
    expect(us).toBeLessThanOrEqual(Math.ceil((performance.now() - beforeMs) * 1_000) + 1);
  };
  for (let i = 0; i < 5; i++) measure();
  const spin = (times: number) => {
    let sum = 0;
    for (let i = 0; i < times; i++) {
      stopwatch.start();
      sum += stopwatch.elapsedUs();
    }
    return sum;
  };
  spin(200_000);
  const growths = Array.from({ length: 5 }, () => {
    const before = process.memoryUsage().heapUsed;
    spin(100_000);
    return process.memoryUsage().heapUsed - before;
  });
  expect(Math.min(...growths)).toBeLessThan(100_000); // less than a byte per reading
});
