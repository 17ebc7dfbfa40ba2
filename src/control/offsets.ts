import type { Stream } from "#model";

/** fwmarks of a stream: offset + 1 … offset + maxTargets. */
export type OffsetRange = { readonly offset: number; readonly maxTargets: number };

/** By stream name. */
export type Offsets = ReadonlyMap<string, OffsetRange>;

const MAX_FWMARK = 2 ** 31 - 1;
/** Routing tables that are not ours: default, main, local; the frontend's. fwmarks name tables, so they are left out. */
const FOREIGN_TABLES = [253, 254, 255, 4096, 4097];

/**
 * Gives each stream a range of fwmarks: one that is known keeps its range as long as it lives, a new one gets the first
 * gap at or above `start`. Ranges never overlap. Independent of the order of new streams but for equal gaps: they are
 * taken in the order of names, so that instances that learn streams together agree.
 * @param known ranges in force
 * @returns the ranges, and the names of streams for which there is no room
 */
export function assignOffsets(
  streams: readonly Stream[],
  known: Offsets,
  start: number,
): { readonly offsets: Offsets; readonly refused: readonly string[] } {
  const offsets = new Map<string, OffsetRange>();
  for (const { name, maxTargets } of streams) {
    const range = known.get(name);
    if (range !== undefined && range.maxTargets === maxTargets && !overlapsAny(range, offsets))
      offsets.set(name, range);
  }
  const refused: string[] = [];
  for (const { name, maxTargets } of streams.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
    if (offsets.has(name)) continue;
    const offset = firstGap(maxTargets, offsets, start);
    if (offset === null) refused.push(name);
    else offsets.set(name, { offset, maxTargets });
  }
  return { offsets, refused };
}

function firstGap(maxTargets: number, taken: Offsets, start: number): number | null {
  const blocked = [...taken.values(), ...FOREIGN_TABLES.map((table) => ({ offset: table - 1, maxTargets: 1 }))];
  let offset = start;
  for (;;) {
    if (offset < 0 || offset + maxTargets > MAX_FWMARK) return null;
    const obstacle = blocked.find((range) => overlaps({ offset, maxTargets }, range));
    if (obstacle === undefined) return offset;
    offset = obstacle.offset + obstacle.maxTargets;
  }
}

function overlapsAny(range: OffsetRange, others: Offsets): boolean {
  return [...others.values()].some((other) => overlaps(range, other));
}

function overlaps(a: OffsetRange, b: OffsetRange): boolean {
  return a.offset < b.offset + b.maxTargets && b.offset < a.offset + a.maxTargets;
}
