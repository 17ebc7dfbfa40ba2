import { chmodSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, afterEach, expect, test } from "vitest";
import { example, NspStage, storeOf } from "../../test/harness/nsp.js";
import { loadState, saveState } from "./saved-state.js";

const stage = new NspStage();
afterEach(() => stage.clear());
afterAll(() => stage.remove());
let folders = 0;
function stateFolder(): string {
  const folder = join(stage.folder, `state${folders++}`);
  mkdirSync(folder);
  return folder;
}
const file = (folder: string) => join(folder, "stateless-lb-nsp.json");
const stateIn = (folder: string) => ({ folder, nowMs: () => 1_700_000_000_000 });

test("what was saved is loaded, for the same conduit only, and only the same user can read it", () => {
  const folder = stateFolder();
  const answers = new Map([
    ["vips", new Uint8Array([1, 2, 255])],
    ["targets/web", new Uint8Array()],
  ]);
  const state = { trench: "t", conduit: "c", savedAtMs: 5, answers };
  expect(loadState(folder, "t", "c")).toBeNull();
  saveState(folder, state);
  saveState(folder, state);
  const loaded = loadState(folder, "t", "c")!;
  expect([...loaded.answers].map(([key, bytes]) => [key, [...bytes]])).toEqual([
    ["vips", [1, 2, 255]],
    ["targets/web", []],
  ]);
  expect(loaded).toMatchObject({ trench: "t", conduit: "c", savedAtMs: 5 });
  expect(loadState(folder, "t", "other")).toBeNull();
  expect(statSync(file(folder)).mode & 0o777).toBe(0o600);
});

test("a state that could not be saved is saved as soon as it can be", async () => {
  const folder = join(stage.folder, "later");
  const address = stage.address();
  await stage.serve(storeOf(example), address);
  const seen = stage.follow(address, { state: stateIn(folder) });
  await expect.poll(() => seen.faults, { timeout: 5_000 }).toEqual([expect.stringContaining("ENOENT")]);
  mkdirSync(folder);
  const saved = () => loadState(folder, "trench-a", "load-balancer")?.answers.size ?? 0;
  await expect.poll(saved, { timeout: 10_000 }).toBeGreaterThan(0);
});

test("a damaged file of any kind is refused with its name and the reason, and never used", () => {
  const folder = stateFolder();
  saveState(folder, { trench: "t", conduit: "c", savedAtMs: 5, answers: new Map([["vips", new Uint8Array(40)]]) });
  const good = readFileSync(file(folder));
  const damaged = fc.oneof(
    fc.nat(good.length - 1).map((length) => good.subarray(0, length)),
    fc.tuple(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 })).map(([at, change]) => {
      const bytes = Buffer.from(good);
      bytes[at]! ^= change;
      return bytes;
    }),
    fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
  );
  const holds = fc.property(damaged, (bytes) => {
    writeFileSync(file(folder), bytes);
    expect(() => loadState(folder, "t", "c")).toThrow(/stateless-lb-nsp\.json: /);
  });
  fc.assert(holds, { numRuns: 500 });
  writeFileSync(file(folder), good.toString().replace('"version":1', '"version":2'));
  expect(() => loadState(folder, "t", "c")).toThrow("version 2, 1 is needed");
});

test("a link that somebody else may have put there is not followed", () => {
  const folder = stateFolder();
  const elsewhere = stateFolder();
  saveState(elsewhere, { trench: "t", conduit: "c", savedAtMs: 5, answers: new Map() });
  symlinkSync(file(elsewhere), file(folder));
  expect(() => loadState(folder, "t", "c")).toThrow(/ELOOP/);
});

test("a restart without NSP serves at once what the last run knew, refusals included, and goes on when the NSP is back", async () => {
  const address = stage.address();
  const folder = stateFolder();
  const store = storeOf(example);
  const [target] = store.configuration.targets;
  const bad = { ...target!, ips: ["nonsense"], context: { identifier: "5" } };
  store.configure({ ...store.configuration, targets: [...store.configuration.targets, bad] });
  const close = await stage.serve(store, address);
  const before = stage.follow(address, { state: stateIn(folder) });
  await expect.poll(() => before.updates.length).toBe(1);
  await before.stop(); // writes at the end what was not written yet
  await close();
  const after = stage.follow(address, { state: stateIn(folder), emptyGraceMs: 60_000 });
  await expect.poll(() => after.updates.length).toBe(1);
  expect(after.updates[0]!.origin).toBe("saved");
  expect(after.updates[0]!.configuration).toEqual(before.updates[0]!.configuration);
  expect(after.refused).toEqual(before.refused);
  await stage.serve(store, address);
  await expect.poll(() => after.updates.length, { timeout: 5_000 }).toBe(2);
  expect(after.updates[1]!.origin).toBe("nsp");
  expect(after.updates[1]!.configuration).toBe(after.updates[0]!.configuration); // nothing to do
  expect(after.faults).toEqual([]);
});

test("a stream that comes while the NSP is followed is the NSP's word, not the saved state's", async () => {
  const address = stage.address();
  const store = storeOf(example);
  await stage.serve(store, address);
  const seen = stage.follow(address, { state: stateIn(stateFolder()) });
  await expect.poll(() => seen.updates.length).toBe(1);
  const { streams, ...others } = store.configuration;
  store.configure({ ...others, streams: [...streams, { ...streams[0]!, name: "second" }] });
  await expect.poll(() => seen.updates.at(-1)!.configuration.streams.length, { timeout: 5_000 }).toBe(2);
  expect(new Set(seen.updates.map(({ origin }) => origin))).toEqual(new Set(["nsp"]));
});

test("a change is on disk soon, without an orderly end", async () => {
  const address = stage.address();
  const folder = stateFolder();
  await stage.serve(storeOf(example), address);
  const seen = stage.follow(address, { state: stateIn(folder) });
  await expect.poll(() => loadState(folder, "trench-a", "load-balancer")?.answers.size, { timeout: 5_000 }).toBe(6);
  expect(seen.updates).toHaveLength(1);
});

test("a damaged state, or a folder that cannot be written, is told once and stops nothing", async () => {
  const address = stage.address();
  const folder = stateFolder();
  writeFileSync(file(folder), "{}\n{}");
  mkdirSync(`${file(folder)}.new`); // writing fails, also for root
  chmodSync(`${file(folder)}.new`, 0o500);
  const store = storeOf(example);
  await stage.serve(store, address);
  const seen = stage.follow(address, { state: stateIn(folder) });
  await expect.poll(() => seen.updates.length).toBe(1);
  await expect.poll(() => seen.faults.length, { timeout: 5_000 }).toBe(2);
  expect(seen.faults[0]).toBe(`${file(folder)}: not a saved NSP state`);
  expect(seen.faults[1]).toContain(".new");
});
