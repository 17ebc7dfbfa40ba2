import type { QueueCounts, Snapshot } from "./top-snapshot.js";

/**
 * A queue in an interval; `packets`, `dropped`, `lost`, `batchSizes` count since the data plane's start. Losses and waiting
 * packets that are not known are NaN, which JSON has as null.
 */
export type QueueReport = {
  readonly queue: number;
  readonly packets: number;
  readonly packetsPerSecond: number;
  readonly dropped: number;
  readonly droppedPerSecond: number;
  readonly lost: { readonly queueFull: number; readonly bufferFull: number };
  readonly lostPerSecond: number;
  readonly waiting: number;
  /** Mean packets per batch in the interval; null without a batch. */
  readonly packetsPerBatch: number | null;
  readonly batchSizes: readonly number[];
  /** Batches of each size in the interval. */
  readonly recentBatchSizes: readonly number[];
  /** Of one processor; null before the second sample. */
  readonly cpuPercent: { readonly user: number; readonly system: number } | null;
  readonly starts: number;
};

export type FlowReport = {
  readonly flow: string;
  readonly stream: string;
  readonly matches: number;
  readonly matchesPerSecond: number;
};

export type TargetReport = {
  readonly stream: string;
  readonly index: number;
  readonly fwmark: number;
  readonly packets: number;
  readonly packetsPerSecond: number;
  /** Part of its stream's packets in the interval, 0…1; null when there were none. */
  readonly share: number | null;
  /** Part of all its stream's packets since the table was made; null when there are none. */
  readonly totalShare: number | null;
  /** Part of the stream's table that is its own. */
  readonly ideal: number;
};

/** What `nfqlb top --json` prints; docs/top.md. */
export type Report = {
  readonly time: string;
  readonly intervalMs: number;
  readonly dataPlane: { readonly pid: number; readonly isReady: boolean };
  readonly total: {
    readonly packets: number;
    readonly packetsPerSecond: number;
    readonly droppedPerSecond: number;
    readonly lostPerSecond: number;
    readonly cpuPercent: number | null;
  };
  readonly queues: readonly QueueReport[];
  readonly flows: readonly FlowReport[];
  readonly targets: readonly TargetReport[];
};

/** What happened between two snapshots. Counters that went back began anew, and so did a data plane with another pid. */
export function compareSnapshots(before: Snapshot, now: Snapshot, time: Date): Report {
  const seconds = Math.max(now.timeMs - before.timeMs, 1) / 1000;
  const isSame = before.pid === now.pid;
  const queuesBefore = new Map((isSame ? before.queues : []).map((counts) => [counts.queue, counts]));
  const queues = now.queues.map((counts) => reportQueue(queuesBefore.get(counts.queue), counts, seconds));
  const flowsBefore = new Map(before.flows.map(({ flow, matches }) => [flow, matches]));
  const sum = (pick: (queue: QueueReport) => number) => queues.reduce((total, queue) => total + pick(queue), 0);
  return {
    time: time.toISOString(),
    intervalMs: Math.round(seconds * 1000),
    dataPlane: { pid: now.pid, isReady: now.isReady },
    total: {
      packets: sum(({ packets }) => packets),
      packetsPerSecond: sum(({ packetsPerSecond }) => packetsPerSecond),
      droppedPerSecond: sum(({ droppedPerSecond }) => droppedPerSecond),
      lostPerSecond: sum(({ lostPerSecond }) => lostPerSecond),
      cpuPercent: queues.every(({ cpuPercent }) => cpuPercent === null)
        ? null
        : round(
            sum(({ cpuPercent }) => (cpuPercent?.user ?? 0) + (cpuPercent?.system ?? 0)),
            1,
          ),
    },
    queues,
    flows: now.flows.map(({ flow, stream, matches }) => ({
      flow,
      stream,
      matches,
      matchesPerSecond: perSecond(flowsBefore.get(flow) ?? 0, matches, seconds),
    })),
    targets: reportTargets(before, now, seconds),
  };
}

function reportQueue(before: QueueCounts | undefined, now: QueueCounts, seconds: number): QueueReport {
  const since = (pick: (counts: QueueCounts) => number) => growth(before === undefined ? 0 : pick(before), pick(now));
  const batches = since((counts) => counts.batches);
  const sampleSeconds = before === undefined ? 0 : (now.sampleMs - before.sampleMs) / 1000;
  const lost = (counts: QueueCounts) => counts.queueFull + counts.bufferFull;
  const cpuPercent = (pick: (counts: QueueCounts) => number) => round(since(pick) / 10 / sampleSeconds, 1);
  return {
    queue: now.queue,
    packets: now.packets,
    packetsPerSecond: Math.round(since((counts) => counts.packets) / seconds),
    dropped: now.dropped,
    droppedPerSecond: Math.round(since((counts) => counts.dropped) / seconds),
    lost: { queueFull: now.queueFull, bufferFull: now.bufferFull },
    lostPerSecond: sampleSeconds > 0 || Number.isNaN(lost(now)) ? Math.round(since(lost) / sampleSeconds) : 0,
    waiting: now.waiting,
    packetsPerBatch: batches === 0 ? null : round(since((counts) => counts.packets) / batches, 1),
    batchSizes: now.batchSizes,
    recentBatchSizes: now.batchSizes.map((count, size) => growth(before?.batchSizes[size] ?? 0, count)),
    cpuPercent:
      sampleSeconds > 0
        ? { user: cpuPercent(({ userMs }) => userMs), system: cpuPercent(({ systemMs }) => systemMs) }
        : null,
    starts: now.starts,
  };
}

function reportTargets(before: Snapshot, now: Snapshot, seconds: number): readonly TargetReport[] {
  const id = ({ stream, index }: { stream: string; index: number }) => `${index}/${stream}`;
  const packetsBefore = new Map(before.targets.map((target) => [id(target), target.packets]));
  const recent = now.targets.map((target) => growth(packetsBefore.get(id(target)) ?? 0, target.packets));
  const recentOf = new Map<string, number>();
  const totalOf = new Map<string, number>();
  for (const [i, { stream, packets }] of now.targets.entries()) {
    recentOf.set(stream, (recentOf.get(stream) ?? 0) + recent[i]!);
    totalOf.set(stream, (totalOf.get(stream) ?? 0) + packets);
  }
  return now.targets.map(({ stream, index, fwmark, packets, ideal }, i) => ({
    stream,
    index,
    fwmark,
    packets,
    packetsPerSecond: Math.round(recent[i]! / seconds),
    share: part(recent[i]!, recentOf.get(stream)!),
    totalShare: part(packets, totalOf.get(stream)!),
    ideal: round(ideal, 6),
  }));
}

function part(count: number, all: number): number | null {
  return all === 0 ? null : round(count / all, 6);
}

function perSecond(before: number, now: number, seconds: number): number {
  return Math.round(growth(before, now) / seconds);
}

function growth(before: number, now: number): number {
  return now >= before ? now - before : now;
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}
