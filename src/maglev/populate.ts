import type { Rows } from "./rows.js";

/**
 * Fills `lookup` so that each active target owns about M / active positions.
 *
 * M is `lookup.length`, a prime up to 993997; N is `active.length`. Target i prefers the positions
 * offset[i] + j * skip[i] (mod M), j = 0..M-1. `active[i]` is the fwmark of target i, or negative. Afterwards
 * `lookup[p]` is a target index in 0..N-1, or -1 everywhere when no target is active.
 *
 * Depends on which indices are active, not on their fwmarks nor on the order in which they came. Arithmetic is exact
 * (nfqlb's wraps at 32 bits from M = 65537 on). About M log M steps on average; allocates 2 N words.
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
  const targets = new Uint32Array(active.length);
  let count = 0;
  for (let i = 0; i < active.length; i++) if (active[i]! >= 0) targets[count++] = i;
  if (count === 0) return;
  const position = offset.slice();
  for (let filled = 0; ; ) {
    for (let k = 0; k < count; k++) {
      const target = targets[k]!;
      const step = skip[target]!;
      let at = position[target]!;
      while (lookup[at] !== -1) {
        at += step;
        if (at >= size) at -= size;
      }
      lookup[at] = target;
      at += step;
      position[target] = at >= size ? at - size : at;
      filled++;
      if (filled === size) return;
    }
  }
}
