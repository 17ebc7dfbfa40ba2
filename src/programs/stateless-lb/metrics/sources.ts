import type { HealthTree } from "#availability";
import { tableName } from "#control";
import { type ControlNumbers, controlSource } from "./control-metrics.js";
import type { Source } from "./family.js";
import { interfaceSource } from "./interface-metrics.js";
import { processSource } from "./process-metrics.js";
import { queueSource } from "./queue-metrics.js";
import { hitSource, type StreamSourceOptions, streamSource, type TargetView } from "./stream-metrics.js";

/** Characters of the network service's name that begin the names of its interfaces. */
const INTERFACE_PREFIX_LENGTH = 10;

export type MetricSourcesOptions = {
  readonly settings: {
    readonly shmFolder: string;
    /** Packets that a queue holds. */
    readonly queueLength: number;
    readonly serviceName: string;
  };
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
  settings,
  place,
  state,
  hits,
  health,
  isAvailable,
}: MetricSourcesOptions): readonly Source[] {
  const { shmFolder: folder, queueLength, serviceName } = settings;
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
    queueSource(folder, countersName, queueLength),
    streamSource(streams),
    hitSource(streams),
    interfaceSource(serviceName.slice(0, INTERFACE_PREFIX_LENGTH), { trench, conduit }),
    controlSource(() => state.numbers(isAvailable()), health),
  ];
}
