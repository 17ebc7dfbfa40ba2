import { closeSync, constants, futimesSync, openSync, readFileSync, statSync, writeSync } from "node:fs";
import { join } from "node:path";
import { isRangeLocked, tryLockRange } from "#sys";

const NAME = "stateless-lb.lock";
/** The owner's sign of life is the file's time; so old it is at most. */
const BEAT_MS = 2_000;

/** Whether a control plane works on a folder, and when it was last heard of. */
export type Life = { readonly isAlive: boolean; readonly lastSeen: Date };

/**
 * The right to be the control plane of a folder: a lock that dies with its holder, and the sign of life for those who
 * ask. Two control planes on one folder would undo each other's work.
 */
export class ControlLock implements Disposable {
  readonly #fd: number;
  readonly #timer: NodeJS.Timeout;

  private constructor(fd: number) {
    this.#fd = fd;
    writeSync(fd, `${process.pid}\n`.padEnd(16), 0);
    this.#timer = setInterval(() => this.#beat(), BEAT_MS).unref();
  }

  /** @returns null: another process holds it */
  static take(folder: string): ControlLock | null {
    const fd = openSync(join(folder, NAME), constants.O_RDWR | constants.O_CREAT, 0o600);
    if (tryLockRange(fd, 0, 1)) return new ControlLock(fd);
    closeSync(fd);
    return null;
  }

  #beat(): void {
    const now = new Date();
    futimesSync(this.#fd, now, now);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#beat();
    closeSync(this.#fd);
  }
}

/** null: none has ever worked on this folder. */
export function readLife(folder: string): Life | null {
  let fd: number;
  try {
    fd = openSync(join(folder, NAME), "r");
  } catch (error) {
    if ((error as { code?: string }).code === "ENOENT") return null;
    throw error;
  }
  try {
    return { isAlive: isRangeLocked(fd, 0, 1), lastSeen: statSync(join(folder, NAME)).mtime };
  } finally {
    closeSync(fd);
  }
}

/** Pid of the control plane that holds the folder, as it wrote it; for messages. */
export function holderOf(folder: string): string {
  return readFileSync(join(folder, NAME), "utf8").trim();
}
