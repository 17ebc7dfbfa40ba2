import { expect, test } from "vitest";
import { parseOptions } from "./nfqlb/options.js";
import { createLog, formatTimestamp } from "./stateless-lb/log.js";
import { formatRows } from "./stateless-lb/nsp-table.js";
import { readSettings } from "./stateless-lb/settings.js";
import { parseBoolean, parseDuration, parseInteger, parseQueues } from "./stateless-lb/values.js";

test("durations are read as Go reads them", () => {
  const good: [string, number][] = [
    ["300ms", 300],
    ["1h30m", 5_400_000],
    ["-1.5s", -1_500],
    ["0", 0],
    [".5s", 500],
    ["1us", 0.001],
    ["+2m", 120_000],
    ["1h0.5m", 3_630_000],
  ];
  for (const [text, ms] of good) expect(parseDuration(text), text).toBeCloseTo(ms, 9);
  for (const text of ["", "5", "s", "1 s", "1sx", "--1s", ".s", "1d"])
    expect(() => parseDuration(text), text).toThrow(/a duration is needed/);
});

test("booleans and whole numbers are read as Go reads them", () => {
  for (const text of ["1", "t", "T", "TRUE", "true", "True"]) expect(parseBoolean(text)).toBe(true);
  for (const text of ["0", "f", "F", "FALSE", "false", "False"]) expect(parseBoolean(text)).toBe(false);
  for (const text of ["", "yes", "tRUE", "on"]) expect(() => parseBoolean(text), text).toThrow();
  const good: [string, number][] = [
    ["5000", 5000],
    ["0x1388", 5000],
    ["0b11", 3],
    ["0o17", 15],
    ["017", 15],
    ["-5", -5],
    ["1_000", 1000],
    ["0", 0],
  ];
  for (const [text, value] of good) expect(parseInteger(text), text).toBe(value);
  for (const text of ["", "5.0", "089", "1__0x", "abc", "0x", "99999999999999999999"])
    expect(() => parseInteger(text), text).toThrow();
});

test("queue numbers are a number or a range, in order", () => {
  expect(parseQueues("0:3")).toEqual({ first: 0, last: 3 });
  expect(parseQueues("7")).toEqual({ first: 7, last: 7 });
  for (const text of ["", "3:1", "0:65536", "a", "-1", "1:"])
    expect(() => parseQueues(text), text).toThrow(/queue numbers are needed/);
});

test("settings have the reference's defaults, alternatives, and empty counts as set", () => {
  expect(readSettings({})).toMatchObject({
    nspService: "nsp-service:7778",
    queues: { first: 0, last: 3 },
    offsetStart: 5000,
    keepaliveMs: 30_000,
    maxTokenLifetimeMs: 86_400_000,
    isMeshEnabled: true,
    logLevel: "DEBUG",
  });
  expect(readSettings({ GRPC_MAX_BACKOFF: "7s" }).maxBackoffMs).toBe(7_000);
  expect(readSettings({ GRPC_MAX_BACKOFF: "7s", NSM_GRPC_MAX_BACKOFF: "8s" }).maxBackoffMs).toBe(8_000);
  expect(readSettings({ NSM_LOG_LEVEL: "", NSM_UNKNOWN: "x" }).logLevel).toBe("");
});

test("all faulty settings are told at once, with value and what is allowed", () => {
  const env = {
    NSM_NFQUEUE: "3:1",
    NSM_DIAL_TIMEOUT: "",
    NSM_NFQUEUE_FANOUT: "yes",
    NSM_IDENTIFIER_OFFSET_START: "-1",
  };
  expect(() => readSettings(env)).toThrowError(
    expect.objectContaining({
      message: [
        'NSM_DIAL_TIMEOUT="": a duration is needed, for example 300ms, 5s or 1h30m',
        'NSM_NFQUEUE="3:1": queue numbers are needed: n or first:last, 0..65535, first <= last, at most 128 queues',
        'NSM_NFQUEUE_FANOUT="yes": true or false is needed (also 1, t, T, TRUE, True, 0, f, F, FALSE, False)',
        'NSM_IDENTIFIER_OFFSET_START="-1": out of range, 0..2147483646',
      ].join("\n"),
    }),
  );
});

test("the log has the reference's keys in the reference's order", () => {
  const lines: string[] = [];
  createLog("INFO", { write: (line) => lines.push(line) }).error("something", { error: "why", n: 1 });
  createLog("INFO", { write: (line) => lines.push(line) }).debug("not at this level");
  expect(lines).toHaveLength(1);
  const record = JSON.parse(lines[0]!) as Record<string, unknown>;
  expect(Object.keys(record)).toEqual(["severity", "timestamp", "service_id", "message", "version", "extra_data"]);
  expect(record).toMatchObject({
    severity: "error",
    service_id: "Meridio-LB",
    message: "something",
    version: "1.0.0",
    extra_data: { n: 1, error: "why" },
  });
  expect(Object.keys(record["extra_data"] as object)).toEqual(["n", "error"]);
  expect(formatTimestamp(new Date("2026-03-04T05:06:07.120Z"))).toBe("2026-03-04T05:06:07.12+00:00");
  expect(formatTimestamp(new Date("2026-03-04T05:06:07.000Z"))).toBe("2026-03-04T05:06:07+00:00");
});

const specs = [
  { name: "shm", kind: "value", help: "" },
  { name: "protocols", kind: "value", help: "" },
  { name: "promiscuous_ping", kind: "switch", help: "" },
] as const;

test("options are read as getopt_long_only reads them", () => {
  const read = (...args: string[]) => {
    const { values, positionals } = parseOptions("x", specs, args);
    return { ...Object.fromEntries(values), positionals };
  };
  expect(read("--shm=a", "1", "-shm", "b", "--proto", "tcp", "2")).toEqual({
    shm: "b",
    protocols: "tcp",
    positionals: ["1", "2"],
  });
  expect(read("--prom", "--", "--shm=a")).toEqual({ promiscuous_ping: "", positionals: ["--shm=a"] });
  const fails = (...args: string[]) => expect(() => read(...args));
  fails("--bogus").toThrow("x: unrecognized option '--bogus'");
  fails("--pro=1").toThrow("x: option '--pro' is ambiguous; possibilities: '--protocols' '--promiscuous_ping'");
  fails("--shm").toThrow("x: option '--shm' requires an argument");
  fails("--promiscuous_ping=1").toThrow("x: option '--promiscuous_ping' doesn't allow an argument");
});

test("a table shows names of nested objects, port NATs, and no control characters", () => {
  const nat = { protocol: "tcp", port: 80, targetPort: 8080, vips: [] };
  const conduit = { name: "lb", trench: { name: "a\u001b[2J" }, destinationPortNats: [nat, { ...nat, port: 443 }] };
  expect(formatRows("conduits", [conduit])).toBe("NAME  TRENCH  PORT NATS\nlb    a?[2J   tcp:80->8080,tcp:443->8080\n");
  const gateway = { name: "g", address: "10.0.0.1", protocol: "bgp", remoteASN: 1, localASN: 2, bfd: false };
  expect(formatRows("gateways", [gateway]).split("\n")[1]).toBe(
    "g     10.0.0.1  bgp       1           2          false",
  );
  expect(formatRows("targets", [])).toBe("IPS  IDENTIFIER  STATUS  TYPE  STREAM  CONDUIT  TRENCH\n");
});
