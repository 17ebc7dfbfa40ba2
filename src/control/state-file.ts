import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { OffsetRange, Offsets } from "./offsets.js";

/** Beside the table images, so it lives exactly as long as they do. */
const NAME = "stateless-lb.json";

/** The fwmark ranges that an earlier run gave out, or none: tables in force depend on them. */
export function readOffsets(folder: string): Offsets {
  try {
    const { offsets } = JSON.parse(readFileSync(join(folder, NAME), "utf8")) as {
      offsets: Record<string, OffsetRange>;
    };
    const isRange = ({ offset, maxTargets }: OffsetRange) =>
      Number.isInteger(offset) && Number.isInteger(maxTargets) && offset >= 0 && maxTargets > 0;
    return new Map(Object.entries(offsets).filter(([, range]) => isRange(range)));
  } catch {
    return new Map();
  }
}

/** Writes the ranges; a crash leaves the old file or the new one. */
export function writeOffsets(folder: string, offsets: Offsets): void {
  const path = join(folder, NAME);
  writeFileSync(`${path}.new`, `${JSON.stringify({ offsets: Object.fromEntries(offsets) })}\n`, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}
