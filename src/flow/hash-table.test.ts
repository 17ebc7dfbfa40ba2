import { expect, test } from "vitest";
import { randomNumbers } from "../../test/harness/random.js";
import { hashTable } from "./hash-table.js";
import { lookUpHash } from "./match.js";
import { HASH_PROBES } from "./program.js";

const OTHERWISE = 9_999_999;
const FACTOR = 0x9e37_79b1;

/** What times the first multiplier is 1 (mod 2^32). */
function inverse(): number {
  let result = 1;
  for (let i = 0; i < 5; i++) result = Math.imul(result, 2 - Math.imul(FACTOR, result));
  return result;
}

const random = randomNumbers(1);
const SETS: Record<string, readonly number[]> = {
  "no value": [],
  "one value": [0],
  "values one after the other": Array.from({ length: 5_000 }, (_, i) => i | 0),
  "values a page apart": Array.from({ length: 5_000 }, (_, i) => (i << 8) | 1),
  "random values": [...new Set(Array.from({ length: 5_000 }, () => random(2 ** 32) | 0))],
  "values that collide under the first multiplier": Array.from({ length: 5_000 }, (_, i) => Math.imul(inverse(), i)),
};

test.each(Object.entries(SETS))("a hash table finds each of %s, and nothing else, in few probes", (_, values) => {
  const children = values.map((_value, i) => i + 1);
  const table = hashTable(values, children, OTHERWISE);
  expect(values.map((value) => lookUpHash(table, 0, value))).toEqual(children);
  const known = new Set(values);
  for (let i = 0; i < 10_000; i++) {
    const other = random(2 ** 32) | 0;
    if (!known.has(other)) expect(lookUpHash(table, 0, other)).toBe(OTHERWISE);
  }
  expect(table[HASH_PROBES]).toBeLessThanOrEqual(24);
  expect(table.length).toBeLessThan(16 + 8 * values.length + 4 * 48);
});
