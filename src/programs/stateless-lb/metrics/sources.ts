import type { HealthTree } from "#availability";
import { tableName } from "#model";
import { type ControlNumbers, controlSource } from "./control-metrics.js";
import type { Source } from "./family.js";
import { interfaceSource } from "./interface-metrics.js";
import { processSource } from "./process-metrics.js";
import { queueSource } from "./queue-metrics.js";
import { hitSource, type StreamSourceOptions, streamSource, type TargetView } from "./stream-metrics.js";

export type MetricSourcesOptions = {
  /** Folder of the tables. */
  readonly folder: string;
  /** How names of interfaces to targets begin. */
  readonly interfacePrefix: string;
  readonly place: Pick<StreamSourceOptions, "flowsName" | "countersName" | "trench" | "conduit">;
  readonly state: {
    readonly streams: () => readonly string[];
    readonly targets: () => readonly TargetView[];
    readonly numbers: (isAvailable: boolean) => ControlNumbers;
  };
  readonly hits: StreamSourceOptions["hits"];
  readonly health: Pick<HealthTree, "statuses">;
  readonly isAvailable: () => boolean;
};

/** Everything that is told of an instance. */
export function metricSources({
  folder,
  interfacePrefix,
  place,
  state,
  hits,
  health,
  isAvailable,
}: MetricSourcesOptions): readonly Source[] {
  const { trench, conduit, countersName } = place;
  const streams = {
    ...place,
    folder,
    tableName,
    streams: () => state.streams(),
    targets: () => state.targets(),
    hits,
    nowMs: Date.now,
  };
  return [
    processSource(process.env["BUILD_VERSION"] ?? ""),
    queueSource(folder, countersName),
    streamSource(streams),
    hitSource(streams),
    interfaceSource(interfacePrefix, { trench, conduit }),
    controlSource(() => state.numbers(isAvailable()), health),
  ];
}
