import { type ChildProcess, fork } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { bundle, ROOT } from "../../test/harness/bundled.js";
import { RECORD, RingWriter, TraceFile, TraceWatcher } from "./index.js";
import { RingReader } from "./trace-ring.js";

const RECORDS = 1_024;
const folder = mkdtempSync(join(tmpdir(), "trace-"));
const bundleFolder = mkdtempSync(join(ROOT, "node_modules", ".trace-"));
let child = "";
beforeAll(async () => {
  child = await bundle("test/harness/table-child.ts", bundleFolder);
});
const children: ChildProcess[] = [];
const start = (...args: string[]) => {
  children.push(fork(child, args));
  return children.at(-1)!;
};
afterAll(() => {
  for (const process of children) process.kill("SIGKILL");
  rmSync(folder, { recursive: true });
  rmSync(bundleFolder, { recursive: true });
});

let names = 0;
const fresh = () => `trace${names++}`;
const message = (process: ChildProcess) =>
  new Promise<string>((resolve) => process.once("message", (text) => resolve(text as string)));
const killed = (process: ChildProcess) =>
  new Promise<void>((resolve) => {
    process.once("exit", () => resolve());
    process.kill("SIGKILL");
  });

/** Writes records numbered from `first` in their hash. */
function write(ring: RingWriter, selection: number, first: number, count: number): void {
  for (let n = first; n < first + count; n++) {
    const at = ring.next();
    ring.words[at + RECORD.selection] = selection;
    ring.words[at + RECORD.hash] = n;
    ring.setPacket(at, new Uint8Array([n & 255, 7]), 0, 2);
    ring.commit();
  }
}
const hashes = (watcher: TraceWatcher) => watcher.poll().map(({ record }) => record.hash);
const range = (first: number, count: number) => Array.from({ length: count }, (_, i) => first + i);

test("every watcher sees every record that it selects, from its start on, in order of writing", () => {
  const name = fresh();
  using file = TraceFile.own(folder, name, 2, RECORDS);
  const ring = new RingWriter(file.ring(0));
  write(ring, 2, 0, 5);
  using all = new TraceWatcher(folder, name, 2 | 4);
  using fragments = new TraceWatcher(folder, name, 4);
  write(ring, 2, 100, 300);
  write(ring, 4, 400, 3);
  expect(hashes(all)).toEqual(range(100, 303));
  expect(hashes(fragments)).toEqual([400, 401, 402]);
  write(new RingWriter(file.ring(1)), 4, 500, 1); // the other ring
  const [last] = fragments.poll();
  expect(last).toMatchObject({ ring: 1, record: { hash: 500, bytes: new Uint8Array([500 & 255, 7]) } });
  expect([all.lost, fragments.lost]).toEqual([0, 0]);
});

test("a slow watcher loses the oldest records and knows how many; the writer's number may wrap", () => {
  const name = fresh();
  using file = TraceFile.own(folder, name, 1, RECORDS);
  const memory = file.ring(0);
  memory.head[0] = -700; // so that the number of records passes 2^32
  const ring = new RingWriter(memory);
  using watcher = new TraceWatcher(folder, name, 2);
  let written = 0;
  const seen: number[] = [];
  for (const count of [900, 1_500, 0, 1, 10_000, 960, 961]) {
    write(ring, 2, written, count);
    written += count;
    seen.push(...hashes(watcher));
    expect(seen.length + watcher.lost).toBe(written);
    expect(seen.at(-1)).toBe(written - 1);
  }
  expect(seen).toEqual(seen.toSorted((a, b) => a - b));
  expect(seen.slice(0, 900)).toEqual(range(0, 900)); // what fits is whole
  expect(watcher.lost).toBeGreaterThan(10_000 - RECORDS);
});

test("records that another process overwrites while they are read are never mixed", { timeout: 30_000 }, async () => {
  const name = fresh();
  const writer = start("trace", folder, name);
  await message(writer);
  using watcher = new TraceWatcher(folder, name, 2);
  expect(watcher.isLive).toBe(true);
  let seen = 0;
  let before = -1;
  await expect
    .poll(
      () => {
        for (const { record } of watcher.poll()) {
          const byte = record.hash & 255;
          const isWhole =
            record.length === record.hash &&
            record.key.every((value) => value === byte) &&
            record.bytes.length === 256 &&
            record.bytes.every((value) => value === byte);
          expect(isWhole, `record ${record.hash}`).toBe(true);
          expect(record.hash).toBeGreaterThan(before);
          before = record.hash;
          seen++;
        }
        return seen > 5_000 && watcher.lost > 5_000;
      },
      { timeout: 20_000, interval: 1 },
    )
    .toBe(true);
  await killed(writer);
  expect(watcher.isLive).toBe(false);
});

test("a record that is overwritten while it is copied is lost, not mixed", () => {
  const name = fresh();
  using file = TraceFile.own(folder, name, 1, RECORDS);
  const memory = file.ring(0);
  const ring = new RingWriter(memory);
  const reader = new RingReader(memory);
  write(ring, 2, 0, 10);
  const { words } = memory;
  let isOvertaken = false;
  words.slice = (from, to) => {
    const copy = Int32Array.prototype.slice.call(words, from, to);
    if (!isOvertaken) write(ring, 2, 10, RECORDS - 60); // while the reader copies, the writer comes close to its place
    isOvertaken = true;
    return copy;
  };
  const record = reader.read();
  expect(reader.lost).toBeGreaterThan(0);
  expect(record!.hash).toBe(reader.lost); // the first one that is not lost
  let seen = 1;
  while (reader.read() !== null) seen++;
  expect(seen + reader.lost).toBe(10 + RECORDS - 60);
});

test("the union of selections grows with a watcher and goes back when one leaves or is killed", async () => {
  const name = fresh();
  using file = TraceFile.own(folder, name, 1, RECORDS);
  expect(file.mask).toBe(0);
  const first = new TraceWatcher(folder, name, 4);
  const other = start("watch", folder, name, "66");
  await message(other);
  expect(file.mask).toBe(4 | 66);
  first[Symbol.dispose]();
  expect(file.mask).toBe(66);
  await killed(other);
  expect(file.mask).toBe(66); // nobody has looked yet
  expect(file.settleMask()).toBe(0);
  using next = new TraceWatcher(folder, name, 1); // takes a dead one's slot
  expect(next.isLive).toBe(true);
  expect(file.settleMask()).toBe(1);
});

test("a data plane takes over the trace of a dead one with its log level; two at a time are refused", () => {
  const name = fresh();
  using before = TraceFile.openOrCreate(folder, name);
  expect([before.rings, before.level, before.isLive]).toEqual([0, 5, false]);
  before.level = 7;
  const file = TraceFile.own(folder, name, 3, RECORDS);
  expect([file.rings, file.level]).toEqual([3, 7]);
  expect(() => TraceFile.own(folder, name, 3, RECORDS)).toThrowError(/another data plane owns it/);
  using watcher = new TraceWatcher(folder, name, 2);
  file[Symbol.dispose]();
  expect(watcher.isLive).toBe(false);
  using successor = TraceFile.own(folder, name, 3, RECORDS);
  expect([watcher.isLive, successor.mask]).toEqual([true, 2]);
  write(new RingWriter(successor.ring(0)), 2, 9, 1);
  expect(hashes(watcher)).toEqual([9]);
});

test("what the rate forbade is told to those who selected it", () => {
  const name = fresh();
  using file = TraceFile.own(folder, name, 2, RECORDS);
  const rings = [0, 1].map((index) => new RingWriter(file.ring(index)));
  rings[0]!.suppress(1);
  using watcher = new TraceWatcher(folder, name, 2 | 64);
  for (const bit of [1, 1, 2, 6]) rings[0]!.suppress(bit);
  rings[1]!.suppress(1);
  expect(watcher.suppressed()).toEqual([0, 3, 0, 0, 0, 0, 1]);
});

test("messages are records too, cut to what fits", () => {
  const name = fresh();
  using file = TraceFile.own(folder, name, 1, RECORDS);
  const ring = new RingWriter(file.ring(0));
  using watcher = new TraceWatcher(folder, name, 1);
  ring.writeMessage(1, 4, 1_700_000_000_123, "queue 4: gone");
  ring.writeMessage(1, 4, 1_700_000_000_123, "x".repeat(1_000));
  const [short, long] = watcher.poll().map(({ record }) => record);
  expect(new TextDecoder().decode(short!.bytes)).toBe("queue 4: gone");
  expect(short).toMatchObject({ selection: 1, outcome: 4, seconds: 1_700_000_000, nanoseconds: 123_000_000 });
  expect(long!.bytes).toHaveLength(256);
});

test("a folder without room refuses the trace before anything is made", () => {
  expect(() => TraceFile.own(folder, fresh(), 1 << 18, 65_536)).toThrowError(
    expect.objectContaining({ code: "ERR_CAPACITY", message: expect.stringMatching(/no room for \d+ bytes/) }),
  );
});
