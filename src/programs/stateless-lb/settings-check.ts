import { targetInterfaces } from "./target-interfaces.js";
import {
  formatDuration,
  MAX_TIMER_MS,
  parseInterfacePrefix,
  toListenAddress,
  toServerAddress,
  ValueError,
} from "./values.js";

/** Least and greatest value that make sense, by setting; durations in ms, all but one of them times of timers. */
const RANGES: Readonly<Record<string, readonly [number, number]>> = {
  dialTimeoutMs: [1, MAX_TIMER_MS],
  requestTimeoutMs: [0, MAX_TIMER_MS],
  maxTokenLifetimeMs: [1, Number.POSITIVE_INFINITY],
  offsetStart: [0, 2 ** 31 - 2],
  keepaliveMs: [0, MAX_TIMER_MS],
  probeTimeoutMs: [1, MAX_TIMER_MS],
  maxBackoffMs: [1, MAX_TIMER_MS],
  metricsPort: [1, 65_535],
  emptyGraceMs: [0, MAX_TIMER_MS],
  drainMs: [0, 10_000],
  probeIntervalMs: [0, MAX_TIMER_MS],
  queueLength: [1, 1_000_000],
};

/** Settings without which nothing can work. The reference starts with most of them empty, and then waits for ever. */
const NEEDED = new Set(["serviceName", "connectTo", "nspService", "conduitName", "trenchName", "shmFolder"]);

/** What a text has to be, by setting: what reads it when it is used, wherever something does. */
const FORMS: Readonly<Record<string, (text: string) => unknown>> = {
  serviceName: (serviceName) => targetInterfaces({ interfacePrefix: "", serviceName }),
  nspService: toServerAddress,
  conduitName: requireName,
  trenchName: requireName,
  socket: toListenAddress,
  healthSocket: toListenAddress,
  stateFolder: (text) => text === "" || text === "off" || requireAbsolute(text),
  interfacePrefix: (text) => text === "" || parseInterfacePrefix(text),
  shmFolder: requireAbsolute,
};

/** Whether a value of the right kind makes sense for a setting. @throws {ValueError} what is allowed */
export function checkSetting(key: string, value: unknown): void {
  if (NEEDED.has(key) && value === "") throw new ValueError("it must not be empty");
  if (typeof value === "string") FORMS[key]?.(value);
  if (typeof value === "number") checkRange(key, value);
}

function checkRange(key: string, value: number): void {
  const [min, max] = RANGES[key]!;
  if (value >= min && value <= max) return;
  const show = (bound: number) => (key.endsWith("Ms") ? formatDuration(bound) : String(bound));
  const allowed = max === Number.POSITIVE_INFINITY ? `${show(min)} or more` : `${show(min)}..${show(max)}`;
  throw new ValueError(`out of range, ${allowed}`);
}

function requireAbsolute(text: string): void {
  if (!text.startsWith("/")) throw new ValueError("an absolute path is needed");
}

function requireName(text: string): void {
  if (/[\s\p{Cc}]/u.test(text)) throw new ValueError("a name without blanks and control characters is needed");
}
