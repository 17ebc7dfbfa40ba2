import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { OffsetPlacement, OffsetRange, Offsets } from "./offsets.js";

/** Beside the table images, so it lives exactly as long as they do. */
const NAME = "stateless-lb.json";

/** What an earlier run left. */
export type SavedOffsets = {
  readonly offsets: Offsets;
  /** How it placed new streams, or null: it did not say. */
  readonly placement: OffsetPlacement | null;
};

/** The fwmark ranges that an earlier run gave out, or none: tables in force depend on them. */
export function readOffsets(folder: string): SavedOffsets {
  try {
    const { offsets, placement } = JSON.parse(readFileSync(join(folder, NAME), "utf8")) as {
      offsets: Record<string, OffsetRange>;
      placement?: OffsetPlacement;
    };
    const isRange = ({ offset, maxTargets }: OffsetRange) =>
      Number.isInteger(offset) && Number.isInteger(maxTargets) && offset >= 0 && maxTargets > 0;
    const ranges = Object.entries(offsets).filter(([, range]) => isRange(range));
    return { offsets: new Map(ranges), placement: placement ?? null };
  } catch {
    return { offsets: new Map(), placement: null };
  }
}

/** Writes the ranges; a crash leaves the old file or the new one. */
export function writeOffsets(folder: string, offsets: Offsets, placement: OffsetPlacement): void {
  const path = join(folder, NAME);
  const content = { offsets: Object.fromEntries(offsets), placement };
  writeFileSync(`${path}.new`, `${JSON.stringify(content)}\n`, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}
