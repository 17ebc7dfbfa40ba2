import { expect, test } from "vitest";
import { compareSnapshots, type Report } from "./nfqlb/top-report.js";
import { count, type History, remember, renderScreen, shareOut, sparkline } from "./nfqlb/top-screen.js";
import type { Snapshot } from "./nfqlb/top-snapshot.js";

/** A data plane with two queues, whose counters grow by `k` times something. */
const snapshot = (timeMs: number, k: number): Snapshot => ({
  timeMs,
  pid: 4242,
  isReady: true,
  isHanging: false,
  queues: [0, 1].map((queue) => ({
    queue,
    packets: k * 30_000 * (queue + 1),
    batches: k * 1_000,
    batchSizes: [0, k, 0, 0, 2 * k, 8 * k, 4 * k],
    dropped: k * queue,
    queueFull: queue * k * 7,
    bufferFull: 0,
    waiting: queue * 3,
    userMs: 10 * k,
    systemMs: 100 * k,
    sampleMs: timeMs,
    starts: queue + 1,
  })),
  flows: Array.from({ length: 9 }, (_, i) => ({ flow: `flow-${i}`, stream: "tshm-web", matches: k * i * 2_500 })),
  targets: Array.from({ length: 12 }, (_, i) => ({
    stream: i < 8 ? "tshm-web" : "tshm-a-stream-with-a-long-name",
    index: i % 8,
    fwmark: i === 3 ? -1 : 5001 + i,
    packets: k * (1_000 + 100 * i),
    ideal: i < 8 ? 1 / 8 : 1 / 4,
  })),
});

/** Four intervals of one second, each busier than the one before. */
function example(): { report: Report; history: History } {
  let history: History = new Map();
  let report: Report | undefined;
  for (let i = 0; i < 4; i++) {
    report = compareSnapshots(snapshot(i * 1_000, i * i), snapshot((i + 1) * 1_000, (i + 1) ** 2), new Date(i * 1_000));
    history = remember(history, report);
  }
  return { report: report!, history };
}

test("80×24: every section gets its part, sorted by rate", () => {
  const { report, history } = example();
  const lines = renderScreen(report, history, { columns: 80, rows: 24, sort: "rate" });
  expect(lines.map(({ text }) => text.trimEnd())).toEqual([
    "nfqlb top: pid 4242, serving       00:00:03 UTC  every 1 s  [s]ort: rate  [q]uit",
    "packets/s 630k   dropped/s 7   lost/s 49   CPU 154.0%   ▂▄▆█",
    "QUEUE         PACKETS/S  DROP/S  LOST/S   WAIT  BATCH   SIZES    CPU% HISTORY",
    "1 (start 2)        420k       7      49      3   60.0  ▁▂▁▁▃█▅   77.0 ▂▄▆█",
    "0                  210k       0       0      0   30.0  ▁▂▁▁▃█▅   77.0 ▂▄▆█",
    "FLOW                     STREAM              MATCHES/S    SHARE  HISTORY",
    ...[140_000, 122_500, 105_000, 87_500, 70_000, 52_500, 35_000, 17_500].map((rate, i) => {
      const share = `${((100 * rate) / 630_000).toFixed(2)}%`;
      return `flow-${8 - i}                   tshm-web${count(rate).padStart(21)}${share.padStart(9)}  ▂▄▆█`;
    }),
    "flow-0                   tshm-web                    0    0.00%  ▁▁▁▁",
    "TARGET 8 of 12        FWMARK PACKETS/S    SHARE    IDEAL     DIFF  HISTORY",
    "tshm-a-stre… #4         5012     14700   26.92%   25.00%    +1.92  ▂▄▆█",
    "tshm-a-stre… #3         5011     14000   25.64%   25.00%    +0.64  ▂▄▆█",
    "tshm-a-stre… #2         5010     13300   24.36%   25.00%    -0.64  ▂▄▆█",
    "tshm-a-stre… #1         5009     12600   23.08%   25.00%    -1.92  ▂▄▆█",
    "tshm-web #8             5008     11900   15.74%   12.50%    +3.24  ▂▄▆█",
    "tshm-web #7             5007     11200   14.81%   12.50%    +2.31  ▂▄▆█",
    "tshm-web #6             5006     10500   13.89%   12.50%    +1.39  ▂▄▆█",
    "tshm-web #5             5005      9800   12.96%   12.50%    +0.46  ▂▄▆█",
  ]);
  for (const { text } of lines) expect(text.length).toBeLessThanOrEqual(80);
});

test("other orders: by name, and those in trouble first", () => {
  const { report, history } = example();
  const first = (sort: "name" | "trouble", start: string, n: number) =>
    renderScreen(report, history, { columns: 80, rows: 60, sort })
      .filter(({ text }) => text.startsWith(start))
      .slice(0, n)
      .map(({ text }) => text.slice(0, 30).trimEnd());
  expect(first("name", "flow-", 2).map((text) => text.slice(0, 6))).toEqual(["flow-0", "flow-1"]);
  expect(first("name", "tshm-web", 2)).toEqual(["tshm-web #1             5001", "tshm-web #2             5002"]);
  expect(first("trouble", "tshm-web", 1)).toEqual(["tshm-web #1             5001"]); // 3.24 points too little
  expect(first("trouble", "tshm-web", 9)).toContain("tshm-web #4             gone");
  expect(first("trouble", "1 ", 1)).toHaveLength(1);
});

test("any size of the screen holds what is drawn on it", () => {
  const { report, history } = example();
  for (let columns = 60; columns < 200; columns += 7) {
    for (let rows = 1; rows < 60; rows += 3) {
      const lines = renderScreen(report, history, { columns, rows, sort: "rate" });
      expect(lines.length).toBeLessThanOrEqual(rows);
      for (const { text } of lines) expect(text.length).toBeLessThanOrEqual(columns);
    }
  }
});

test("names cannot send commands to the terminal", () => {
  const { report } = example();
  const [flow] = report.flows;
  const evil = { ...report, flows: [{ ...flow!, flow: "a\u001b[2Jb\nc" }] };
  const lines = renderScreen(evil, new Map(), { columns: 80, rows: 24, sort: "rate" });
  expect(lines.some(({ text }) => /\p{Cc}/u.test(text))).toBe(false);
  expect(lines.some(({ text }) => text.startsWith("a·[2Jb·c "))).toBe(true);
});

test("figures of an interval, of a data plane that began anew, and of one without traffic", () => {
  const report = compareSnapshots(snapshot(0, 1), snapshot(2_000, 2), new Date(0));
  expect(report).toMatchObject({
    intervalMs: 2_000,
    total: { packets: 180_000, packetsPerSecond: 45_000, droppedPerSecond: 1, lostPerSecond: 4, cpuPercent: 11 },
  });
  expect(report.queues[1]).toMatchObject({ packetsPerBatch: 60, cpuPercent: { user: 0.5, system: 5 }, starts: 2 });
  expect(report.targets.reduce((sum, { share }) => sum + share!, 0)).toBeCloseTo(2, 4);
  const other = compareSnapshots({ ...snapshot(0, 9), pid: 1 }, snapshot(1_000, 1), new Date(0));
  expect(other.total).toMatchObject({ packetsPerSecond: 90_000, cpuPercent: null });
  expect(other.flows[1]!.matchesPerSecond).toBe(2_500);
  const idle = compareSnapshots(snapshot(0, 1), snapshot(1_000, 1), new Date(0));
  expect(idle.targets[0]).toMatchObject({
    packetsPerSecond: 0,
    share: null,
    totalShare: 0.092593,
  });
  expect(idle.queues[0]).toMatchObject({ packetsPerBatch: null, cpuPercent: { user: 0, system: 0 } });
});

test("room is shared: all that a small section needs, equal parts for large ones", () => {
  expect(shareOut([2, 9, 12], 19)).toEqual([2, 9, 8]);
  expect(shareOut([2, 90, 120], 21)).toEqual([2, 10, 9]);
  expect(shareOut([1, 1, 1], 50)).toEqual([1, 1, 1]);
  expect(shareOut([5, 5, 5], 2)).toEqual([1, 1, 0]);
  expect(shareOut([5, 5], 0)).toEqual([0, 0]);
});

test("numbers keep to six characters, bars to eight levels", () => {
  const shown: [number, string][] = [
    [0, "0"],
    [99_999, "99999"],
    [100_000, "100k"],
    [999_499, "999k"],
    [999_500, "1.00M"],
    [12_345_678, "12.3M"],
    [5e9, "5.00G"],
  ];
  for (const [value, text] of shown) expect(count(value)).toBe(text);
  expect(sparkline([0, 1, 50, 100], 8)).toBe("▁▂▅█");
  expect(sparkline([1, 2, 3], 2)).toBe("▆█");
  expect(sparkline([0, 0], 5)).toBe("▁▁");
  expect(sparkline([1], 0)).toBe("");
});
