import fc from "fast-check";
import { expect, test } from "vitest";
import { effectiveSize, MAX_SIZE, populate, rows } from "./index.js";

function lookupOf(size: number, active: Int32Array): Int32Array {
  const lookup = new Int32Array(size);
  populate(lookup, rows(size, active.length), active);
  return lookup;
}

const activeOf = (targets: number, indices: Iterable<number>) => {
  const active = new Int32Array(targets).fill(-1);
  for (const index of indices) active[index] = 5001 + index;
  return active;
};

function counts(lookup: Int32Array): Map<number, number> {
  const result = new Map<number, number>();
  for (const index of lookup) result.set(index, (result.get(index) ?? 0) + 1);
  return result;
}

test("every position has an active target, and their shares differ by one position at most", () => {
  const sets = fc.uniqueArray(fc.nat(99), { minLength: 1, maxLength: 100 });
  const holds = fc.property(sets, (indices) => {
    const shares = counts(lookupOf(9973, activeOf(100, indices)));
    expect([...shares.keys()].sort((a, b) => a - b)).toEqual([...indices].sort((a, b) => a - b));
    expect(Math.max(...shares.values()) - Math.min(...shares.values())).toBeLessThanOrEqual(1);
  });
  fc.assert(holds, { numRuns: 50 });
});

/** As the paper says it: each target in turn takes the first position of its row that nobody has. */
function plainLookup(size: number, active: Int32Array): Int32Array {
  const { offset, skip } = rows(size, active.length);
  const lookup = new Int32Array(size).fill(-1);
  const next = new Uint32Array(active.length);
  const targets = [...active.keys()].filter((index) => active[index]! >= 0);
  for (let turn = 0, left = targets.length === 0 ? 0 : size; left > 0; left--, turn++) {
    const target = targets[turn % targets.length]!;
    let at: number;
    do at = (offset[target]! + next[target]!++ * skip[target]!) % size;
    while (lookup[at]! >= 0);
    lookup[at] = target;
  }
  return lookup;
}

test("the table is that of the paper's plain loop, whatever the size and whoever is active", () => {
  const table = fc.record({
    asked: fc.integer({ min: 1, max: 3_000 }),
    isThere: fc.array(fc.boolean(), { maxLength: 60 }),
  });
  const holds = fc.property(table, ({ asked, isThere }) => {
    const size = effectiveSize(asked);
    const active = Int32Array.from(isThere.slice(0, size), (one, index) => (one ? 5_001 + index : -1));
    expect(lookupOf(size, active)).toEqual(plainLookup(size, active));
  });
  fc.assert(holds, { numRuns: 60 });
  const [size, targets] = [effectiveSize(100_000), 1_000];
  const most = activeOf(
    targets,
    Array.from({ length: targets }, (_, index) => index).filter((index) => index % 91 !== 7),
  );
  expect(lookupOf(size, most)).toEqual(plainLookup(size, most));
});

test("without an active target every position is -1", () => {
  expect([...counts(lookupOf(97, activeOf(10, [])))]).toEqual([[-1, 97]]);
});

test("the table depends on which indices are active, not on their fwmarks", () => {
  const some = activeOf(100, [1, 5, 50]);
  expect(
    lookupOf(
      9973,
      some.map((fwmark) => (fwmark < 0 ? fwmark : fwmark + 7_000)),
    ),
  ).toEqual(lookupOf(9973, some));
});

test.each([
  { targets: 4, most: 0.02 },
  { targets: 10, most: 0.05 },
  { targets: 100, most: 0.03 },
])("when one of $targets targets goes, few of the others' positions move", ({ targets, most }) => {
  const all = Array.from({ length: targets }, (_, i) => i);
  const before = lookupOf(9973, activeOf(targets, all));
  for (const gone of [0, targets >> 1, targets - 1]) {
    const after = lookupOf(
      9973,
      activeOf(
        targets,
        all.filter((index) => index !== gone),
      ),
    );
    const moved = before.filter((index, position) => index !== gone && index !== after[position]).length;
    expect(moved / 9973).toBeLessThanOrEqual(most);
  }
});

test.each([3, 97, 65_537, MAX_SIZE])("every row is a permutation, also where 32 bits would wrap: M=%i", (size) => {
  const { offset, skip } = rows(size, Math.min(size, 12));
  for (let i = 0; i < offset.length; i++) {
    const seen = new Uint8Array(size);
    for (let j = 0, at = offset[i]!; j < size; j++, at = (at + skip[i]!) % size) seen[at] = 1;
    expect(seen.every((one) => one === 1)).toBe(true);
  }
});

test("a million positions and ten thousand targets are filled without overflow", () => {
  const size = effectiveSize(1_000_000);
  const shares = counts(
    lookupOf(
      size,
      activeOf(
        10_000,
        Array.from({ length: 10_000 }, (_, i) => i),
      ),
    ),
  );
  expect(shares.size).toBe(10_000);
  expect(Math.max(...shares.values()) - Math.min(...shares.values())).toBeLessThanOrEqual(1);
});

test("rows and targets of different number are refused", () => {
  expect(() => populate(new Int32Array(97), rows(97, 3), new Int32Array(4))).toThrow(RangeError);
});
