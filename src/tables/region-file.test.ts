// What becomes of files: several who make, replace and delete them at once, who are killed, and who have no business there.
import { type ChildProcess, fork } from "node:child_process";
import { chownSync, mkdtempSync, readdirSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type FlowRule, parseFlowRule } from "#flow";
import { tryLockRange } from "#sys";
import { bundle, ROOT } from "../../test/harness/bundled.js";
import {
  CounterFile,
  createStreamTable,
  deleteRegion,
  ensureFlows,
  FlowTableReader,
  hasRegion,
  mendRemovedRegions,
  readDataPlane,
  readFlows,
  readStreamTable,
  readTargetHits,
  StreamTableReader,
  TABLE_RETIRED,
  updateFlows,
  updateStreamTable,
} from "./index.js";
import { HEADER_BYTES, KIND_STREAM, LOCK_NEW, LOCK_WRITER } from "./layout.js";
import { Region } from "./region.js";
import { makeNameless } from "./region-file.js";

const folder = mkdtempSync(join(tmpdir(), "region-"));
const bundleFolder = mkdtempSync(join(ROOT, "node_modules", ".region-"));
const children: ChildProcess[] = [];
let child = "";
beforeAll(async () => {
  child = await bundle("test/harness/table-child.ts", bundleFolder);
});
afterAll(() => {
  for (const process of children) process.kill("SIGKILL");
  rmSync(folder, { recursive: true });
  rmSync(bundleFolder, { recursive: true });
});

let names = 0;
const fresh = () => `r${names++}`;
const message = (process: ChildProcess) =>
  new Promise<string>((resolve) => process.once("message", (text) => resolve(text as string)));
const start = async (...args: string[]) => {
  const started = fork(child, args);
  children.push(started);
  await message(started);
  return started;
};
const table = (name: string) => createStreamTable(folder, name, { size: 97, targets: 4, ownFwmark: 0 });
const inodeOf = (path: string) => statSync(path).ino;
const rule = (name: string): FlowRule => parseFlowRule({ name, target: "t", protocols: "tcp", dports: "80" });
const put = (name: string, rules: readonly FlowRule[], options = {}) =>
  updateFlows(
    folder,
    name,
    () => rules,
    () => 0,
    options,
  );

test("two who replace a table at once: every file that lost its name is retired, only the one that has it is not", async () => {
  const name = fresh();
  table(name);
  const other = await start("replace", folder, name, "500");
  const done = message(other);
  let isDone = false;
  void done.then(() => {
    isDone = true;
  });
  const regions: Region[] = [];
  other.send("go");
  while (!isDone) {
    for (let i = 0; i < 20; i++) {
      table(name);
      regions.push(Region.open(folder, name, KIND_STREAM));
    }
    while (regions.length > 400) regions.shift()![Symbol.dispose]();
    await new Promise((resolve) => setImmediate(resolve));
  }
  const named = inodeOf(join(folder, name));
  for (const region of regions) expect(region.isRetired).toBe(inodeOf(`/proc/self/fd/${region.file.fd}`) !== named);
  for (const region of regions) region[Symbol.dispose]();
  expect(readdirSync(folder).filter((entry) => entry.startsWith("."))).toEqual([]);
});

test("of two data planes that begin at once one is told who the other is, with a file from before and without", async () => {
  const rivals = await Promise.all([start("rival", folder), start("rival", folder)]);
  for (let round = 0; round < 60; round++) {
    const name = fresh();
    if (round % 3 === 1) CounterFile.create(folder, name, 1, "{}")[Symbol.dispose]();
    if (round % 3 === 2) CounterFile.create(folder, name, 3, "{}")[Symbol.dispose](); // of another number of workers
    const answers = rivals.map(message);
    for (const rival of rivals) rival.send(name);
    const [loser, winner] = (await Promise.all(answers)).sort((a, b) => b.length - a.length);
    expect(winner).toBe("owner");
    const pid = readDataPlane(folder, name)!.pid;
    expect(loser).toMatch(/: a data plane with pid \d+ is running/);
    expect(rivals.map((rival) => rival.pid)).toContain(pid);
  }
});

test("a data plane of another layout version is seen with its pid, and its file is not replaced", () => {
  const name = fresh();
  const path = join(folder, name);
  const running = CounterFile.create(folder, name, 1, "{}");
  const inode = inodeOf(path);
  using header = Region.open(folder, name, 3);
  header.header[1] = 99;
  expect(readDataPlane(folder, name)).toEqual({
    pid: process.pid,
    workers: 0,
    isReady: false,
    settings: "",
    sampledMs: 0,
    batches: 0,
  });
  expect(() => CounterFile.create(folder, name, 1, "{}")).toThrow(`a data plane with pid ${process.pid} is running`);
  expect(inodeOf(path)).toBe(inode);
  running[Symbol.dispose]();
  expect(readDataPlane(folder, name)).toBeNull();
  using next = CounterFile.create(folder, name, 1, "{}"); // nobody holds it: replaced
  expect(next.owner()).toBeNull(); // its own lock is not told to itself
  expect(inodeOf(path)).not.toBe(inode);
});

test("files that a killed program left are removed when the next region is made, those in the making are not", () => {
  const left = join(folder, ".nfqlb-new.a.1.1");
  writeFileSync(left, new Uint8Array(HEADER_BYTES));
  using inTheMaking = makeNameless(folder, "b", HEADER_BYTES, HEADER_BYTES);
  const longAgo = Date.now() / 1_000 - 60;
  for (const path of [left, inTheMaking.path]) utimesSync(path, longAgo, longAgo);
  writeFileSync(join(folder, ".nfqlb-new.c.1.1"), ""); // now; its maker may not have locked it yet
  table(fresh());
  const kept = readdirSync(folder).filter((name) => name.startsWith("."));
  expect(kept.sort()).toEqual([expect.stringMatching(/^\.nfqlb-new\.b\./), ".nfqlb-new.c.1.1"]);
  expect(tryLockRange(inTheMaking.fd, LOCK_NEW, 1)).toBe(true); // still ours
  for (const name of kept) rmSync(join(folder, name));
});

test("a table and rules deleted by hand while in use are put back as they were, packets per target too", () => {
  const [streams, flows] = [fresh(), fresh()];
  table(streams);
  updateStreamTable(folder, streams, (active) => active.fill(7));
  ensureFlows(folder, flows);
  put(flows, [rule("a"), rule("b")]);
  using reader = new StreamTableReader(folder, streams, { isCounting: true });
  using rules = new FlowTableReader(folder, flows);
  reader.hits[2] = 5;
  const before = readStreamTable(folder, streams);
  for (const name of [streams, flows]) rmSync(join(folder, name));
  expect(reader.enter()).toBe(true); // nothing tells it
  reader.leave();
  expect(mendRemovedRegions(folder)).toEqual(
    expect.arrayContaining([streams, flows].map((name) => ({ name, outcome: "put back" }))),
  );
  expect(mendRemovedRegions(folder)).toEqual([]);
  expect(reader.enter()).toBe(false);
  expect(rules.enter()).toBe(TABLE_RETIRED);
  expect(readStreamTable(folder, streams)).toMatchObject({ active: before.active, lookup: before.lookup, size: 97 });
  expect(readTargetHits(folder, streams)[2]).toBe(5);
  expect(readFlows(folder, flows).rules.map((stored) => stored.rule.name)).toEqual(["a", "b"]);
  put(flows, [rule("c")]);
  updateStreamTable(folder, streams, (active) => active.fill(8));
});

test("of a table that was deleted by hand and made anew its readers are told; one deleted properly stays deleted", () => {
  const [replaced, deleted] = [fresh(), fresh()];
  for (const name of [replaced, deleted]) table(name);
  using reader = new StreamTableReader(folder, replaced);
  using _other = new StreamTableReader(folder, deleted);
  rmSync(join(folder, replaced));
  table(replaced);
  deleteRegion(folder, deleted);
  expect(reader.enter()).toBe(true);
  reader.leave();
  expect(mendRemovedRegions(folder)).toEqual([{ name: replaced, outcome: "replaced" }]);
  expect(reader.enter()).toBe(false);
  expect(hasRegion(folder, deleted)).toBe(false);
});

test("rules that are made for the first time by two at once are not made twice", () => {
  const name = fresh();
  ensureFlows(folder, name);
  put(name, [rule("a")]);
  using reader = new FlowTableReader(folder, name);
  ensureFlows(folder, name);
  expect(reader.enter()).not.toBe(TABLE_RETIRED);
  const spec = { kind: KIND_STREAM, imageBytes: 8, sizes: [], mayReplace: false };
  expect(Region.create(folder, name, spec, () => {})).toBeNull();
  expect(readFlows(folder, name).rules).toHaveLength(1);
  expect(readdirSync(folder).filter((entry) => entry.startsWith("."))).toEqual([]);
});

test("a writer that hangs is waited for until the deadline; what was in force stays", () => {
  const name = fresh();
  ensureFlows(folder, name);
  using hanging = Region.open(folder, name, 2);
  expect(tryLockRange(hanging.file.fd, LOCK_WRITER, 1)).toBe(true);
  expect(() => put(name, [rule("a")], { deadlineMs: 50 })).toThrow(/another writer has held it for 50 ms; nothing is/);
  expect(readFlows(folder, name).rules).toEqual([]);
});

test.skipIf(process.geteuid?.() !== 0)("another user's file decides nothing, and is not written on", () => {
  const [flows, streams, counters] = [fresh(), fresh(), fresh()];
  ensureFlows(folder, flows);
  table(streams);
  CounterFile.create(folder, counters, 1, "{}")[Symbol.dispose]();
  for (const name of [flows, streams, counters]) chownSync(join(folder, name), 65_534, 65_534);
  const refusal = /it belongs to user 65534, not to us or root/;
  expect(() => new FlowTableReader(folder, flows)).toThrow(refusal);
  expect(() => put(flows, [rule("a")])).toThrow(refusal);
  expect(() => new StreamTableReader(folder, streams)).toThrow(refusal);
  expect(readStreamTable(folder, streams).size).toBe(97); // to look at it is no harm
  using own = CounterFile.create(folder, counters, 1, "{}"); // root may replace it
  expect(own.workers).toBe(1);
  expect(statSync(join(folder, counters)).uid).toBe(0);
});
