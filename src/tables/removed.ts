import { readdirSync, readlinkSync, realpathSync } from "node:fs";
import { MappedFile } from "#sys";
import {
  HEADER_BYTES,
  KIND_FLOWS,
  KIND_STREAM,
  LIVE,
  OWN_SLOTS,
  SIZES,
  WORD_KIND,
  WORD_SIZES,
  WORD_STATE,
} from "./layout.js";
import { Region } from "./region.js";
import { hasRegion, isRegion, retire } from "./region-file.js";

const DELETED = " (deleted)";
/** A process finds its own open files here, those whose names are gone as well (proc_pid_fd(5)). */
const OPEN_FILES = "/proc/self/fd";

/** A region that somebody deleted by hand, as with rm(1), while this process had it open. */
export type Removed = {
  readonly name: string;
  /** `put back`, `replaced`, or why it could not be put back. */
  readonly outcome: string;
};

/**
 * Mends regions of this process whose files were deleted by hand: nobody marked those retired, so their users would never
 * look for a new one. A lookup table and rules get their file back, as they are in force; where a new file has the name
 * already, users are told to open that one. Deleting in the proper way ({@link deleteRegion}) is left alone.
 * @returns what was found; of one that could not be put back the reason, and its users go on with what they have
 */
export function mendRemovedRegions(folder: string): readonly Removed[] {
  const prefix = `${realpathSync(folder)}/`;
  const removed: Removed[] = [];
  for (const fd of readdirSync(OPEN_FILES)) {
    const path = `${OPEN_FILES}/${fd}`;
    const target = linkOf(path);
    if (!target.startsWith(prefix) || !target.endsWith(DELETED)) continue;
    const name = target.slice(prefix.length, -DELETED.length);
    if (name.startsWith(".") || name.includes("/")) continue;
    const outcome = mend(folder, name, path);
    if (outcome !== null) removed.push({ name, outcome });
  }
  return removed;
}

/** @returns null when nothing is to be done */
function mend(folder: string, name: string, path: string): string | null {
  let file: MappedFile | null = MappedFile.open(path, { isWritable: true });
  try {
    if (!isRegion(file)) return null;
    const header = new Int32Array(file.buffer, 0, HEADER_BYTES / 4);
    const kind = header[WORD_KIND]!;
    if (Atomics.load(header, WORD_STATE) !== LIVE || (kind !== KIND_STREAM && kind !== KIND_FLOWS)) return null;
    const isReplaced = hasRegion(folder, name) || !putBack(folder, name, Region.of(file, kind));
    retire(file);
    file = null;
    return isReplaced ? "replaced" : "put back";
  } catch (error) {
    return (error as Error).message;
  } finally {
    file?.[Symbol.dispose]();
  }
}

/** @returns false when somebody was faster @throws {CapacityError} */
function putBack(folder: string, name: string, region: Region): boolean {
  const { header, capacity, ownBytes } = region;
  const kind = header[WORD_KIND]!;
  const image = region.image(region.generation);
  const spec = {
    kind,
    imageBytes: capacity,
    sizes: [...header.subarray(WORD_SIZES, WORD_SIZES + SIZES)],
    generation: (region.generation + 2) & ~1, // another number than any before, image 0
    ownBytes,
    mayReplace: false,
    ...(kind === KIND_FLOWS ? { reservedBytes: usedBytes(image) } : {}),
  };
  using copy = Region.create(folder, name, spec, (target) => target.set(image.subarray(0, usedBytes(image))));
  if (copy === null) return false;
  const own = (from: Region) => from.file.u8.subarray(from.ownOffset(0), from.ownOffset(OWN_SLOTS));
  own(copy).set(own(region));
  return true;
}

/** Without the zeros at the end, which may be a hole of the file; 1 at least. */
function usedBytes(image: Uint8Array): number {
  let length = image.length;
  while (length > 1 && image[length - 1] === 0) length--;
  return length;
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return ""; // closed meanwhile
  }
}
