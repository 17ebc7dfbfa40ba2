import pino from "pino";
import type { Log } from "#control";

const VERSION = "1.0.0";
const SERVICE_ID = "Meridio-LB";
const SEVERITIES: Readonly<Record<string, string>> = {
  trace: "debug",
  debug: "debug",
  info: "info",
  warn: "warning",
  error: "error",
  fatal: "critical",
};

/**
 * The log in the reference's format: one JSON object per line with the keys severity, timestamp, service_id, message,
 * version, extra_data, in that order.
 * @param level DEBUG, TRACE or anything else for INFO
 */
export function createLog(level: string, destination: { write: (line: string) => unknown }): Log {
  const logger = pino(
    {
      level: level === "DEBUG" ? "debug" : level === "TRACE" ? "trace" : "info",
      base: null,
      timestamp: false,
      formatters: { level: (label) => ({ severity: SEVERITIES[label] ?? label }) },
      messageKey: "message",
    },
    { write: (line: string) => destination.write(reorder(line)) },
  );
  const write =
    (method: "debug" | "info" | "error") =>
    (message: string, data: Readonly<Record<string, unknown>> = {}) =>
      logger[method]({ timestamp: formatTimestamp(new Date()), extra: data }, message);
  return { debug: write("debug"), info: write("info"), error: write("error") };
}

/** pino puts the message last; the reference has it in the middle. */
function reorder(line: string): string {
  const { severity, timestamp, message, extra } = JSON.parse(line) as Record<string, unknown>;
  return `${JSON.stringify({ severity, timestamp, service_id: SERVICE_ID, message, version: VERSION, extra_data: extra })}\n`;
}

/** Go's layout 2006-01-02T15:04:05.999-07:00: trailing zeros of the fraction are cut, UTC is +00:00. */
export function formatTimestamp(date: Date): string {
  const [whole = "", fraction = ""] = date.toISOString().slice(0, -1).split(".");
  const cut = fraction.replace(/0+$/, "");
  return `${whole}${cut === "" ? "" : `.${cut}`}+00:00`;
}
