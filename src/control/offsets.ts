import type { Stream } from "#model";

/** fwmarks of a stream: offset + 1 … offset + maxTargets. */
export type OffsetRange = { readonly offset: number; readonly maxTargets: number };

/** By stream name. */
export type Offsets = ReadonlyMap<string, OffsetRange>;

const MAX_FWMARK = 2 ** 31 - 1;
/** Routing tables that are not ours: default, main, local; the frontend's. fwmarks name tables, so they are left out. */
const FOREIGN_TABLES = [253, 254, 255, 4096, 4097];
const FOREIGN: readonly OffsetRange[] = FOREIGN_TABLES.map((table) => ({ offset: table - 1, maxTargets: 1 }));

/** Where new streams go. */
export type OffsetPlacement = {
  /** First offset. */
  readonly start: number;
  /**
   * false: the first gap, as in the reference. true: at a place that follows from the name, so that instances agree
   * whatever they saw before, unless two names claim the same place (100 streams of 100 targets: once in 2,000 fleets).
   */
  readonly isByName: boolean;
};

/** Places that names choose from lie so far apart: marks of one stream then share a few blocks of rules. */
const NAME_STEP = 64;

/**
 * Gives each stream a range of fwmarks: one that is known keeps its offset as long as it lives (also with another
 * maxTargets, if that fits), a new one gets the first gap at or above its place. Ranges never overlap. New streams take gaps
 * in the order of their names, so instances that have seen the streams come and go in the same order agree, whatever the
 * order within an update; decision 0045 says what follows from that.
 * @param known ranges in force
 * @returns the ranges, and the names of streams for which there is no room
 */
export function assignOffsets(
  streams: readonly Stream[],
  known: Offsets,
  { start, isByName }: OffsetPlacement,
): { readonly offsets: Offsets; readonly refused: readonly string[] } {
  const byName = streams.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const offsets = new Map<string, OffsetRange>();
  const keep = (name: string, range: OffsetRange) => {
    const last = range.offset + range.maxTargets;
    const isFree = ![...offsets.values(), ...FOREIGN].some((other) => overlaps(range, other));
    if (isFree && last <= MAX_FWMARK) offsets.set(name, range);
  };
  for (const { name } of byName) {
    const range = known.get(name);
    if (range !== undefined) keep(name, range);
  }
  for (const { name, maxTargets } of byName) {
    const range = offsets.get(name);
    if (range === undefined || range.maxTargets === maxTargets) continue;
    offsets.delete(name);
    keep(name, { offset: range.offset, maxTargets });
  }
  const refused: string[] = [];
  for (const { name, maxTargets } of byName) {
    if (offsets.has(name)) continue;
    const place = isByName ? placeOf(name, start) : start;
    const offset = firstGap(maxTargets, offsets, place) ?? firstGap(maxTargets, offsets, start);
    if (offset === null) refused.push(name);
    else offsets.set(name, { offset, maxTargets });
  }
  return { offsets, refused };
}

function placeOf(name: string, start: number): number {
  const places = Math.max(1, Math.floor((MAX_FWMARK - start) / NAME_STEP));
  return start + (hashOf(name) % places) * NAME_STEP;
}

/** FNV-1a of 32 bits over UTF-8; instances agree by it, so it stays as it is. */
function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash;
}

function firstGap(maxTargets: number, taken: Offsets, start: number): number | null {
  const blocked = [...taken.values(), ...FOREIGN];
  let offset = start;
  for (;;) {
    if (offset < 0 || offset + maxTargets > MAX_FWMARK) return null;
    const obstacle = blocked.find((range) => overlaps({ offset, maxTargets }, range));
    if (obstacle === undefined) return offset;
    offset = obstacle.offset + obstacle.maxTargets;
  }
}

function overlaps(a: OffsetRange, b: OffsetRange): boolean {
  return a.offset < b.offset + b.maxTargets && b.offset < a.offset + a.maxTargets;
}
