import type { FlowReport, QueueReport, Report, TargetReport } from "./top-report.js";

/** In which order rows come: the busiest first, by name or number, or those in trouble first. */
export const SORT_ORDERS = ["rate", "name", "trouble"] as const;
export type SortOrder = (typeof SORT_ORDERS)[number];

/** Rates of the last intervals, the youngest last, by row. */
export type History = ReadonlyMap<string, readonly number[]>;

export type ScreenOptions = {
  readonly columns: number;
  /** Lines at most; each section gets its part. */
  readonly rows: number;
  readonly sort: SortOrder;
};

/** A line and whether it is a heading, which a terminal shows inverted. */
export type Line = { readonly text: string; readonly isHeading: boolean };

const HISTORY_LENGTH = 60;
const MIN_COLUMNS = 60;
const BARS = "▁▂▃▄▅▆▇█";

/** The history with one report more. Rows that are gone are forgotten. */
export function remember(history: History, report: Report): History {
  const rates: [string, number][] = [
    ["total", report.total.packetsPerSecond],
    ...report.queues.map((row): [string, number] => [queueId(row), row.packetsPerSecond]),
    ...report.flows.map((row): [string, number] => [flowId(row), row.matchesPerSecond]),
    ...report.targets.map((row): [string, number] => [targetId(row), row.packetsPerSecond]),
  ];
  return new Map(rates.map(([id, rate]) => [id, [...(history.get(id) ?? []), rate].slice(-HISTORY_LENGTH)]));
}

const queueId = ({ queue }: QueueReport) => `queue ${queue}`;
const flowId = ({ flow }: FlowReport) => `flow ${flow}`;
const targetId = ({ stream, index }: TargetReport) => `target ${index} ${stream}`;

/** A report as lines of at most `columns` characters, at most `rows` of them. Pure. */
export function renderScreen(report: Report, history: History, options: ScreenOptions): readonly Line[] {
  const columns = Math.max(options.columns, MIN_COLUMNS);
  const sections = [
    queueSection(report.queues, history, columns, options.sort),
    flowSection(report.flows, history, columns, options.sort),
    targetSection(report.targets, history, columns, options.sort),
  ];
  const head = headLines(report, history, options.sort, columns);
  const room = Math.max(0, options.rows - head.length - sections.length);
  const shares = shareOut(
    sections.map(({ rows }) => rows.length),
    room,
  );
  const body = sections.flatMap(({ title, heading, rows }, i) => {
    const shown = rows.slice(0, shares[i]);
    const count = shown.length < rows.length ? ` ${shown.length} of ${rows.length}` : "";
    return [
      { text: cut(`${title}${count}`.padEnd(heading.left) + heading.text, columns), isHeading: true },
      ...shown.map((text) => ({ text: cut(text, columns), isHeading: false })),
    ];
  });
  return [...head.map((text) => ({ text: cut(text, columns), isHeading: false })), ...body].slice(0, options.rows);
}

function headLines({ dataPlane, total, time, intervalMs }: Report, history: History, sort: SortOrder, columns: number) {
  const state = dataPlane.isReady ? "serving" : "starting";
  const left = `nfqlb top: pid ${dataPlane.pid}, ${state}`;
  const right = `${time.slice(11, 19)} UTC  every ${intervalMs / 1000} s  [s]ort: ${sort}  [q]uit`;
  const sums = [
    `packets/s ${count(total.packetsPerSecond)}`,
    `dropped/s ${count(total.droppedPerSecond)}`,
    `lost/s ${count(total.lostPerSecond)}`,
    `CPU ${percent(total.cpuPercent)}`,
  ].join("   ");
  const bars = sparkline(history.get("total") ?? [], Math.max(0, columns - sums.length - 3));
  return [left.padEnd(columns - right.length) + right, `${sums}   ${bars}`];
}

type Section = {
  readonly title: string;
  /** Column names; they begin at `left`. */
  readonly heading: { readonly left: number; readonly text: string };
  readonly rows: readonly string[];
};

function queueSection(queues: readonly QueueReport[], history: History, columns: number, sort: SortOrder): Section {
  const trouble = ({ lostPerSecond, droppedPerSecond, waiting }: QueueReport) =>
    (lostPerSecond || 0) * 1e6 + droppedPerSecond + (waiting || 0) / 1e6;
  const rows = sorted(
    queues,
    sort,
    ({ packetsPerSecond }) => packetsPerSecond,
    trouble,
    ({ queue }) => [queue, ""],
  );
  return {
    title: "QUEUE",
    heading: {
      left: 14,
      text: columnsOf("PACKETS/S", "DROP/S", "LOST/S", "WAIT", "BATCH", " SIZES", "CPU%", "HISTORY"),
    },
    rows: rows.map((row) => {
      const cpu = row.cpuPercent === null ? null : row.cpuPercent.user + row.cpuPercent.system;
      const name = `${row.queue}${row.starts > 1 ? ` (start ${row.starts})` : ""}`;
      return (
        name.padEnd(14) +
        columnsOf(
          count(row.packetsPerSecond),
          count(row.droppedPerSecond),
          count(row.lostPerSecond),
          count(row.waiting),
          row.packetsPerBatch === null ? "-" : row.packetsPerBatch.toFixed(1),
          sparkline(row.recentBatchSizes, row.recentBatchSizes.length),
          cpu === null ? "-" : cpu.toFixed(1),
          sparkline(history.get(queueId(row)) ?? [], columns - 70),
        )
      );
    }),
  };
}

function columnsOf(
  rate: string,
  dropped: string,
  lost: string,
  wait: string,
  batch: string,
  sizes: string,
  cpu: string,
  bars: string,
) {
  return `${rate.padStart(9)}${dropped.padStart(8)}${lost.padStart(8)}${wait.padStart(7)}${batch.padStart(7)}  ${sizes.padEnd(7)}${cpu.padStart(7)} ${bars}`;
}

function flowSection(flows: readonly FlowReport[], history: History, columns: number, sort: SortOrder): Section {
  const all = flows.reduce((sum, { matchesPerSecond }) => sum + matchesPerSecond, 0);
  const rate = ({ matchesPerSecond }: FlowReport) => matchesPerSecond;
  const rows = sorted(flows, sort, rate, rate, ({ flow }) => [0, flow]);
  const nameWidth = 25 + Math.floor((columns - 80) / 4);
  const streamWidth = 19 + Math.floor((columns - 80) / 4);
  const rest = columns - nameWidth - streamWidth - 22;
  const line = (stream: string, matches: string, share: string, bars: string) =>
    `${cut(stream, streamWidth - 1).padEnd(streamWidth)}${matches.padStart(10)}${share.padStart(9)}  ${bars}`;
  return {
    title: "FLOW",
    heading: { left: nameWidth, text: line("STREAM", "MATCHES/S", "SHARE", "HISTORY") },
    rows: rows.map(
      (row) =>
        cut(row.flow, nameWidth - 1).padEnd(nameWidth) +
        line(
          row.stream,
          count(row.matchesPerSecond),
          percent(all === 0 ? null : (100 * row.matchesPerSecond) / all),
          sparkline(history.get(flowId(row)) ?? [], rest),
        ),
    ),
  };
}

function targetSection(targets: readonly TargetReport[], history: History, columns: number, sort: SortOrder): Section {
  const deviation = ({ share, ideal }: TargetReport) => (share === null ? 0 : Math.abs(share - ideal));
  const rows = sorted(
    targets,
    sort,
    ({ packetsPerSecond }) => packetsPerSecond,
    deviation,
    ({ index, stream }) => [index, stream],
  );
  const nameWidth = 20 + Math.floor((columns - 80) / 3);
  const rest = columns - nameWidth - 47;
  const line = (fwmark: string, rate: string, share: string, ideal: string, difference: string, bars: string) =>
    `${fwmark.padStart(8)}${rate.padStart(10)}${share.padStart(9)}${ideal.padStart(9)}${difference.padStart(9)}  ${bars}`;
  return {
    title: "TARGET",
    heading: { left: nameWidth, text: line("FWMARK", "PACKETS/S", "SHARE", "IDEAL", "DIFF", "HISTORY") },
    rows: rows.map((row) => {
      const { share, ideal } = row;
      const difference =
        share === null ? "-" : `${share < ideal ? "-" : "+"}${(100 * Math.abs(share - ideal)).toFixed(2)}`;
      const name = `${cut(row.stream, nameWidth - 8)} #${row.index + 1}`;
      return (
        name.padEnd(nameWidth) +
        line(
          row.fwmark < 0 ? "gone" : String(row.fwmark),
          count(row.packetsPerSecond),
          percent(share === null ? null : 100 * share),
          percent(100 * ideal),
          difference,
          sparkline(history.get(targetId(row)) ?? [], rest),
        )
      );
    }),
  };
}

function sorted<T>(
  rows: readonly T[],
  sort: SortOrder,
  rate: (row: T) => number,
  trouble: (row: T) => number,
  name: (row: T) => readonly [number, string],
): readonly T[] {
  const byName = (a: T, b: T) => {
    const [numberA, textA] = name(a);
    const [numberB, textB] = name(b);
    return textA < textB ? -1 : textA > textB ? 1 : numberA - numberB;
  };
  if (sort === "name") return rows.toSorted(byName);
  const value = sort === "rate" ? rate : trouble;
  return rows.toSorted((a, b) => value(b) - value(a) || byName(a, b));
}

/** How many lines each section gets of `room`: all it needs where that is little, an equal part of the rest otherwise. */
export function shareOut(needs: readonly number[], room: number): readonly number[] {
  const given = needs.map(() => 0);
  for (let left = room; left > 0; ) {
    const open = needs.map((_, i) => i).filter((i) => given[i]! < needs[i]!);
    if (open.length === 0) break;
    const each = Math.max(1, Math.floor(left / open.length));
    for (const i of open) {
      const more = Math.min(each, needs[i]! - given[i]!, left);
      given[i]! += more;
      left -= more;
    }
  }
  return given;
}

/** The last `width` values as bars against the largest of them; nothing is a low line, a little is more than nothing. */
export function sparkline(values: readonly number[], width: number): string {
  const shown = width > 0 ? values.slice(-width) : [];
  const most = Math.max(...shown, 1);
  return shown.map((value) => BARS[value === 0 ? 0 : Math.max(1, Math.round((7 * value) / most))]).join("");
}

/** At most six characters: whole up to 99,999, then k, M, G with three digits. */
export function count(value: number): string {
  if (Number.isNaN(value)) return "?";
  if (value < 100_000) return String(Math.round(value));
  const [unit, divisor] = value < 999_500 ? ["k", 1e3] : value < 999.5e6 ? ["M", 1e6] : ["G", 1e9];
  const scaled = value / Number(divisor);
  return `${scaled >= 99.95 ? scaled.toFixed(0) : scaled >= 9.995 ? scaled.toFixed(1) : scaled.toFixed(2)}${unit}`;
}

function percent(value: number | null): string {
  return value === null ? "-" : `${value.toFixed(value >= 99.95 ? 1 : 2)}%`;
}

/** Cut to `width` characters; control characters, which would disturb the screen, become dots. */
function cut(text: string, width: number): string {
  const clean = text.replace(/\p{Cc}/gu, "·");
  return clean.length <= width ? clean : `${clean.slice(0, Math.max(0, width - 1))}…`;
}
