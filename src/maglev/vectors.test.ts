import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { effectiveSize, GlibcRandom, populate, primeBelow, rows } from "./index.js";

type Table = { active: Record<string, number>; defect?: string; correct?: Derived } & Derived;
type Derived = { lookup_sha256_i32le: string; lookup_first25: number[]; lookup?: number[] };
type Entry = {
  M_requested: number;
  M: number;
  N: number;
  rows: { offset: number; skip: number; first8: number[] }[];
  permutation_sha256_u32le: string;
  defect?: string;
  correct?: { permutation_sha256_u32le: string };
  tables: Table[];
};

const vectors = JSON.parse(
  readFileSync(new URL("../../test/vectors/nfqlb/nfqlb-vectors.json", import.meta.url), "utf8"),
) as {
  rand: { glibc_first20: number[]; glibc_first1000_decimal_lines_sha256: string };
  fingerprint_init_default_activate_101_102_103_lookup_first25: { glibc: number[] };
  primebelow: Record<string, number>;
  maglev: Entry[];
};

const sha256 = (data: Uint8Array | string) => createHash("sha256").update(data).digest("hex");
const bytesOf = (words: Int32Array | Uint32Array) => new Uint8Array(words.buffer, words.byteOffset, words.byteLength);

function lookupOf(size: number, targets: number, active: Record<string, number>): Int32Array {
  const fwmarks = new Int32Array(targets).fill(-1);
  for (const [index, fwmark] of Object.entries(active)) fwmarks[Number(index)] = fwmark;
  const lookup = new Int32Array(size);
  populate(lookup, rows(size, targets), fwmarks);
  return lookup;
}

test("GlibcRandom gives glibc's rand() with seed 1", () => {
  const random = new GlibcRandom();
  const numbers = Array.from({ length: 1000 }, () => random.next());
  expect(numbers.slice(0, 20)).toEqual(vectors.rand.glibc_first20);
  expect(sha256(numbers.map((n) => `${n}\n`).join(""))).toBe(vectors.rand.glibc_first1000_decimal_lines_sha256);
});

test("the default table with targets 101 102 103 has the fingerprint of nfqlb's release", () => {
  const lookup = lookupOf(997, 32, { 0: 101, 1: 102, 2: 103 });
  const { glibc } = vectors.fingerprint_init_default_activate_101_102_103_lookup_first25;
  expect([...lookup.subarray(0, 25)]).toEqual(glibc);
});

test("primeBelow gives nfqlb's primes", () => {
  expect(Object.keys(vectors.primebelow)).toHaveLength(32);
  for (const [n, prime] of Object.entries(vectors.primebelow)) expect(primeBelow(Number(n)), n).toBe(prime);
});

test("the vector file is complete", () => {
  expect(vectors.maglev).toHaveLength(17);
  expect(vectors.maglev.flatMap(({ tables }) => tables)).toHaveLength(53);
});

test.each(vectors.maglev)("rows and tables are nfqlb's, or the right ones: M=$M_requested N=$N", (entry) => {
  expect(effectiveSize(entry.M_requested)).toBe(entry.M);
  const { offset, skip } = rows(entry.M, entry.N);
  for (const [i, row] of entry.rows.entries()) expect([offset[i], skip[i]]).toEqual([row.offset, row.skip]);
  const permutation = createHash("sha256");
  const words = new Uint32Array(entry.M);
  for (let i = 0; i < entry.N; i++) {
    let at = offset[i]!;
    for (let j = 0; j < entry.M; j++) {
      words[j] = at;
      at = (at + skip[i]!) % entry.M;
    }
    permutation.update(bytesOf(words));
  }
  expect(permutation.digest("hex")).toBe((entry.correct ?? entry).permutation_sha256_u32le);
  for (const table of entry.tables) {
    const lookup = lookupOf(entry.M, entry.N, table.active);
    const want = table.correct ?? table;
    expect(sha256(bytesOf(lookup))).toBe(want.lookup_sha256_i32le);
    expect([...lookup.subarray(0, 25)]).toEqual(want.lookup_first25);
    if (want.lookup !== undefined) expect([...lookup]).toEqual(want.lookup);
  }
});
