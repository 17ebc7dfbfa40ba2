import fc from "fast-check";
import { expect, test } from "vitest";
import type { Stream } from "#model";
import { assignOffsets, type Offsets } from "./offsets.js";

const FOREIGN = [253, 254, 255, 4096, 4097];
const NONE: Offsets = new Map();
const stream = (name: string, maxTargets = 100): Stream => ({ name, conduit: "c", maxTargets });
const at = (start: number, isByName = false) => ({ start, isByName });
const offsetsOf = (offsets: Offsets) => Object.fromEntries([...offsets].map(([name, { offset }]) => [name, offset]));

test("streams get ranges one after the other, in the order of their names", () => {
  const { offsets } = assignOffsets([stream("b"), stream("a"), stream("c", 10)], NONE, at(5_000));
  expect(offsetsOf(offsets)).toEqual({ a: 5_000, b: 5_100, c: 5_200 });
});

test("R3: no range reaches beyond 31 bits or into a foreign routing table; without a range there is no stream", () => {
  const { offsets, refused } = assignOffsets([stream("a", 300), stream("b", 2), stream("c", 10_000)], NONE, at(0));
  expect(offsetsOf(offsets)).toEqual({ a: 255, b: 0, c: 4_097 });
  expect(refused).toEqual([]);
  const last = 2 ** 31 - 1;
  const tight = assignOffsets([stream("a", 10), stream("b", 10)], NONE, at(last - 15));
  expect(offsetsOf(tight.offsets)).toEqual({ a: last - 15 });
  expect(tight.refused).toEqual(["b"]);
  // A range that becomes free is used.
  expect(assignOffsets([stream("b", 10)], tight.offsets, at(last - 15)).refused).toEqual([]);
});

test("a stream keeps its offset with another maxTargets, if that fits", () => {
  const { offsets } = assignOffsets([stream("a"), stream("b")], NONE, at(5_000));
  const shrunk = assignOffsets([stream("a", 50), stream("b", 900)], offsets, at(5_000)).offsets;
  expect(offsetsOf(shrunk)).toEqual({ a: 5_000, b: 5_100 });
  expect(offsetsOf(assignOffsets([stream("a", 101), stream("b", 900)], offsets, at(5_000)).offsets)).toEqual({
    a: 6_000,
    b: 5_100,
  });
});

const anyStreams = fc.uniqueArray(
  fc.record({
    name: fc.constantFrom("a", "b", "c", "d", "e", "f", "g", "h"),
    maxTargets: fc.integer({ min: 1, max: 400 }),
  }),
  {
    selector: ({ name }) => name,
  },
);
const shuffled = (streams: readonly Stream[], seed: number) =>
  streams.toSorted((a, b) => ((a.name.charCodeAt(0) * 7919 + seed) % 13) - ((b.name.charCodeAt(0) * 7919 + seed) % 13));

test("over random histories: offsets are stable, never overlap, and do not depend on the order within a list", () => {
  const histories = fc.array(fc.tuple(anyStreams, fc.nat(12)), { maxLength: 12 });
  const holds = fc.property(
    histories,
    fc.constantFrom(0, 200, 4_000, 5_000),
    fc.boolean(),
    (steps, start, isByName) => {
      let known: Offsets = NONE;
      let other: Offsets = NONE;
      for (const [list, seed] of steps) {
        const streams = list.map(({ name, maxTargets }) => stream(name, maxTargets));
        const before = known;
        known = assignOffsets(streams, known, at(start, isByName)).offsets;
        other = assignOffsets(shuffled(streams, seed), other, at(start, isByName)).offsets;
        expect(offsetsOf(other)).toEqual(offsetsOf(known));
        for (const { name, maxTargets } of streams) {
          const last = before.get(name);
          if (last !== undefined && last.maxTargets >= maxTargets) expect(known.get(name)?.offset).toBe(last.offset);
        }
        const marks = [...known.values()].flatMap(({ offset, maxTargets }) =>
          Array.from({ length: maxTargets }, (_, i) => offset + i + 1),
        );
        expect(new Set([...marks, ...FOREIGN]).size).toBe(marks.length + FOREIGN.length);
      }
    },
  );
  fc.assert(holds, { numRuns: 300 });
});

test("why not always: two streams that are each the first one somewhere have the same place, and neither may move", () => {
  const [a, b] = [stream("a"), stream("b")];
  const learn = (...lists: readonly (readonly Stream[])[]) =>
    lists.reduce<Offsets>((known, list) => assignOffsets(list, known, at(5_000)).offsets, NONE);
  expect(offsetsOf(learn([a]))).toEqual({ a: 5_000 });
  expect(offsetsOf(learn([b]))).toEqual({ b: 5_000 });
  expect(offsetsOf(learn([a], [a, b]))).toEqual({ a: 5_000, b: 5_100 });
  expect(offsetsOf(learn([b], [b, a]))).toEqual({ a: 5_100, b: 5_000 });
  expect(offsetsOf(learn([b, a]))).toEqual(offsetsOf(learn([a, b]))); // learned at once, as an instance does that starts
});

test("with places by name two instances agree after any histories, and a stream stays where it is", () => {
  const histories = fc.array(anyStreams, { maxLength: 12 });
  const byName = { start: 5_000, isByName: true };
  const holds = fc.property(histories, histories, anyStreams, (past, otherPast, now) => {
    const streams = now.map(({ name, maxTargets }) => stream(name, maxTargets));
    const after = (lists: readonly (typeof now)[]) => {
      const past = lists.reduce<Offsets>((known, list) => {
        return assignOffsets(
          list.map(({ name, maxTargets }) => stream(name, maxTargets)),
          known,
          byName,
        ).offsets;
      }, NONE);
      return offsetsOf(assignOffsets(streams, past, byName).offsets);
    };
    expect(after(otherPast)).toEqual(after(past));
  });
  fc.assert(holds);
});

test("two names that claim the same place get neighboring ranges, near the end also from the start", () => {
  const { offsets, refused } = assignOffsets([stream("a", 400), stream("b", 400)], NONE, {
    start: 2 ** 31 - 1 - 1_000,
    isByName: true,
  });
  expect([offsets.size, refused]).toEqual([2, []]);
});
