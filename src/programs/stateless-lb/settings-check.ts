import { ValueError } from "./values.js";

/** Least and greatest value that make sense, by setting; durations in ms. */
const RANGES: Readonly<Record<string, readonly [number, number]>> = {
  dialTimeoutMs: [1, Number.POSITIVE_INFINITY],
  requestTimeoutMs: [0, Number.POSITIVE_INFINITY],
  maxTokenLifetimeMs: [1, Number.POSITIVE_INFINITY],
  offsetStart: [0, 2 ** 31 - 2],
  keepaliveMs: [0, Number.POSITIVE_INFINITY],
  probeTimeoutMs: [1, Number.POSITIVE_INFINITY],
  maxBackoffMs: [1, Number.POSITIVE_INFINITY],
  metricsPort: [1, 65_535],
  emptyGraceMs: [0, Number.POSITIVE_INFINITY],
  drainMs: [0, 10_000],
  probeIntervalMs: [0, Number.POSITIVE_INFINITY],
  queueLength: [1, 1_000_000],
};

/** Settings without which nothing can work. The reference starts with most of them empty, and then waits for ever. */
const NEEDED = new Set(["connectTo", "nspService", "conduitName", "trenchName", "shmFolder"]);

/** Where something is served; empty: nowhere. */
const SOCKETS = new Set(["socket", "healthSocket"]);

/** Whether a value of the right kind makes sense for a setting. @throws {ValueError} what is allowed */
export function checkSetting(key: string, value: unknown): void {
  if (NEEDED.has(key) && value === "") throw new ValueError("it must not be empty");
  if (key === "shmFolder" && !(value as string).startsWith("/")) throw new ValueError("an absolute path is needed");
  if (SOCKETS.has(key) && !/^$|^(unix|tcp):\/\/./.test(value as string))
    throw new ValueError("unix:///path or tcp://host:port is needed");
  const range = RANGES[key];
  if (range === undefined || typeof value !== "number") return;
  const [min, max] = range;
  const unit = key.endsWith("Ms") ? "ms" : "";
  if (value < min || value > max)
    throw new ValueError(
      max === Number.POSITIVE_INFINITY ? `out of range, ${min}${unit} or more` : `out of range, ${min}..${max}`,
    );
}
