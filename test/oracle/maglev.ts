import { rows } from "#maglev";

/**
 * Maglev's lookup table by the paper's pseudocode 1 (NSDI 2016, section 3.4): whole permutations, written out, and the
 * targets take turns. `active[i]` is the fwmark of target i or -1. @returns position → target index, -1 = none
 */
export function plainLookup(size: number, active: readonly number[]): readonly number[] {
  const { offset, skip } = rows(size, active.length);
  const taking = active.flatMap((fwmark, i) => (fwmark < 0 ? [] : [i]));
  const permutations = taking.map((i) => Array.from({ length: size }, (_, j) => (offset[i]! + j * skip[i]!) % size));
  const entry = Array<number>(size).fill(-1);
  if (taking.length === 0) return entry;
  const next = taking.map(() => 0);
  for (let filled = 0; ; ) {
    for (const [turn, target] of taking.entries()) {
      while (entry[permutations[turn]![next[turn]!]!]! >= 0) next[turn]!++;
      entry[permutations[turn]![next[turn]!]!] = target;
      if (++filled === size) return entry;
    }
  }
}
