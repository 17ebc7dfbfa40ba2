import { setTimeout as delay } from "node:timers/promises";
import { type Command, CommandError, type Io, shmFolder } from "./command.js";
import { Terminal } from "./terminal.js";
import { compareSnapshots, type Report } from "./top-report.js";
import { type History, remember, renderScreen, SORT_ORDERS, type SortOrder } from "./top-screen.js";
import { readSnapshot, type Snapshot } from "./top-snapshot.js";

const MIN_INTERVAL_MS = 100;
const MAX_INTERVAL_MS = 3_600_000;
/** Width of `--once` where there is no terminal. */
const PLAIN_COLUMNS = 80;

/** `nfqlb top`: queues, flow rules and targets, live. It only reads the counters: the data plane does not notice it. */
export const TOP_COMMAND: Command = {
  name: "top",
  summary: "Show packets, losses and CPU per queue, flow and target, live",
  options: [
    { name: "interval", kind: "value", default: "1", help: "Seconds between two looks, 0.1 to 3600" },
    { name: "sort", kind: "value", default: "rate", help: "Order of rows: rate, name or trouble" },
    { name: "once", kind: "switch", help: "Print one interval and end; so without a terminal" },
    { name: "json", kind: "switch", help: "JSON; without --once an object per interval and line" },
  ],
  async run({ values }, io) {
    const folder = shmFolder(io.env);
    const intervalMs = parseInterval(values.get("interval") ?? "1");
    const sort = parseSort(values.get("sort") ?? "rate");
    const isOnce = values.has("once");
    if (values.has("json") && !isOnce) return printForEver(folder, intervalMs, io);
    if (isOnce || !process.stdout.isTTY) {
      const report = await firstReport(folder, intervalMs);
      io.out(values.has("json") ? `${JSON.stringify(report, null, 2)}\n` : plainText(report, sort));
      return 0;
    }
    return await showLive(folder, intervalMs, sort);
  },
};

/** @throws {CommandError} no data plane runs */
async function firstReport(folder: string, intervalMs: number): Promise<Report> {
  const before = snapshotOrFail(folder);
  await delay(intervalMs);
  return compareSnapshots(before, snapshotOrFail(folder), new Date());
}

async function printForEver(folder: string, intervalMs: number, io: Io): Promise<number> {
  for (let before = snapshotOrFail(folder); ; ) {
    await delay(intervalMs);
    const now = snapshotOrFail(folder);
    io.out(`${JSON.stringify(compareSnapshots(before, now, new Date()))}\n`);
    before = now;
  }
}

function plainText(report: Report, sort: SortOrder): string {
  const options = { columns: PLAIN_COLUMNS, rows: Number.POSITIVE_INFINITY, sort };
  const [, ...lines] = renderScreen(report, new Map(), options); // the first line is of the live view
  return lines.map(({ text }) => `${text.trimEnd()}\n`).join("");
}

async function showLive(folder: string, intervalMs: number, firstSort: SortOrder): Promise<number> {
  let sort = firstSort;
  let before: Snapshot | null = null;
  let report: Report | null = null;
  let history: History = new Map();
  const ended = new AbortController();
  const end = () => ended.abort();
  const draw = () => {
    const waiting = [{ text: `no data plane runs in ${folder}; waiting for one  [q]uit`, isHeading: false }];
    const { columns, rows } = terminal;
    terminal.draw(report === null ? waiting : renderScreen(report, history, { columns, rows, sort }));
  };
  const onKey = (key: string) => {
    if (key === "q" || key === "\u0003") end();
    if (key !== "s") return;
    sort = SORT_ORDERS[(SORT_ORDERS.indexOf(sort) + 1) % SORT_ORDERS.length]!;
    draw();
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, end);
  using terminal = new Terminal(process.stdout, process.stdin, { key: onKey, resize: draw });
  while (!ended.signal.aborted) {
    const now = readSnapshot(folder);
    report = before === null || now === null ? null : compareSnapshots(before, now, new Date());
    if (report !== null) history = remember(history, report);
    if (now === null || report !== null) draw();
    const isFirst = before === null && now !== null; // the first figures come soon
    before = now;
    await delay(isFirst ? Math.min(intervalMs, 300) : intervalMs, null, { signal: ended.signal }).catch(() => {});
  }
  return 0;
}

function snapshotOrFail(folder: string): Snapshot {
  const snapshot = readSnapshot(folder);
  if (snapshot === null) throw new CommandError(`no data plane runs in ${folder}`);
  return snapshot;
}

function parseInterval(text: string): number {
  const ms = /^[0-9]{1,4}(\.[0-9]{1,3})?$/.test(text) ? Number(text) * 1000 : Number.NaN;
  if (ms >= MIN_INTERVAL_MS && ms <= MAX_INTERVAL_MS) return ms;
  throw new CommandError(`Invalid --interval [${text}]; seconds 0.1..3600`);
}

function parseSort(text: string): SortOrder {
  const sort = SORT_ORDERS.find((order) => order === text);
  if (sort === undefined) throw new CommandError(`Invalid --sort [${text}]; one of ${SORT_ORDERS.join(", ")}`);
  return sort;
}
