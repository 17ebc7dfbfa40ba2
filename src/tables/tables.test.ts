// Longer than other files: all of these tests share one bundled second process and its helpers.
import { type ChildProcess, fork } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { compile, deleteFlow, type FlowRule, formatFlowRule, parseFlowRule, setFlow } from "#flow";
import { effectiveSize, populate, rows } from "#maglev";
import { ROOT } from "../../test/harness/bundled.js";
import { randomNumbers } from "../../test/harness/random.js";
import { KINDS, randomParams, trySet } from "../../test/harness/random-flows.js";
import {
  CounterFile,
  CounterWatch,
  createStreamTable,
  deleteRegion,
  ensureFlows,
  FlowTableReader,
  hasRegion,
  matchesOf,
  readDataPlane,
  readFlows,
  readStreamCounts,
  readStreamTable,
  readTargetHits,
  rebaseFlows,
  StreamCountsReader,
  StreamTableReader,
  TABLE_CHANGED,
  TABLE_RETIRED,
  updateFlows,
  updateStreamTable,
} from "./index.js";

const folder = mkdtempSync(join(tmpdir(), "tables-"));
const bundleFolder = mkdtempSync(join(ROOT, "node_modules", ".tables-"));
let child = "";
beforeAll(async () => {
  child = join(bundleFolder, "child.cjs");
  const entryPoints = [join(ROOT, "test/harness/table-child.ts")];
  await build({
    entryPoints,
    outfile: child,
    absWorkingDir: ROOT,
    bundle: true,
    platform: "node",
    target: "node20",
    format: "cjs",
    external: ["koffi"],
    logLevel: "error",
  });
});
afterAll(() => {
  rmSync(folder, { recursive: true });
  rmSync(bundleFolder, { recursive: true });
});

const bytesOf = ({ buffer, byteOffset, byteLength }: Int32Array) => Buffer.from(buffer, byteOffset, byteLength);
let names = 0;
const fresh = () => `t${names++}`;
const message = (process: ChildProcess) =>
  new Promise<string>((resolve) => process.once("message", (text) => resolve(text as string)));
const exit = (process: ChildProcess) => new Promise<void>((resolve) => process.once("exit", () => resolve()));
/** The lookup table that `active` must have. */
function lookupOf(size: number, active: Int32Array): Int32Array {
  const lookup = new Int32Array(size);
  populate(lookup, rows(size, active.length), active);
  return lookup;
}

test("a new table is empty, an update fills it, an equal update writes nothing", () => {
  const name = fresh();
  expect(createStreamTable(folder, name, { size: 1000, targets: 10, ownFwmark: 7 })).toEqual({ size: 997 });
  expect(readStreamTable(folder, name)).toMatchObject({ size: 997, targets: 10, ownFwmark: 7, generation: 0 });
  expect(readStreamTable(folder, name).lookup.every((index) => index === -1)).toBe(true);
  const set = (active: Int32Array) => {
    active[3] = 5004;
  };
  const first = updateStreamTable(folder, name, set);
  expect(first).toEqual({ changed: true, stamp: expect.any(String) });
  expect(updateStreamTable(folder, name, set)).toEqual({ changed: false, stamp: first.stamp });
  const table = readStreamTable(folder, name);
  expect(table.generation).toBe(1);
  expect(table.lookup.every((index) => index === 3)).toBe(true);
});

test("the numbers of a table: positions, packets, time of publication; reading them takes no memory", () => {
  const own = mkdtempSync("/dev/shm/tables-");
  onTestFinished(() => rmSync(own, { recursive: true }));
  createStreamTable(own, "t", { size: 100_000, targets: 1_000, ownFwmark: 0 });
  using counting = new StreamTableReader(own, "t", { isCounting: true });
  using other = new StreamTableReader(own, "t", { isCounting: true });
  const beforeMs = Date.now();
  updateStreamTable(own, "t", (active) => active.fill(5_001, 10, 20));
  counting.hits[10] = 3;
  other.hits[10] = 4;
  other.hits[999] = 5;
  const { blocks } = statSync(join(own, "t"));
  const { publishedMs, positions, hits, ...rest } = readStreamCounts(own, "t");
  expect(statSync(join(own, "t")).blocks).toBe(blocks);
  expect(publishedMs).toBeGreaterThanOrEqual(beforeMs);
  expect(publishedMs).toBeLessThanOrEqual(Date.now());
  expect(rest).toMatchObject({ size: 99_991, targets: 1_000, generation: 1 });
  const { lookup } = readStreamTable(own, "t");
  expect([...positions]).toEqual(
    Array.from(positions, (_, target) => lookup.reduce((sum, owner) => sum + Number(owner === target), 0)),
  );
  expect([hits[10], hits[999], hits.reduce((a, b) => a + b)]).toEqual([7, 5, 12]);
  expect(hits).toEqual(readTargetHits(own, "t"));
});

test("numbers that are read again: the image is counted when it changed, packets each time, whatever slots counted them", () => {
  const own = mkdtempSync("/dev/shm/tables-");
  onTestFinished(() => rmSync(own, { recursive: true }));
  const size = { size: 1_000, targets: 10, ownFwmark: 0 };
  createStreamTable(own, "t", size);
  updateStreamTable(own, "t", (active) => active.fill(5_001, 0, 2));
  const reader = new StreamCountsReader(own);
  const first = reader.read("t");
  const counting = Array.from({ length: 7 }, () => new StreamTableReader(own, "t", { isCounting: true }));
  for (const [i, { hits }] of counting.entries()) hits[1] = 10 ** i;
  const second = reader.read("t");
  expect([first.hits[1], second.hits[1]]).toEqual([0, 1_111_111]);
  expect(second.positions).toBe(first.positions);
  updateStreamTable(own, "t", (active) => active.fill(-1, 0, 1));
  const { positions, active, generation } = reader.read("t");
  expect([positions[0], positions[1], active[0], generation]).toEqual([0, 997, -1, 2]);
  for (const one of counting) one[Symbol.dispose]();
  deleteRegion(own, "t");
  expect(() => reader.read("t")).toThrow("ENOENT");
  createStreamTable(own, "t", size);
  expect(reader.read("t")).toMatchObject({ generation: 0, active: new Int32Array(10).fill(-1) });
});

test("a watch of counters stays on its file until another one has the name", () => {
  const own = mkdtempSync(join(folder, "watch-"));
  const watch = new CounterWatch(own, "c");
  expect([watch.current(), watch.dataPlane()]).toEqual([null, null]);
  const first = CounterFile.create(own, "c", 1, "{}");
  const seen = watch.current()!;
  expect(watch.current()).toBe(seen);
  expect(watch.dataPlane()).toMatchObject({ pid: process.pid, workers: 1, isReady: false });
  first[Symbol.dispose]();
  expect(watch.dataPlane()).toBeNull();
  using _second = CounterFile.create(own, "c", 2, "{}");
  expect(watch.dataPlane()).toMatchObject({ workers: 2 });
  rmSync(join(own, "c"));
  expect(watch.current()).toBeNull();
});

test("P6: a table takes memory for its positions and its targets, not for their product; 1 to 10,000 targets", () => {
  const own = mkdtempSync(join(folder, "sizes-"));
  for (const targets of [1, 10, 100, 1_000, 10_000]) {
    const { size } = createStreamTable(own, "t", { size: 100 * targets, targets, ownFwmark: 0 });
    expect(size).toBe(effectiveSize(100 * targets));
    // Two images, and hits for each of 64 readers, which are pages only once they are written.
    expect(statSync(join(own, "t")).size).toBeLessThan(2 * 4 * (size + targets) + 64 * 8 * targets + 32_768);
    expect(statSync(join(own, "t")).blocks * 512).toBeLessThan(2 * 4 * (size + targets) + 64 * 8 * targets + 32_768);
    updateStreamTable(own, "t", (active) => active.fill(7, targets - 1));
    expect(readStreamTable(own, "t").lookup.every((index) => index === targets - 1)).toBe(true);
  }
});

test("R1: 100 streams of 100 targets fit into 64 MiB with room to spare", () => {
  const own = mkdtempSync(join(folder, "many-"));
  for (let i = 0; i < 100; i++) createStreamTable(own, `tshm-${i}`, { size: 10_000, targets: 100, ownFwmark: 0 });
  const bytes = readdirSync(own).reduce((sum, name) => sum + statSync(join(own, name)).size, 0);
  expect(bytes).toBeLessThan(16 << 20);
});

test("a reader keeps its image until it leaves, and sees the new one when it enters again", () => {
  const name = fresh();
  createStreamTable(folder, name, { size: 97, targets: 4, ownFwmark: 0 });
  using reader = new StreamTableReader(folder, name);
  expect(reader.enter()).toBe(true);
  reader.leave();
  updateStreamTable(folder, name, (active) => active.fill(9));
  expect(reader.enter()).toBe(true);
  expect(reader.lookup).toEqual(lookupOf(97, new Int32Array(4).fill(9)));
  reader.leave();
});

test("a writer waits for a reader that lives, and gives up with its name; one that died is passed over", async () => {
  const name = fresh();
  createStreamTable(folder, name, { size: 97, targets: 4, ownFwmark: 0 });
  const holder = fork(child, ["hold", folder, name]);
  await message(holder);
  expect(() => updateStreamTable(folder, name, (active) => active.fill(1))).toThrowError(
    expect.objectContaining({
      code: "ERR_CAPACITY",
      message: expect.stringMatching(/reader 0 has not left generation 0/),
    }),
  );
  holder.kill("SIGKILL");
  await exit(holder);
  expect(updateStreamTable(folder, name, (active) => active.fill(2))).toMatchObject({ changed: true });
});

test("a table that is replaced or deleted tells its readers, who keep a whole one until they open it anew", () => {
  const name = fresh();
  createStreamTable(folder, name, { size: 97, targets: 4, ownFwmark: 0 });
  updateStreamTable(folder, name, (active) => active.fill(5));
  using reader = new StreamTableReader(folder, name);
  reader.enter();
  createStreamTable(folder, name, { size: 997, targets: 40, ownFwmark: 0 });
  expect(reader.lookup).toEqual(lookupOf(97, new Int32Array(4).fill(5)));
  reader.leave();
  expect(reader.enter()).toBe(false);
  using again = new StreamTableReader(folder, name);
  expect(again.enter()).toBe(true);
  expect(again.size).toBe(997);
  expect(deleteRegion(folder, name)).toBe(true);
  expect(again.enter()).toBe(false);
  expect(deleteRegion(folder, name)).toBe(false);
  expect(hasRegion(folder, name)).toBe(false);
});

test("1,000 updates under a reading process: every table it sees is one that was published", async () => {
  const name = fresh();
  const size = effectiveSize(2_000);
  createStreamTable(folder, name, { size, targets: 8, ownFwmark: 0 });
  const reader = fork(child, ["check", folder, name]);
  await message(reader);
  for (let i = 0; i < 1_000; i++) {
    updateStreamTable(folder, name, (active) => {
      active[i % 8] = active[i % 8]! < 0 ? 5000 + i : -1;
    });
  }
  const result = message(reader);
  reader.send("stop");
  const { seen, wrong } = JSON.parse(await result) as { seen: number; wrong: number };
  expect(wrong).toBe(0);
  expect(seen).toBeGreaterThan(100);
  await exit(reader);
});

test("a writer killed at any moment leaves a published table in force, and the next writer goes on", async () => {
  const name = fresh();
  const size = effectiveSize(5_000);
  createStreamTable(folder, name, { size, targets: 16, ownFwmark: 0 });
  for (let round = 0; round < 12; round++) {
    const writer = fork(child, ["write", folder, name]);
    await message(writer);
    for (const end = performance.now() + round * 3; performance.now() < end; ); // another moment each time
    writer.kill("SIGKILL");
    await exit(writer);
    const { lookup, active } = readStreamTable(folder, name);
    expect(lookup).toEqual(lookupOf(size, active));
    expect(updateStreamTable(folder, name, (fwmarks) => fwmarks.fill(round + 1)).changed).toBe(true);
  }
});

test("two writers at once lose no change", async () => {
  const name = fresh();
  createStreamTable(folder, name, { size: 97, targets: 97, ownFwmark: 0 });
  const writers = ["0", "1"].map((parity) => fork(child, ["claim", folder, name, parity]));
  await Promise.all(writers.map(exit));
  expect([...readStreamTable(folder, name).active]).toEqual(Array.from({ length: 97 }, (_, i) => 5000 + i));
});

test("files that are no regions, or cut short, are refused by name and never mapped", () => {
  const write = (name: string, content: Uint8Array) => writeFileSync(join(folder, name), content);
  write("text", Buffer.from("hello"));
  write("zeros", new Uint8Array(100_000));
  createStreamTable(folder, "cut", { size: 997, targets: 10, ownFwmark: 0 });
  truncateSync(join(folder, "cut"), 8192);
  for (const name of ["text", "zeros", "cut"]) {
    expect(() => readStreamTable(folder, name), name).toThrowError(
      expect.objectContaining({ code: "ERR_LAYOUT", message: expect.stringContaining(name) }),
    );
  }
  ensureFlows(folder, "rules");
  expect(() => readStreamTable(folder, "rules")).toThrow(/kind is 2, not 1/);
  expect(() => readStreamTable(folder, "missing")).toThrowError(expect.objectContaining({ code: "ENOENT" }));
  for (const name of ["../x", "", ".", "a/b"])
    expect(() => createStreamTable(folder, name, { size: 97, targets: 1, ownFwmark: 0 }), name).toThrow(/a name has/);
});

test("flow rules: stored, compiled, told to readers; counters follow the rule that stays", () => {
  const name = fresh();
  ensureFlows(folder, name);
  using reader = new FlowTableReader(folder, name);
  const rule = (rest: object) =>
    parseFlowRule({
      name: "a",
      target: "s1",
      protocols: "tcp",
      dsts: "10.0.0.1/32,2001:db8::/64",
      dports: "80-90",
      match: "tcp[13:1]&0x2=2",
      ...rest,
    });
  const set = (one: ReturnType<typeof rule>, count = 0) =>
    updateFlows(
      folder,
      name,
      (rules) => setFlow(rules, one),
      () => count,
    );
  expect(set(rule({}))).toEqual({ changed: true });
  expect(reader.enter()).toBe(TABLE_CHANGED);
  expect(reader.streams).toEqual(["s1"]);
  reader.leave();
  set(rule({ name: "b", target: "s2" }), 40);
  const first = readFlows(folder, name);
  expect(first.rules.map(({ rule: { name: one }, base }) => [one, base])).toEqual([
    ["a", 0],
    ["b", 40],
  ]);
  expect(first.rules[0]!.rule).toEqual(rule({}));
  set(rule({ priority: "5" }), 70); // set again: its counter starts anew, the other keeps its own
  expect(readFlows(folder, name).rules.map(({ rule: { name: one }, base }) => [one, base])).toEqual([
    ["a", 70],
    ["b", 40],
  ]);
  expect(
    updateFlows(
      folder,
      name,
      (rules) => rules,
      () => 0,
    ),
  ).toEqual({ changed: false });
});

test("flow rules: where the counters were made anew rules begin at what those have counted, and nothing else changes", () => {
  const name = fresh();
  ensureFlows(folder, name);
  const set = (one: string, counted: number) =>
    updateFlows(
      folder,
      name,
      (rules) => setFlow(rules, parseFlowRule({ name: one, target: "s1", protocols: "tcp", dports: "80" })),
      () => counted,
    );
  set("a", 0);
  set("b", 40);
  set("c", 7);
  const before = readFlows(folder, name);
  const counts = (slot: number) => [3, 0, 9][slot]!; // less than b began at
  rebaseFlows(folder, name, counts);
  const after = readFlows(folder, name);
  expect(after.rules.map(({ base }) => base)).toEqual([0, 0, 7]);
  expect(after.rules.map((stored) => matchesOf(stored, counts))).toEqual([3, 0, 2]);
  expect(after.rules.map(({ rule }) => rule)).toEqual(before.rules.map(({ rule }) => rule));
  expect(after).toMatchObject({ program: before.program, streams: before.streams, generation: before.generation + 1 });
  rebaseFlows(folder, name, counts);
  expect(readFlows(folder, name).generation).toBe(after.generation); // written only when something changes
  expect(before.rules.map((stored) => matchesOf(stored, counts))).toEqual([3, 0, 2]); // never less than nothing
});

test("more rules than the file holds move to a larger one", () => {
  const name = fresh();
  ensureFlows(folder, name);
  using reader = new FlowTableReader(folder, name);
  const rules = Array.from({ length: 2_000 }, (_, i) =>
    parseFlowRule({
      name: `r${i}`,
      target: `s${i % 10}`,
      protocols: "udp",
      dsts: `10.${i >> 8}.${i & 255}.0/24`,
      dports: "53",
    }),
  );
  updateFlows(
    folder,
    name,
    () => rules,
    () => 0,
  );
  expect(reader.enter()).toBe(TABLE_RETIRED);
  expect(readFlows(folder, name).rules).toHaveLength(2_000);
  const copies = (length: number) => Array.from({ length }, (_, i) => ({ ...rules[0]!, name: `x${i}` }));
  const set = (length: number) =>
    updateFlows(
      folder,
      name,
      () => copies(length),
      () => 0,
    );
  set(32_768); // 20,000 rules, most of them with a helper
  expect(readFlows(folder, name).rules).toHaveLength(32_768);
  expect(() => set(32_769)).toThrowError(expect.objectContaining({ code: "ERR_TOO_MANY_RULES" }));
});

test("rules come back as they were, whoever wrote them; those that did not change are the same objects", async () => {
  const name = fresh();
  ensureFlows(folder, name);
  const put = (change: (rules: readonly FlowRule[]) => readonly FlowRule[]) =>
    updateFlows(folder, name, change, () => 0);
  const random = randomNumbers(3);
  for (const kind of KINDS) for (let i = 0; i < 20; i++) put((rules) => trySet(rules, randomParams(kind, i, random)));
  const { rules } = readFlows(folder, name);
  const other = fork(child, ["flows", folder, name]);
  const told = JSON.parse(await message(other)) as readonly string[];
  expect(told).toEqual(rules.map(({ rule }) => formatFlowRule(rule, 0)));
  const changed = readFlows(folder, name).rules; // the child deleted the first one
  expect(changed).toHaveLength(rules.length - 1);
  for (const { rule } of changed) expect(rules.find((before) => before.rule === rule)).toBeDefined();
});

test("counters have one owner, who is seen as the data plane and gone with its process", async () => {
  const name = fresh();
  expect(readDataPlane(folder, name)).toBeNull();
  const owner = fork(child, ["own", folder, name]);
  await message(owner);
  expect(readDataPlane(folder, name)).toEqual({
    pid: owner.pid,
    workers: 2,
    isReady: true,
    settings: '{"x":1}',
    sampledMs: 0,
    batches: 0,
  });
  expect(() => CounterFile.create(folder, name, 2, "{}")).toThrow(
    new RegExp(`a data plane with pid ${owner.pid} is running`),
  );
  using counters = CounterFile.open(folder, name);
  expect([counters.sum(0), counters.sumRule(9)]).toEqual([3, 7]);
  owner.kill("SIGKILL");
  await exit(owner);
  expect(readDataPlane(folder, name)).toBeNull();
  using next = CounterFile.create(folder, name, 2, "{}");
  expect([next.sum(0), next.sumRule(9)]).toEqual([0, 7]); // rules keep counting over a restart
  expect(readDataPlane(folder, name)?.isReady).toBe(false); // whatever its predecessor was
  next.setReady();
  expect(readDataPlane(folder, name)?.isReady).toBe(true);
});

test("after any sequence of changes the rules in force are compiled as if from scratch, and keep their counters", () => {
  const folder = mkdtempSync(join(tmpdir(), "tables-sequence-"));
  ensureFlows(folder, "flows");
  for (const kind of KINDS) {
    const random = randomNumbers(KINDS.indexOf(kind) + 1);
    for (let step = 0; step < 25; step++) {
      const change = (rules: readonly FlowRule[]) => {
        const name = `f${random(30)}`;
        if (random(4) === 0) return deleteFlow(rules, name);
        return trySet(rules, { ...randomParams(kind, step, random), name });
      };
      const before = readFlows(folder, "flows").rules;
      updateFlows(folder, "flows", change, (slot) => slot * 100);
      const { rules, program } = readFlows(folder, "flows");
      const fresh = rules.map(({ rule }) => structuredClone(rule)); // objects that no cache knows
      const slots = rules.map(({ slot }) => slot);
      expect(bytesOf(program).equals(bytesOf(compile(fresh, slots)))).toBe(true);
      expect(new Set(slots).size).toBe(rules.length);
      for (const stored of rules) {
        const same = before.find(({ rule }) => rule === stored.rule);
        if (same !== undefined) expect(stored).toEqual(same);
        else expect(stored.base).toBe(stored.slot * 100);
      }
    }
  }
  rmSync(folder, { recursive: true });
});
