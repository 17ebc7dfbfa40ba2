import { readdirSync, statSync } from "node:fs";

/** The kernel tells times by its clock's tick, of 10 ms at most: what changes in the tick of the last change cannot be told by time. */
const TICKS_MS = 50;

/** Names in a folder, read anew only when one has come or gone, for who looks every second. */
export class FolderNames {
  readonly #folder: string;
  #names: ReadonlySet<string> = new Set();
  /** When the folder changed last before it was read; NaN: it has to be read. */
  #changedMs = Number.NaN;

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** The same set as long as none came or went. @throws the ENOENT of stat(2), and the like */
  read(): ReadonlySet<string> {
    const { mtimeMs } = statSync(this.#folder); // before the names: what changes meanwhile is seen the next time
    if (mtimeMs === this.#changedMs) return this.#names;
    this.#names = new Set(readdirSync(this.#folder));
    this.#changedMs = Date.now() - mtimeMs > TICKS_MS ? mtimeMs : Number.NaN;
    return this.#names;
  }
}
