import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { parseQueueStates } from "#netlink/queue";
import {
  COUNTER_BATCHES,
  COUNTER_IDLE_RECEIVES,
  COUNTER_STARTS,
  CounterFile,
  SAMPLE_QUEUE_DROPPED,
  SAMPLE_TIME_MS,
  SAMPLE_USER_DROPPED,
  SAMPLE_WAITING,
} from "#tables";
import { type Loss, QueueMonitor } from "./nfqlb/queue-monitor.js";
import { queueSamples } from "./nfqlb/queue-samples.js";
import { compareSnapshots } from "./nfqlb/top-report.js";
import { renderScreen } from "./nfqlb/top-screen.js";

const folder = mkdtempSync(join(tmpdir(), "queue-monitor-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** The kernel's list with these numbers for queue 4. */
const states = (waiting: number, queueDropped: number, userDropped: number) =>
  parseQueueStates(`    4   3421 ${waiting} 2   256 ${queueDropped} ${userDropped}       99  1\n`);

test("losses add up over a queue that is bound anew, and are told at most once a minute", () => {
  using counters = CounterFile.create(folder, "counters", 1, "{}");
  const told: Loss[] = [];
  let nowMs = 1_000;
  using monitor = new QueueMonitor(counters, [4], { onLoss: (loss) => told.push(loss), onHang: () => {} }, () => nowMs);
  const { samples } = counters.block(0);
  monitor.sample(states(7, 0, 0));
  expect(told).toEqual([]);
  monitor.sample(states(100, 10, 1));
  expect(told).toEqual([{ queueNumber: 4, queueDropped: 10, userDropped: 1 }]);
  nowMs += 30_000;
  monitor.sample(states(100, 15, 1));
  monitor.sample(new Map()); // not bound at the moment
  monitor.sample(states(3, 2, 0)); // bound anew: the kernel begins at 0
  expect(told).toHaveLength(1);
  expect([samples[SAMPLE_QUEUE_DROPPED], samples[SAMPLE_USER_DROPPED], samples[SAMPLE_WAITING]]).toEqual([17, 1, 3]);
  nowMs += 30_000;
  monitor.sample(states(0, 2, 0));
  expect(told[1]).toEqual({ queueNumber: 4, queueDropped: 7, userDropped: 0 });
  nowMs += 60_000;
  monitor.sample(states(0, 2, 0));
  expect(told).toHaveLength(2);
  expect(samples[SAMPLE_TIME_MS]).toBe(nowMs);
});

test("a thread hangs after a second without a sign of life, unless no packet waits for it", () => {
  using counters = CounterFile.create(folder, "counters", 1, "{}");
  let hangs = 0;
  using monitor = new QueueMonitor(counters, [4], { onLoss: () => {}, onHang: () => hangs++ });
  const own = counters.block(0).counters;
  const sample = (times: number, now: ReturnType<typeof states> | null) => {
    hangs = 0;
    for (let i = 0; i < times; i++) monitor.sample(now);
    return hangs;
  };
  expect(sample(4, states(3, 0, 0))).toBe(0);
  expect(sample(2, states(3, 0, 0))).toBe(2); // from the fifth on, with each sample
  for (const sign of [COUNTER_BATCHES, COUNTER_IDLE_RECEIVES, COUNTER_STARTS]) {
    own[sign]!++;
    expect(sample(5, states(3, 0, 0))).toBe(0);
    expect(sample(1, states(3, 0, 0))).toBe(1);
  }
  expect(sample(5, states(0, 0, 0))).toBe(0);
  expect(sample(5, new Map())).toBe(0); // not bound
  expect(sample(1, null)).toBe(1); // nobody knows whether packets wait
});

test("what the user may not know is not known, instead of 0, in samples and top; nothing is told as lost", () => {
  using counters = CounterFile.create(folder, "unknown", 1, "{}");
  const told: Loss[] = [];
  using monitor = new QueueMonitor(counters, [4], { onLoss: (loss) => told.push(loss), onHang: () => {} });
  monitor.sample(null);
  expect(queueSamples(counters.block(0), 4, states(3, 2, 1))).toEqual({ waiting: 3, queueFull: 2, bufferFull: 1 });
  expect(told).toEqual([]);
  const unknown = queueSamples(counters.block(0), 4, null);
  expect(unknown).toEqual({ waiting: NaN, queueFull: NaN, bufferFull: NaN });
  const counts = { packets: 0, batches: 0, batchSizes: [], dropped: 0, userMs: 0, systemMs: 0, sampleMs: 0, starts: 1 };
  const queues = [{ queue: 4, ...counts, ...unknown }];
  const snapshot = { timeMs: 0, pid: 1, isReady: true, isHanging: false, queues, flows: [], targets: [] };
  const report = compareSnapshots(snapshot, snapshot, new Date());
  const [row] = JSON.parse(JSON.stringify(report.queues)) as object[];
  expect(row).toMatchObject({ waiting: null, lost: { queueFull: null, bufferFull: null }, lostPerSecond: null });
  const screen = renderScreen(report, new Map(), { columns: 80, rows: 24, sort: "trouble" });
  expect(screen.map(({ text }) => text).find((text) => text.startsWith("4 "))).toMatch(/ 0 +0 +\? +\? /);
});
