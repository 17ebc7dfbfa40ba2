import pino from "pino";
import type { Log } from "#control";
import { LogFolding, type LogLine, type Severity } from "./log-folding.js";
import { maskText } from "./secrets.js";

const VERSION = "1.0.0";
const SERVICE_ID = "Meridio-LB";
/** Of the very first line: in the reference it comes before the logger has its name. */
const FIRST_SERVICE_ID = "Meridio";

/** Levels as operators set them; everything else means INFO. */
const LEVELS = { INFO: 0, DEBUG: 1, TRACE: 2 } as const;
type Level = keyof typeof LEVELS;

/** What pino calls a severity. */
const METHODS = { debug: "debug", info: "info", warning: "warn", error: "error", critical: "fatal" } as const;
const SEVERITIES: Readonly<Record<string, Severity>> = { warn: "warning", fatal: "critical" };

/** The log of the program, with what only the program may do with it. */
export type ProgramLog = Log & {
  /** The start failed, or the program cannot go on. */
  readonly critical: (message: string, data?: Readonly<Record<string, unknown>>) => void;
  /** Back to the level of the settings, or to TRACE; a change is told. */
  readonly setLevel: (level: "configured" | "TRACE") => void;
  /** Writes what is still being counted; before the end. */
  readonly flush: () => void;
};

/**
 * The log in the reference's format: one JSON object per line with the keys severity, timestamp, service_id, message,
 * version, extra_data, in that order, an error's text last in extra_data. Repeated lines are folded, but not at TRACE.
 * Credentials are masked by their form.
 * @param name DEBUG or TRACE; anything else is INFO
 */
export function createLog(name: string, destination: { write: (line: string) => unknown }): ProgramLog {
  const configured: Level = name === "DEBUG" || name === "TRACE" ? name : "INFO";
  let level: Level = configured;
  const masking = { write: (line: string) => destination.write(maskText(line)) };
  const writeLine = (line: LogLine) => print(SERVICE_ID, line);
  const folding = new LogFolding(writeLine);
  const severityOf = (label: string) => ({ severity: SEVERITIES[label] ?? label });
  const logger = pino({ level: "debug", base: null, timestamp: false, formatters: { level: severityOf } }, masking);

  function print(serviceId: string, { severity, message, data }: LogLine): void {
    logger[METHODS[severity]]({
      timestamp: formatTimestamp(new Date()),
      service_id: serviceId,
      message,
      version: VERSION,
      extra_data: orderData(data),
    });
  }

  const at =
    (severity: Severity, lowest: Level) =>
    (message: string, data: Readonly<Record<string, unknown>> = {}) => {
      if (LEVELS[level] < LEVELS[lowest]) return;
      const line = { severity, message, data };
      if (level === "TRACE") writeLine(line);
      else folding.add(line);
    };

  function changeLevel(next: Level, serviceId: string, before: Level): void {
    if (next === before) return;
    folding.flush();
    level = next;
    const message = `Changing log level to '${next}' from '${before}'`;
    print(serviceId, { severity: "info", message, data: { logger: "setLogLevelByName" } });
  }

  changeLevel(configured, FIRST_SERVICE_ID, "INFO");
  return {
    trace: (message, data) => {
      if (level === "TRACE") writeLine({ severity: "debug", message, data: data() });
    },
    debug: at("debug", "DEBUG"),
    info: at("info", "INFO"),
    warning: at("warning", "INFO"),
    error: at("error", "INFO"),
    critical: at("critical", "INFO"),
    setLevel: (wanted) => changeLevel(wanted === "TRACE" ? "TRACE" : configured, SERVICE_ID, level),
    flush: () => folding.flush(),
  };
}

/** The error last; bigints as text, since pino prints them as numbers that readers round. */
function orderData(data: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const { error, ...others } = data;
  return plain(error === undefined ? others : { ...others, error }) as Record<string, unknown>;
}

function plain(value: unknown): unknown {
  if (typeof value === "bigint") return String(value);
  if (value instanceof Error) return value.message;
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, plain(one)]));
}

/** Go's layout 2006-01-02T15:04:05.999-07:00: trailing zeros of the fraction are cut, UTC is +00:00. */
export function formatTimestamp(date: Date): string {
  const [whole = "", fraction = ""] = date.toISOString().slice(0, -1).split(".");
  const cut = fraction.replace(/0+$/, "");
  return `${whole}${cut === "" ? "" : `.${cut}`}+00:00`;
}
