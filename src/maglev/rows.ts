import { GlibcRandom } from "./random.js";

/** Permutation rows of N targets over M positions: target i prefers `offset[i] + j * skip[i]` (mod M), j = 0..M-1. */
export type Rows = { readonly offset: Uint32Array; readonly skip: Uint32Array };

/**
 * The rows of nfqlb: offset in 0..M-1, skip in 1..M-1, two random numbers per row from the start of the sequence, so
 * that equal M always gives equal rows and row i does not depend on N.
 *
 * @param size M, a prime ≥ 3
 * @param targets N, 0…M
 * @see nfqueue-loadbalancer 1.2.0 src/lib/maglevdyn.c:40-47
 */
export function rows(size: number, targets: number): Rows {
  const random = new GlibcRandom();
  const offset = new Uint32Array(targets);
  const skip = new Uint32Array(targets);
  for (let i = 0; i < targets; i++) {
    offset[i] = random.next() % size;
    skip[i] = (random.next() % (size - 1)) + 1;
  }
  return { offset, skip };
}
