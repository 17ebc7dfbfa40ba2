import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createLog } from "./stateless-lb/log.js";

type Line = { severity: string; service_id: string; message: string; extra_data: Record<string, unknown> };

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

function logTo(level: string) {
  const lines: Line[] = [];
  const log = createLog(level, { write: (line) => lines.push(JSON.parse(line) as Line) });
  const messages = () => lines.map(({ message }) => message);
  return { log, lines, messages };
}

test("the very first line tells the level, under another name, unless it is INFO", () => {
  const { lines } = logTo("DEBUG");
  expect(lines[0]).toMatchObject({
    severity: "info",
    service_id: "Meridio",
    message: "Changing log level to 'DEBUG' from 'INFO'",
    extra_data: { logger: "setLogLevelByName" },
  });
  for (const name of ["", "INFO", "debug", "Trace", "WARN"]) expect(logTo(name).lines, name).toEqual([]);
});

test("levels: SIGUSR2's TRACE and back, told as a change", () => {
  const { log, lines, messages } = logTo("WARN");
  log.debug("hidden");
  log.trace("hidden", () => {
    throw new Error("asked for in vain");
  });
  log.setLevel("TRACE");
  log.setLevel("TRACE");
  log.debug("shown");
  log.trace("shown too", () => ({ step: 1 }));
  expect(lines.at(-1)).toMatchObject({ severity: "debug", extra_data: { step: 1 } });
  log.setLevel("configured");
  log.debug("hidden again");
  expect(messages()).toEqual([
    "Changing log level to 'TRACE' from 'INFO'",
    "shown",
    "shown too",
    "Changing log level to 'INFO' from 'TRACE'",
  ]);
});

test("the same line passes once in ten seconds; the sum follows", () => {
  const { log, lines } = logTo("INFO");
  for (let i = 0; i < 5; i++) log.error("add pending target", { class: "LoadBalancer", fwmark: 5001 });
  log.error("add pending target", { class: "Other", fwmark: 5001 });
  expect(lines).toHaveLength(2);
  vi.advanceTimersByTime(10_000);
  expect(lines).toHaveLength(3);
  expect(lines[2]).toMatchObject({ severity: "error", extra_data: { fwmark: 5001, repeated: 4, seconds: 10 } });
  log.error("add pending target", { class: "LoadBalancer", fwmark: 5001 });
  expect(lines).toHaveLength(4);
  vi.advanceTimersByTime(60_000);
  expect(lines).toHaveLength(4); // nothing was folded, so nothing is told
});

test("what is counted is told before the level changes", () => {
  const { log, lines, messages } = logTo("INFO");
  for (let i = 0; i < 3; i++) log.error("add pending target");
  log.setLevel("TRACE");
  expect(messages()).toEqual(["add pending target", "add pending target", "Changing log level to 'TRACE' from 'INFO'"]);
  expect(lines[1]).toMatchObject({ extra_data: { repeated: 2 } });
});

test("different lines of one kind pass up to twenty; at TRACE all of them", () => {
  const { log, lines } = logTo("INFO");
  for (let i = 0; i < 1_000; i++) log.error("add pending target", { fwmark: i });
  expect(lines).toHaveLength(20);
  log.flush();
  expect(lines[20]).toMatchObject({ extra_data: { fwmark: 999, repeated: 980 } });
  log.setLevel("TRACE");
  for (let i = 0; i < 50; i++) log.error("add pending target", { fwmark: 1 });
  expect(lines).toHaveLength(20 + 1 + 1 + 50);
});

test("errors, bigints and credentials in the data come out readable and harmless", () => {
  const { log, lines } = logTo("INFO");
  log.warning("soon", {});
  expect(lines.splice(0)).toMatchObject([{ severity: "warning", message: "soon" }]);
  log.critical("failed", { error: new Error("at http://u:p@h/"), bytes: 2n ** 60n, list: [1n] });
  expect(lines[0]).toMatchObject({
    severity: "critical",
    extra_data: { bytes: "1152921504606846976", list: ["1"], error: "at http://***@h/" },
  });
});
