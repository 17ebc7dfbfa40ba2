import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Status } from "#control";
import { content, NOW } from "../../test/harness/status-content.js";
import { ControlLock, holderOf, monotonicMs, readLife } from "./stateless-lb/control-lock.js";
import { readStatus, writeStatus } from "./stateless-lb/status-document.js";
import { contentOf, StatusWriter } from "./stateless-lb/status-writer.js";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "status-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

test("the lock is one process's, and tells whether and when somebody lived", () => {
  const life = (laterMs = 0) => readLife(folder, monotonicMs() + laterMs);
  expect(life()).toBeNull();
  const first = ControlLock.take(folder)!;
  expect(ControlLock.take(folder)).toBeNull();
  expect(life()).toMatchObject({ isAlive: true, isHanging: false });
  expect(life(5_500)).toMatchObject({ isHanging: false });
  expect(life(20_000)).toMatchObject({ isAlive: true, isHanging: true });
  utimesSync(join(folder, "stateless-lb.lock"), new Date(0), new Date()); // the wall clock says nothing
  expect(life(20_000)).toMatchObject({ isAlive: true, isHanging: true });
  expect(holderOf(folder)).toBe(String(process.pid));
  first[Symbol.dispose]();
  expect(life()).toMatchObject({ isAlive: false, isHanging: false });
  expect(life(20_000)).toMatchObject({ isAlive: false, isHanging: false });
  expect(Math.abs(life()!.lastSeen.getTime() - Date.now())).toBeLessThan(5_000);
  ControlLock.take(folder)![Symbol.dispose]();
});

test("the document is replaced whole, and one of another version is refused", () => {
  expect(readStatus(folder)).toBeNull();
  writeStatus(folder, content, NOW);
  writeStatus(folder, { ...content, pid: 9 }, NOW);
  expect(readStatus(folder)).toEqual({ version: 4, writtenAt: NOW.toISOString(), ...content, pid: 9 });
  expect(readdirSync(folder)).toEqual(["stateless-lb-status.json"]);
  writeFileSync(join(folder, "stateless-lb-status.json"), '{"version":1}');
  expect(() => readStatus(folder)).toThrow("version 1 of the status document, version 4 is known here");
});

test("changes gather: a burst is two writes at most, and the last word is written at once", async () => {
  const writer = new StatusWriter(folder, { ...content, refusals: ["0"] }, (message) => expect(message).toBe(""));
  for (let i = 1; i <= 100; i++) writer.update({ refusals: [String(i)] });
  expect(readStatus(folder)!.refusals).toEqual(["0"]);
  await expect.poll(() => readStatus(folder)!.refusals, { timeout: 5_000 }).toEqual(["100"]);
  writer.update({ refusals: ["101"] });
  writer.end("it keeps dying");
  const last = { phase: "ended", failure: "it keeps dying", refusals: ["101"], isServed: false };
  expect(readStatus(folder)).toMatchObject(last);
});

test("a folder that cannot be written to is told once, and tried again until it can", async () => {
  const told: string[] = [];
  const place = join(folder, "none");
  const writer = new StatusWriter(place, content, (message) => told.push(message));
  writer.end(null);
  expect(told).toEqual([expect.stringContaining("ENOENT")]);
  mkdirSync(place);
  await expect.poll(() => told, { timeout: 5_000 }).toEqual([expect.stringContaining("ENOENT"), ""]);
  expect(readStatus(place)).toMatchObject({ phase: "ended" });
});

test("why the document is old stands in the lock's file, which keeps its size", () => {
  using lock = ControlLock.take(folder)!;
  const bytes = () => statSync(join(folder, "stateless-lb.lock")).size;
  const before = bytes();
  expect(readLife(folder, monotonicMs())!.unwritten).toBe("");
  lock.tell(`ENOSPC: no space\n${"x".repeat(9_000)}`);
  expect(readLife(folder, monotonicMs())!.unwritten).toMatch(/^ENOSPC: no space x+$/);
  expect(bytes()).toBe(before);
  lock.tell("");
  expect(readLife(folder, monotonicMs())!.unwritten).toBe("");
});

const FLOW = {
  stream: "web",
  priority: 1,
  protocols: [],
  vips: [],
  sourcePrefixes: [],
  destinationPorts: [],
  sourcePorts: [],
  byteMatches: [],
} as const;

test("a turn in the document: ready, pending with every reason, no marks", () => {
  const stream = { name: "web", maxTargets: 2, ready: 1, pending: 1, unreachable: 0, isDesperate: false, fault: "" };
  const state = { state: "pending", cause: "noRoute", forMs: 0, returnsInMs: null, flaps: 0, isServed: false } as const;
  const status: Status = {
    isConfigured: true,
    isFrontendAnnounced: null,
    isStopping: false,
    isDataPlaneReady: true,
    isAvailable: true,
    streams: [
      { ...stream, offset: 5000 },
      { ...stream, name: "late", offset: null },
    ],
    flows: [],
    refusedFlows: [{ flow: { ...FLOW, name: "f" }, reason: "no table" }],
    vips: [],
    targets: [
      { stream: "web", identifier: 1, addresses: ["10.1.0.1"], fwmark: 5001, ...state, state: "ready", reason: "" },
      { stream: "web", identifier: 2, addresses: ["10.1.0.2"], fwmark: 5002, ...state, reason: "no route; no rule" },
      { stream: "late", identifier: 1, addresses: ["10.1.0.3"], fwmark: null, ...state, reason: "no range" },
    ],
    refusals: [{ what: "port NAT", name: "n", fwmark: null, reason: "no" }],
    interfacesSetDown: [],
    lastTurn: { durationMs: 1.26, agoMs: 0, steps: 0, failures: ["no route", "no rule", "no table"] },
    turns: 1,
    failedTurns: 1,
    repairs: 3,
    lastRepair: { agoMs: 5_000, commands: ["ip -4 rule add …"] },
    repairStorms: [{ what: "ip -4 rule add …", count: 11, agoMs: 5_000 }],
    overruns: 0,
    driftsFound: 0,
  };
  const turn = contentOf(status, { durationMs: 1.26, kernelSteps: 0, repairs: 0, failedSteps: 3, error: null }, NOW);
  expect(turn.targets!.map(({ fwmark, state, reason }) => [fwmark, state, reason])).toEqual([
    [5001, "ready", ""],
    [5002, "pending", "no route; no rule"],
    [null, "pending", "no range"],
  ]);
  expect(turn).toMatchObject({
    faults: ["no table", "port NAT n refused: no"],
    isFrontendAnnounced: null,
    refusedFlows: [{ name: "f", stream: "web", reason: "no table" }],
    lastTurn: { at: NOW.toISOString(), durationMs: 1.3 },
    repairs: {
      count: 3,
      last: { at: "2026-03-04T05:06:32.000Z", commands: ["ip -4 rule add …"] },
      storms: [{ what: "ip -4 rule add …", count: 11, lastAt: "2026-03-04T05:06:32.000Z" }],
    },
  });
});
