import { closeSync, mkdtempSync, openSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { tryLockRange } from "#sys";

const PREFIX = "stateless-lb-";
/** What mkdtemp adds to the prefix. */
const SUFFIX_LENGTH = 6;
const LOCK = "lock";

/** A folder of this process alone, mode 0700, for sockets between its halves. Disposing removes it. */
export class PrivateFolder implements Disposable {
  readonly path: string;
  readonly #lock: number;

  /**
   * Makes the folder, and removes those that killed processes left: a lock in each dies with its owner.
   * @param parent the system's folder for temporary files, if nothing else is said
   * @throws the EACCES, EROFS, ENOSPC … of mkdtemp(3)
   */
  constructor(parent = tmpdir()) {
    for (const name of readdirSync(parent)) {
      if (name.startsWith(PREFIX) && name.length === PREFIX.length + SUFFIX_LENGTH) removeIfLeft(join(parent, name));
    }
    this.path = mkdtempSync(join(parent, PREFIX));
    this.#lock = openSync(join(this.path, LOCK), "wx+", 0o600);
    tryLockRange(this.#lock, 0, 1); // nobody else knows the file
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
    closeSync(this.#lock);
  }
}

/** One that is being made has no lock yet, so a folder without a lock file stays; as does one of another user. */
function removeIfLeft(path: string): void {
  let lock: number;
  try {
    lock = openSync(join(path, LOCK), "r+");
  } catch {
    return;
  }
  try {
    if (tryLockRange(lock, 0, 1)) rmSync(path, { recursive: true, force: true });
  } catch {
    // Gone meanwhile, or not ours to remove: it does no harm.
  } finally {
    closeSync(lock);
  }
}
