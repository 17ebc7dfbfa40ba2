import {
  CounterWatch,
  flowsGeneration,
  matchesOf,
  readFlows,
  type StoredRule,
  type StreamCounts,
  StreamCountsReader,
} from "#tables";
import { type Definition, type Exposition, joinLabels, labelText, own, type Source } from "./family.js";
import { Kept } from "./kept.js";
import { OTEL_SCOPE } from "./process-metrics.js";

/** A target as the metrics show it; plain values. */
export type TargetView = {
  readonly stream: string;
  readonly identifier: number;
  readonly fwmark: number;
  /** Addresses as they were registered. */
  readonly ips: readonly string[];
  readonly state: "ready" | "pending" | "unreachable";
  /** A word for why it is not ready, else "". */
  readonly reason: string;
};

export type StreamSourceOptions = {
  /** Folder of the tables. */
  readonly folder: string;
  readonly flowsName: string;
  readonly countersName: string;
  /** Region of a stream's table. */
  readonly tableName: (stream: string) => string;
  readonly trench: string;
  readonly conduit: string;
  /** Names of the streams in force. */
  readonly streams: () => readonly string[];
  /** Targets of the configuration in force; the same array as long as nothing of them has changed. */
  readonly targets: () => readonly TargetView[];
  /** What went to each target, by fwmark; one dump of the kernel for all. */
  readonly hits: () => ReadonlyMap<number, { readonly packets: number; readonly bytes: number }>;
  /** ms since 1970. */
  readonly nowMs: () => number;
};

const HIT_PACKETS: Definition = {
  name: "meridio_conduit_stream_target_hit_packets_total",
  type: "counter",
  help: "Packets that left for the target",
  utf8: { name: "meridio.conduit.stream.target.hit.packets_total" },
};
const HIT_BYTES: Definition = {
  name: "meridio_conduit_stream_target_hit_bytes_total",
  type: "counter",
  help: "Bytes that left for the target",
  utf8: { name: "meridio.conduit.stream.target.hit.bytes_total" },
};
const MATCHES: Definition = {
  name: "meridio_conduit_stream_flow_matches_total",
  type: "counter",
  help: "Packets that matched the flow",
  utf8: { name: "meridio.conduit.stream.flow.matches_total" },
};
const TARGETS = own("gauge", "targets", "Targets by stream, state and reason");
const NOT_READY = own(
  "gauge",
  "target_not_ready",
  "1 for each target that gets no packets, with its state and the reason",
);
const TARGET_PACKETS = own("counter", "target_packets_total", "Packets that the data plane sent to the target");
const IDEAL = own("gauge", "target_ideal_ratio", "The target's part of its stream's lookup table, 0 to 1");
const GENERATION = own("gauge", "table_generation", "Number of the stream's table in force; one more with each change");
const AGE = own("gauge", "table_age_seconds", "Time since the stream's table in force was published");
const FLOW_GENERATION = own("gauge", "flow_rules_generation", "Number of the flow rules in force");

/** Streams, flows and targets: what Meridio tells of them, and their tables, states and shares. */
export function streamSource(options: StreamSourceOptions): Source {
  const { trench, conduit } = options;
  const place = labelText({ trench, conduit });
  const flows = new FlowReader(options);
  const tables = new TableReader(options);
  let states = statesOf([], place);
  return {
    name: "streams",
    write: (out) => {
      flows.write(out);
      tables.write(out);
      const targets = options.targets();
      if (states.targets !== targets) states = statesOf(targets, place);
      out.family(TARGETS);
      for (const { labels, count } of states.counts) out.sample(labels, count);
      out.family(NOT_READY);
      for (const labels of states.notReady) out.sample(labels, 1);
    },
  };
}

/** Meridio's counters per target; a source of its own, since the kernel is asked for them. */
export function hitSource({ trench, conduit, targets, hits }: StreamSourceOptions): Source {
  type Known = { readonly stream: string; readonly ips: readonly string[]; readonly labels: string };
  const kept = new Kept<number, Known>();
  const know = ({ stream, fwmark, ips }: TargetView): Known => {
    const mesh = { trench, conduit, stream };
    const target = { identifier: String(fwmark), target_ips: JSON.stringify(ips) };
    return { stream, ips, labels: labelText({ ...mesh, ...target, ...OTEL_SCOPE }) };
  };
  return {
    name: "target hits",
    write: (out) => {
      kept.begin();
      const counted = hits();
      const labelsOf = (target: TargetView) => {
        const isSame = ({ stream, ips }: Known) => stream === target.stream && areEqual(ips, target.ips);
        return kept.get(target.fwmark, isSame, () => know(target)).labels;
      };
      out.family(HIT_PACKETS);
      for (const target of targets()) {
        const count = counted.get(target.fwmark);
        if (count !== undefined) out.sample(labelsOf(target), count.packets);
      }
      out.family(HIT_BYTES);
      for (const target of targets()) {
        const count = counted.get(target.fwmark);
        if (count !== undefined) out.sample(labelsOf(target), count.bytes);
      }
    },
  };
}

const areEqual = (a: readonly string[], b: readonly string[]) =>
  a === b || (a.length === b.length && a.every((one, i) => one === b[i]));

/** What the lookup tables of the streams in force say of themselves. */
class TableReader {
  readonly #options: StreamSourceOptions;
  readonly #counts: StreamCountsReader;
  /** By stream: its labels, and those of its targets by index. */
  readonly #kept = new Kept<string, { readonly stream: string; readonly targets: string[] }>();

  constructor(options: StreamSourceOptions) {
    this.#options = options;
    this.#counts = new StreamCountsReader(options.folder);
  }

  write(out: Exposition): void {
    const { trench, conduit, nowMs, streams } = this.#options;
    this.#kept.begin();
    const tables = streams().flatMap((stream) => {
      const make = () => ({ stream: labelText({ trench, conduit, stream }), targets: [] });
      const counts = this.#read(stream);
      return counts === null ? [] : [{ counts, labels: this.#kept.get(stream, () => true, make) }];
    });
    this.#counts.forgetOthers();
    const now = nowMs();
    out.family(GENERATION);
    for (const { labels, counts } of tables) out.sample(labels.stream, counts.generation);
    out.family(AGE);
    for (const { labels, counts } of tables) out.sample(labels.stream, Math.max(0, now - counts.publishedMs) / 1_000);
    out.family(TARGET_PACKETS);
    for (const { labels, counts } of tables)
      eachTarget(labels, counts, (target, index) => out.sample(target, counts.hits[index]!));
    out.family(IDEAL);
    for (const { labels, counts } of tables)
      eachTarget(labels, counts, (target, index) => out.sample(target, counts.positions[index]! / counts.size));
  }

  /** null: its table is gone at this moment. */
  #read(stream: string): StreamCounts | null {
    return orNull(() => this.#counts.read(this.#options.tableName(stream)));
  }
}

/** Targets that are active or have been: who was counted must not vanish from a sum. */
function eachTarget(
  labels: { readonly stream: string; readonly targets: string[] },
  { active, hits }: StreamCounts,
  visit: (labels: string, index: number) => void,
): void {
  for (let index = 0; index < active.length; index++) {
    if (active[index]! < 0 && hits[index] === 0) continue;
    labels.targets[index] ??= joinLabels(labels.stream, labelText({ identifier: String(index + 1) }));
    visit(labels.targets[index]!, index);
  }
}

type States = {
  /** Of whom the rest speaks. */
  readonly targets: readonly TargetView[];
  readonly counts: readonly { readonly labels: string; readonly count: number }[];
  /** Labels of each target that is not ready. */
  readonly notReady: readonly string[];
};

function statesOf(targets: readonly TargetView[], place: string): States {
  const groups = new Map<string, { readonly labels: string; count: number }>();
  for (const { stream, state, reason } of targets) {
    const key = `${stream}\0${state}\0${reason}`;
    const group = groups.get(key) ?? { labels: joinLabels(place, labelText({ stream, state, reason })), count: 0 };
    group.count++;
    groups.set(key, group);
  }
  const notReady = targets.filter(({ state }) => state !== "ready");
  return {
    targets,
    counts: [...groups.values()],
    notReady: notReady.map(({ stream, identifier, ips, state, reason }) => {
      const target = { identifier: String(identifier), target_ips: JSON.stringify(ips) };
      return joinLabels(place, labelText({ stream, ...target, state, reason }));
    }),
  };
}

/** Reads rules only when they have changed. */
class FlowReader {
  readonly #options: StreamSourceOptions;
  readonly #counters: CounterWatch;
  #known: { readonly generation: number; readonly rules: readonly LabelledRule[] } | null = null;

  constructor(options: StreamSourceOptions) {
    this.#options = options;
    this.#counters = new CounterWatch(options.folder, options.countersName);
  }

  write(out: Exposition): void {
    const known = orNull(() => this.#read());
    const counters = orNull(() => this.#counters.current());
    const blocks = Array.from({ length: counters?.workers ?? 0 }, (_, worker) => counters!.block(worker).ruleHits);
    const countOf = (slot: number) => {
      let count = 0;
      for (const hits of blocks) count += hits[slot]!;
      return count;
    };
    out.family(MATCHES);
    for (const rule of known?.rules ?? []) out.sample(rule.labels, matchesOf(rule, countOf));
    out.family(FLOW_GENERATION);
    if (known !== null) out.sample("", known.generation);
  }

  #read() {
    const { folder, flowsName } = this.#options;
    const generation = flowsGeneration(folder, flowsName);
    if (this.#known?.generation !== generation) {
      const table = readFlows(folder, flowsName);
      this.#known = { generation: table.generation, rules: table.rules.flatMap((rule) => this.#label(rule) ?? []) };
    }
    return this.#known;
  }

  /** null: a rule that is no flow of ours. */
  #label({ rule: { name, target }, slot, base }: StoredRule): LabelledRule | null {
    const { trench, conduit, tableName } = this.#options;
    const prefix = tableName("");
    if (!target.startsWith(prefix)) return null;
    const stream = target.slice(prefix.length);
    const flow = name.startsWith(`${target}-`) ? name.slice(target.length + 1) : name;
    return { slot, base, labels: labelText({ trench, conduit, stream, flow, ...OTEL_SCOPE }) };
  }
}

/** What is kept of a rule; its text is long. */
type LabelledRule = Pick<StoredRule, "slot" | "base"> & { readonly labels: string };

/** What may be gone at any moment (a table, a file) is null then. */
function orNull<T>(read: () => T): T | null {
  try {
    return read();
  } catch (error) {
    const { code } = error as { code?: string };
    if (code === "ENOENT" || code === "ERR_LAYOUT") return null;
    throw error;
  }
}
