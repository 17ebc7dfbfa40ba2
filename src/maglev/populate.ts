import type { Rows } from "./rows.js";

/**
 * Fills `lookup` so that each active target owns about M / active positions.
 *
 * M is `lookup.length`, a prime up to 993997; N is `active.length`. Target i prefers the positions
 * offset[i] + j * skip[i] (mod M), j = 0..M-1. `active[i]` is the fwmark of target i, or negative. Afterwards
 * `lookup[p]` is a target index in 0..N-1, or -1 everywhere when no target is active.
 *
 * Depends on which indices are active, not on their fwmarks nor on the order in which they came. Arithmetic is exact
 * (nfqlb's wraps at 32 bits from M = 65537 on). Targets take turns; each takes the first position that it prefers and
 * nobody has. While many are free that is found by walking along its row, about M log M / 2 steps in all; the last ones,
 * fewer than √M / 2, are asked where they stand in its row. Allocates M bytes and 3 N words.
 *
 * @throws {RangeError} offset, skip and active differ in length
 * @see Maglev (NSDI 2016), section 3.4, pseudocode 1
 * @see nfqueue-loadbalancer 1.2.0 src/lib/maglevdyn.c:76-108
 */
export function populate(lookup: Int32Array, { offset, skip }: Rows, active: Int32Array): void {
  const size = lookup.length;
  if (offset.length !== active.length || skip.length !== active.length) {
    throw new RangeError(`populate: ${offset.length} offsets, ${skip.length} skips, ${active.length} targets`);
  }
  lookup.fill(-1);
  const targets = new Int32Array(active.length);
  const position = new Int32Array(active.length);
  const steps = new Int32Array(active.length); // less M: a sum below 0 has not wrapped, and gets M back without a branch
  let count = 0;
  for (let i = 0; i < active.length; i++) {
    if (active[i]! < 0) continue;
    targets[count] = i;
    position[count] = offset[i]!;
    steps[count++] = skip[i]! - size;
  }
  if (count === 0) return;
  const isTaken = new Uint8Array(size); // a quarter of the table's memory, and near: it is looked at in no order
  const few = Math.floor(Math.sqrt(size) / 2);
  let k = 0;
  for (let free = size; free > few; free--) {
    const step = steps[k]!;
    let at = position[k]!;
    while (isTaken[at] !== 0) {
      at = (at + step) | 0;
      at = (at + ((at >> 31) & size)) | 0;
    }
    isTaken[at] = 1;
    lookup[at] = targets[k]!;
    at = (at + step) | 0;
    position[k] = at + ((at >> 31) & size);
    if (++k === count) k = 0;
  }
  fillLast(lookup, { targets: targets.subarray(0, count), position, steps }, k);
}

type Walkers = { readonly targets: Int32Array; readonly position: Int32Array; readonly steps: Int32Array };

/** The last free positions, from the turn of target `first` on; all of them come behind `position[k]` in the row of target k. */
function fillLast(lookup: Int32Array, { targets, position, steps }: Walkers, first: number): void {
  const size = lookup.length;
  const free: number[] = [];
  for (let at = lookup.indexOf(-1); at >= 0; at = lookup.indexOf(-1, at + 1)) free.push(at);
  for (let k = first; free.length > 0; k = (k + 1) % targets.length) {
    const from = position[k]!;
    const perStep = inverse(steps[k]! + size, size);
    let next = 0;
    let fewest = size;
    for (let i = 0; i < free.length; i++) {
      const product = ((free[i]! - from + size) % size) * perStep; // below 10^12: exact
      const stepsAway = product - Math.floor(product / size) * size;
      if (stepsAway >= fewest) continue;
      fewest = stepsAway;
      next = i;
    }
    lookup[free[next]!] = targets[k]!;
    free[next] = free.at(-1)!;
    free.pop();
  }
}

/** The number whose product with `value` is 1 modulo the prime `size`; value in 1…size-1. Extended Euclid. */
function inverse(value: number, size: number): number {
  let rest = size;
  let divisor = value;
  let before = 0;
  let factor = 1;
  while (divisor !== 0) {
    const quotient = Math.floor(rest / divisor);
    const nextDivisor = rest - quotient * divisor;
    rest = divisor;
    divisor = nextDivisor;
    const nextFactor = before - quotient * factor;
    before = factor;
    factor = nextFactor;
  }
  return before < 0 ? before + size : before;
}
