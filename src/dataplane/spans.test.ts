import fc from "fast-check";
import { expect, test } from "vitest";
import { addSpan, clearSpans, spanWords } from "./spans.js";

const CAPACITY = 4;
/** A list at index 3 of otherwise untouched memory. */
function freshList(): Int32Array {
  const words = new Int32Array(3 + spanWords(CAPACITY) + 3).fill(77);
  clearSpans(words, 3);
  return words;
}
const add = (words: Int32Array, from: number, to: number, isLast = false) =>
  addSpan(words, 3, CAPACITY, from, to, isLast);

test("a packet is complete when its end is known and no unit before it is missing", () => {
  const words = freshList();
  expect(add(words, 4, 6)).toBe(false);
  expect(add(words, 0, 2)).toBe(false);
  expect(add(words, 6, 7, true)).toBe(false);
  expect(add(words, 1, 3)).toBe(false); // overlaps
  expect(add(words, 4, 6)).toBe(false); // once more
  expect(add(words, 2, 5)).toBe(true);
});

test("as many gaps as there is room for are told apart; one more makes the list useless and nothing else", () => {
  const words = freshList();
  for (const from of [6, 0, 4, 2]) expect(add(words, from, from + 1)).toBe(false);
  expect(add(words, 8, 9)).toBe(false);
  expect(add(words, 0, 100, true)).toBe(false); // it would cover everything
  expect([...words.subarray(0, 3), ...words.subarray(3 + spanWords(CAPACITY))]).toEqual([77, 77, 77, 77, 77, 77]);
});

test("fragments that contradict each other never make a packet complete", () => {
  const twoEnds = freshList();
  add(twoEnds, 0, 4);
  add(twoEnds, 5, 6, true);
  add(twoEnds, 4, 5, true);
  expect(add(twoEnds, 0, 6)).toBe(false);
  const behindTheEnd = freshList();
  add(behindTheEnd, 2, 4, true);
  add(behindTheEnd, 4, 5);
  expect(add(behindTheEnd, 0, 2)).toBe(false);
  const endBeforeWhatWasSeen = freshList();
  add(endBeforeWhatWasSeen, 0, 8);
  expect(add(endBeforeWhatWasSeen, 2, 4, true)).toBe(false);
});

test("any order, with duplicates and overlaps, is complete exactly when a set of units is", () => {
  const span = fc.record({ from: fc.nat(8191), length: fc.integer({ min: 0, max: 40 }), isLast: fc.boolean() });
  const near = fc.record({ from: fc.nat(12), length: fc.integer({ min: 0, max: 6 }), isLast: fc.boolean() });
  const holds = fc.property(fc.array(fc.oneof(near, near, near, span), { maxLength: 20 }), (spans) => {
    const words = freshList();
    const seen = new Set<number>();
    let total = 0;
    let isLost = false;
    for (const { from, length, isLast } of spans) {
      const to = from + length;
      if (to === 0) continue; // no later fragment begins at 0, and a first one is not the last
      isLost ||= total !== 0 && (isLast ? to !== total : to > total);
      for (let unit = from; unit < to; unit++) seen.add(unit);
      if (isLast) total = to;
      const units = [...seen].sort((a, b) => a - b);
      isLost ||= isLast && units.some((unit) => unit >= to);
      isLost ||= units.filter((unit) => !seen.has(unit - 1)).length > CAPACITY;
      expect(add(words, from, to, isLast)).toBe(!isLost && total !== 0 && seen.size === total);
    }
  });
  fc.assert(holds, { numRuns: 2_000 });
});
