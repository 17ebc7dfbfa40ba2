const LAST_PORT = 65_535;

/** Ports from `first[i]` up to the next one belong to rule `owner[i]`, or to none: -1. */
export type Painted = { readonly first: Int32Array; readonly owner: Int32Array };

/**
 * Gives each port to the first rule that takes it.
 * @param rules in evaluation order; @param rangesOf first << 16 | last each, or null: every port
 * @param hides whether a rule keeps the ones behind it from its ports; one that does not is only added to `seen`
 * @param seen gets the rules that some packet may reach
 */
export function paint(
  rules: readonly number[],
  rangesOf: (rule: number) => Int32Array | null,
  hides: (rule: number) => boolean,
  seen: number[],
): Painted {
  const first = bordersOf(rules, rangesOf);
  const owner = new Int32Array(first.length).fill(-1);
  const next = new Int32Array(first.length + 1); // the next interval that nobody has, by way of some that are taken
  for (let i = 0; i < next.length; i++) next[i] = i;
  const free = (from: number) => {
    let at = from;
    while (next[at] !== at) {
      next[at] = next[next[at]!]!;
      at = next[at]!;
    }
    return at;
  };
  let left = first.length;
  for (const rule of rules) {
    if (left === 0) break;
    const ranges = rangesOf(rule);
    const count = ranges === null ? 1 : ranges.length;
    let isSeen = false;
    for (let i = 0; i < count; i++) {
      const range = ranges === null ? LAST_PORT : ranges[i]!;
      const last = range & 0xffff;
      let at = free(placeOf(first, range >>> 16));
      if (at === first.length || first[at]! > last) continue;
      isSeen = true;
      if (!hides(rule)) break;
      for (; at < first.length && first[at]! <= last; at = free(at)) {
        owner[at] = rule;
        next[at] = at + 1;
        left--;
      }
    }
    if (isSeen) seen.push(rule);
  }
  return { first, owner };
}

/** Index of the last border that is not above a port. */
function placeOf(first: Int32Array, port: number): number {
  let low = 0;
  let high = first.length;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (first[middle]! <= port) low = middle;
    else high = middle;
  }
  return low;
}

/** The ports at which a range begins or the one before it has ended, ascending, 0 among them. */
function bordersOf(rules: readonly number[], rangesOf: (rule: number) => Int32Array | null): Int32Array {
  let count = 1;
  for (const rule of rules) count += 2 * (rangesOf(rule)?.length ?? 0);
  const borders = new Int32Array(count);
  let at = 1;
  for (const rule of rules) {
    const ranges = rangesOf(rule);
    if (ranges === null) continue;
    for (let i = 0; i < ranges.length; i++) {
      borders[at++] = ranges[i]! >>> 16;
      borders[at++] = (ranges[i]! & 0xffff) + 1;
    }
  }
  if (count > LAST_PORT) return distinctPorts(borders);
  borders.sort();
  let kept = 1;
  for (let i = 1; i < count && borders[i]! <= LAST_PORT; i++) {
    if (borders[i] !== borders[kept - 1]) borders[kept++] = borders[i]!;
  }
  return borders.subarray(0, kept);
}

/** The ports among many numbers, ascending, each once. */
function distinctPorts(numbers: Int32Array): Int32Array {
  const has = new Uint8Array(LAST_PORT + 2);
  for (let i = 0; i < numbers.length; i++) has[numbers[i]!] = 1;
  const ports = new Int32Array(LAST_PORT + 1);
  let kept = 0;
  for (let port = 0; port <= LAST_PORT; port++) if (has[port] === 1) ports[kept++] = port;
  return ports.subarray(0, kept);
}
