import {
  CounterWatch,
  flowsGeneration,
  matchesOf,
  readFlows,
  type StoredRule,
  type StreamCounts,
  StreamCountsReader,
} from "#tables";
import { type Definition, type Family, LabelCache, type Labels, type Sample, type Source } from "./family.js";
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
  /** Targets of the configuration in force. */
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
const own = (type: Definition["type"], name: string, help: string): Definition => {
  return { name: `stateless_lb_${name}`, type, help };
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
  const cache = new LabelCache();
  const flows = new FlowReader(options);
  const counts = new StreamCountsReader(options.folder);
  return {
    name: "streams",
    read: () => {
      cache.begin();
      const place = { trench: options.trench, conduit: options.conduit };
      return [
        ...flows.families(place, cache),
        ...tableFamilies(options, counts, place, cache),
        ...stateFamilies(options.targets(), place),
      ];
    },
  };
}

/** Meridio's counters per target; a source of its own, since the kernel is asked for them. */
export function hitSource({ trench, conduit, targets, hits }: StreamSourceOptions): Source {
  const cache = new LabelCache();
  return {
    name: "target hits",
    read: () => {
      cache.begin();
      const counted = hits();
      const found = targets().flatMap(({ stream, fwmark, ips }) => {
        const count = counted.get(fwmark);
        if (count === undefined) return [];
        const targetIps = JSON.stringify(ips);
        const labels = cache.get(`${stream} ${fwmark} ${targetIps}`, () => {
          return { trench, conduit, stream, identifier: String(fwmark), target_ips: targetIps, ...OTEL_SCOPE };
        });
        return [{ labels, count }];
      });
      return [
        { ...HIT_PACKETS, samples: found.map(({ labels, count }) => ({ labels, value: count.packets })) },
        { ...HIT_BYTES, samples: found.map(({ labels, count }) => ({ labels, value: count.bytes })) },
      ];
    },
  };
}

type Place = { readonly trench: string; readonly conduit: string };

function tableFamilies(
  { tableName, nowMs, streams }: StreamSourceOptions,
  reader: StreamCountsReader,
  place: Place,
  cache: LabelCache,
): readonly Family[] {
  const tables = streams().flatMap((stream) => {
    const counts = orNull(() => reader.read(tableName(stream)));
    return counts === null ? [] : [{ stream, counts, labels: cache.get(stream, () => ({ ...place, stream })) }];
  });
  reader.forgetOthers();
  const each = (pick: (counts: StreamCounts) => number): readonly Sample[] =>
    tables.map(({ labels, counts }) => ({ labels, value: pick(counts) }));
  const targets = tables.flatMap(({ stream, counts }) => targetsOf(stream, counts, place, cache));
  return [
    { ...GENERATION, samples: each(({ generation }) => generation) },
    { ...AGE, samples: each(({ publishedMs }) => Math.max(0, nowMs() - publishedMs) / 1_000) },
    { ...TARGET_PACKETS, samples: targets.map(({ labels, packets }) => ({ labels, value: packets })) },
    { ...IDEAL, samples: targets.map(({ labels, ideal }) => ({ labels, value: ideal })) },
  ];
}

/** Targets that are active or have been: who was counted must not vanish from a sum. */
function targetsOf(stream: string, { active, hits, positions, size }: StreamCounts, place: Place, cache: LabelCache) {
  const found: { readonly labels: Labels; readonly packets: number; readonly ideal: number }[] = [];
  for (const [index, fwmark] of active.entries()) {
    const packets = hits[index]!;
    if (fwmark < 0 && packets === 0) continue;
    const identifier = String(index + 1);
    const labels = cache.get(`${stream} ${identifier}`, () => ({ ...place, stream, identifier }));
    found.push({ labels, packets, ideal: positions[index]! / size });
  }
  return found;
}

function stateFamilies(targets: readonly TargetView[], place: Place): readonly Family[] {
  const counts = new Map<string, { readonly labels: Labels; value: number }>();
  for (const { stream, state, reason } of targets) {
    const key = `${stream}\0${state}\0${reason}`;
    const count = counts.get(key);
    if (count === undefined) counts.set(key, { labels: { ...place, stream, state, reason }, value: 1 });
    else count.value++;
  }
  const notReady = targets.filter(({ state }) => state !== "ready");
  return [
    { ...TARGETS, samples: [...counts.values()] },
    {
      ...NOT_READY,
      samples: notReady.map(({ stream, identifier, ips, state, reason }) => {
        const target = { identifier: String(identifier), target_ips: JSON.stringify(ips) };
        return { labels: { ...place, stream, ...target, state, reason }, value: 1 };
      }),
    },
  ];
}

/** Reads rules only when they have changed: their text is long. */
class FlowReader {
  readonly #options: StreamSourceOptions;
  readonly #counters: CounterWatch;
  #known: { readonly generation: number; readonly rules: readonly StoredRule[] } | null = null;

  constructor(options: StreamSourceOptions) {
    this.#options = options;
    this.#counters = new CounterWatch(options.folder, options.countersName);
  }

  families({ trench, conduit }: Place, cache: LabelCache): readonly Family[] {
    const { folder, flowsName, tableName } = this.#options;
    const known = orNull(() => this.#read(folder, flowsName));
    const counters = orNull(() => this.#counters.current());
    const blocks = Array.from({ length: counters?.workers ?? 0 }, (_, worker) => counters!.block(worker).ruleHits);
    const prefix = tableName("");
    const samples = (known?.rules ?? []).flatMap((stored): readonly Sample[] => {
      const { rule } = stored;
      if (!rule.target.startsWith(prefix)) return [];
      const labels = cache.get(`flow ${rule.name}`, () => {
        const stream = rule.target.slice(prefix.length);
        const flow = rule.name.startsWith(`${rule.target}-`) ? rule.name.slice(rule.target.length + 1) : rule.name;
        return { trench, conduit, stream, flow, ...OTEL_SCOPE };
      });
      const countOf = (slot: number) => blocks.reduce((sum, hits) => sum + hits[slot]!, 0);
      return [{ labels, value: matchesOf(stored, countOf) }];
    });
    const generation = known === null ? [] : [{ labels: {}, value: known.generation }];
    return [
      { ...MATCHES, samples },
      { ...FLOW_GENERATION, samples: generation },
    ];
  }

  #read(folder: string, name: string) {
    const generation = flowsGeneration(folder, name);
    if (this.#known?.generation !== generation) {
      const table = readFlows(folder, name);
      this.#known = { generation: table.generation, rules: table.rules };
    }
    return this.#known;
  }
}

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
