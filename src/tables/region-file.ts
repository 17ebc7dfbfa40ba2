import { fstatSync, lstatSync, readdirSync, renameSync, statSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { exchangeNames, MappedFile, renameUnlessTaken, SysError, tryLockRange, unlockRange } from "#sys";
import {
  CapacityError,
  HEADER_BYTES,
  LayoutError,
  LOCK_NEW,
  MAGIC,
  RETIRED,
  WORD_KIND,
  WORD_MAGIC,
  WORD_STATE,
} from "./layout.js";

const MAX_NAME_BYTES = 200;
/** Files begin with this until they are whole and have their name, and once they have lost it until they are deleted. */
const NAMELESS = ".nfqlb-new.";
/** A file of that kind which nobody has locked for so long was left by a program that was killed. */
const LEFT_BEHIND_MS = 10_000;

/** Path of a region. @throws {LayoutError} `name` is no plain file name of 1…200 bytes */
export function regionPath(folder: string, name: string): string {
  if (!/^[^/\0]+$/.test(name) || name.startsWith(".") || Buffer.byteLength(name) > MAX_NAME_BYTES) {
    throw new LayoutError(
      join(folder, name),
      `a name has 1..${MAX_NAME_BYTES} bytes, no "/", and does not begin with "."`,
    );
  }
  return join(folder, name);
}

/** Whether there is a file of that name; false for what cannot be a name. */
export function hasRegion(folder: string, name: string): boolean {
  try {
    return statSync(regionPath(folder, name)).isFile();
  } catch {
    return false;
  }
}

/**
 * A new file of zeros that has no name of its own yet; {@link putInPlace} gives it one, {@link discard} ends it.
 * @param reservedBytes so many of the first bytes have their memory: a page that cannot be had when it is touched would
 *   end the process (SIGBUS)
 * @throws {CapacityError} the folder has no room for them
 */
export function makeNameless(folder: string, name: string, length: number, reservedBytes: number): MappedFile {
  const path = regionPath(folder, name);
  removeLeftBehind(folder);
  const nameless = namelessPath(folder, name);
  try {
    const file = MappedFile.create(nameless, length, { reservedBytes });
    tryLockRange(file.fd, LOCK_NEW, 1);
    return file;
  } catch (error) {
    if (!(error instanceof SysError && error.errno === "ENOSPC")) throw error;
    throw new CapacityError(path, `no room for ${reservedBytes} bytes in ${folder} (ENOSPC)`);
  }
}

/**
 * Gives a file its name. One that had it is retired and deleted: whoever has that mapped keeps it whole and unchanged.
 * @param mayReplace if not, one that has the name keeps it
 * @returns whether the file has the name now
 */
export function putInPlace(file: MappedFile, path: string, mayReplace: boolean): boolean {
  const nameless = file.path;
  const isTaken = () => {
    if (lstatSync(path, { throwIfNoEntry: false })?.isDirectory())
      throw new LayoutError(path, "a folder has that name");
    try {
      return !renameUnlessTaken(nameless, path);
    } catch (error) {
      if (!isIncapable(error)) throw error;
      return replaceInTwoSteps(nameless, path, mayReplace);
    }
  };
  for (;;) {
    if (!isTaken()) break;
    if (!mayReplace) return false;
    if (!exchangeNames(nameless, path)) continue; // deleted at this moment
    retireAndDelete(nameless);
    break;
  }
  file.path = path;
  unlockRange(file.fd, LOCK_NEW, 1);
  return true;
}

/** For file systems that can only rename: between its two steps somebody else may replace the file, too. */
function replaceInTwoSteps(nameless: string, path: string, mayReplace: boolean): boolean {
  const before = openAny(path);
  if (before !== null && !mayReplace) {
    before[Symbol.dispose]();
    return true;
  }
  renameSync(nameless, path);
  retire(before);
  return false;
}

/** Ends a file that did not get its name. */
export function discard(file: MappedFile): void {
  unlinkIfThere(file.path);
  file[Symbol.dispose]();
}

/** Whether a region of ours has that name, but of another kind; nothing, or a file of somebody else, is none. */
export function isOtherKind(folder: string, name: string, kind: number): boolean {
  const file = openAny(regionPath(folder, name));
  if (file === null) return false;
  const isOther = isRegion(file) && file.view.getUint32(WORD_KIND * 4, true) !== kind;
  file[Symbol.dispose]();
  return isOther;
}

/** Deletes a region; readers see it retired. @returns false when there was none */
export function deleteRegion(folder: string, name: string): boolean {
  const path = regionPath(folder, name);
  const nameless = namelessPath(folder, name);
  try {
    renameSync(path, nameless); // in one step: a new file that takes the name at this moment is not meant
  } catch (error) {
    if ((error as { code?: string }).code === "ENOENT") return false;
    throw error;
  }
  retireAndDelete(nameless);
  return true;
}

/** The file of a path, whatever it is, or null; a region in it can be retired. */
export function openAny(path: string): MappedFile | null {
  try {
    return MappedFile.open(path, { isWritable: true });
  } catch {
    return null;
  }
}

/** Tells whoever has the region mapped to open it anew by its name, and ends our use of it. */
export function retire(file: MappedFile | null): void {
  if (file === null) return;
  if (isRegion(file)) Atomics.store(new Int32Array(file.buffer, 0, HEADER_BYTES / 4), WORD_STATE, RETIRED);
  file[Symbol.dispose]();
}

/** Whether the file begins as regions of all layout versions do. */
export function isRegion(file: MappedFile): boolean {
  return file.length >= HEADER_BYTES && file.view.getUint32(WORD_MAGIC * 4, true) === MAGIC;
}

/** Whether the file still has the name that it was opened by. */
export function hasItsName(file: MappedFile): boolean {
  const ours = fstatSync(file.fd);
  const named = statSync(file.path, { throwIfNoEntry: false });
  return named !== undefined && named.ino === ours.ino && named.dev === ours.dev;
}

function retireAndDelete(path: string): void {
  retire(openAny(path));
  unlinkIfThere(path);
}

/** Files of programs that were killed while they made or deleted a region. */
function removeLeftBehind(folder: string): void {
  for (const entry of readdirSync(folder)) {
    if (!entry.startsWith(NAMELESS)) continue;
    const path = join(folder, entry);
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat === undefined || Date.now() - stat.mtimeMs < LEFT_BEHIND_MS) continue;
    const file = openAny(path);
    if (file === null) continue;
    if (tryLockRange(file.fd, LOCK_NEW, 1)) {
      retire(file);
      unlinkIfThere(path);
    } else file[Symbol.dispose]();
  }
}

function namelessPath(folder: string, name: string): string {
  return join(folder, `${NAMELESS}${name}.${process.pid}.${process.hrtime.bigint()}`);
}

function unlinkIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as { code?: string }).code !== "ENOENT") throw error;
  }
}

function isIncapable(error: unknown): boolean {
  return error instanceof SysError && (error.errno === "EINVAL" || error.errno === "ENOSYS");
}
