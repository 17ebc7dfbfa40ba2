import { fstatSync } from "node:fs";
import { isRangeLocked, MappedFile, SysError, tryLockRange, unlockRange } from "#sys";
import {
  CapacityError,
  DOUBLE_PUBLISHED_MS,
  HEADER_BYTES,
  LAYOUT_VERSIONS,
  LayoutError,
  LIVE,
  LOCK_SLOTS,
  LOCK_WRITER,
  MAGIC,
  OWN_SLOTS,
  PAGE_BYTES,
  SIZES,
  SLOT_WORD,
  SLOTS,
  slotValue,
  WORD_CAPACITY,
  WORD_GENERATION,
  WORD_KIND,
  WORD_MAGIC,
  WORD_OWN_BYTES,
  WORD_SIZES,
  WORD_STATE,
  WORD_VERSION,
} from "./layout.js";
import { discard, hasItsName, makeNameless, putInPlace, regionPath } from "./region-file.js";

/** How long a writer waits for readers of an image: a batch of packets lasts well below a millisecond. */
const READER_DEADLINE_MS = 1_000;
/** Memory of two slots never shares a cache line: their owners run on different cores. */
const CACHE_LINE_BYTES = 64;

/** A writer computes its image under the lock: of many thousands of hostile rules some seconds. */
const WRITER_DEADLINE_MS = 10_000;

/** What a region is made of. */
export type RegionSpec = {
  readonly kind: number;
  readonly imageBytes: number;
  readonly sizes: readonly number[];
  /** Number of image 0, even; 0 unless given. */
  readonly generation?: number;
  readonly ownBytes?: number;
  /** So many bytes of image 0 have their memory, `publish` takes what it needs; all of the file unless given (R1). */
  readonly reservedBytes?: number;
  /** Byte that the maker holds a lock on before anybody sees the file. */
  readonly lock?: number;
  /** Whether it takes the place of one that has its name; true unless given. */
  readonly mayReplace?: boolean;
};

/** A mapped region: header words, the two images, and the memory that reader slots own. */
export class Region implements Disposable {
  readonly file: MappedFile;
  readonly header: Int32Array;
  readonly capacity: number;
  readonly #doubles: Float64Array;

  private constructor(file: MappedFile) {
    this.file = file;
    this.header = new Int32Array(file.buffer, 0, HEADER_BYTES / 4);
    this.#doubles = new Float64Array(file.buffer, 0, HEADER_BYTES / 8);
    this.capacity = this.header[WORD_CAPACITY]! >>> 0;
  }

  /**
   * Opens a region by name.
   * @param isTrusted whether what it holds decides about packets or is written on: then it must be ours or root's
   * @throws the ENOENT of open(2); {LayoutError} the file is no region of that kind, is shorter than it says, or another
   *   user's
   */
  static open(folder: string, name: string, kind: number, { isTrusted = false } = {}): Region {
    const file = openFile(regionPath(folder, name));
    try {
      return Region.of(file, kind, { isTrusted });
    } catch (error) {
      file[Symbol.dispose]();
      throw error;
    }
  }

  /** The region in a file that is open already; it belongs to the region then. @throws {LayoutError} as {@link open} */
  static of(file: MappedFile, kind: number, { isTrusted = false } = {}): Region {
    if (isTrusted) checkOwner(file);
    const words = new Uint32Array(file.buffer, 0, file.length < HEADER_BYTES ? 0 : SLOT_WORD);
    checkHeader(file.path, file.length, words, kind);
    return new Region(file);
  }

  /**
   * Makes a region and puts it in force under its name, in place of one that is there: that one is retired, whoever has
   * it mapped keeps a whole and unchanged file. Image 0 is in force; `fill` writes it.
   * @returns the region, or null when another one has the name and `mayReplace` is false
   * @throws {CapacityError} the folder has no room for it; nothing is changed then
   */
  static create(folder: string, name: string, spec: RegionSpec, fill: (image: Uint8Array) => void): Region | null {
    const path = regionPath(folder, name);
    const capacity = Math.max(1, Math.ceil(spec.imageBytes / PAGE_BYTES)) * PAGE_BYTES;
    const ownBytes = Math.ceil((spec.ownBytes ?? 0) / CACHE_LINE_BYTES) * CACHE_LINE_BYTES;
    const length = HEADER_BYTES + 2 * capacity + OWN_SLOTS * ownBytes;
    const reserved = spec.reservedBytes === undefined ? length : HEADER_BYTES + spec.reservedBytes;
    const file = makeNameless(folder, name, length, reserved);
    try {
      const header = new Int32Array(file.buffer, 0, HEADER_BYTES / 4);
      header[WORD_MAGIC] = MAGIC;
      header[WORD_VERSION] = LAYOUT_VERSIONS[spec.kind]!;
      header[WORD_KIND] = spec.kind;
      header[WORD_CAPACITY] = capacity;
      header[WORD_GENERATION] = spec.generation ?? 0;
      header[WORD_OWN_BYTES] = ownBytes;
      header.set(spec.sizes.slice(0, SIZES), WORD_SIZES);
      new Float64Array(file.buffer, 0, HEADER_BYTES / 8)[DOUBLE_PUBLISHED_MS] = Date.now();
      fill(file.u8.subarray(HEADER_BYTES, HEADER_BYTES + capacity));
      if (spec.lock !== undefined) tryLockRange(file.fd, spec.lock, 1);
      if (putInPlace(file, path, spec.mayReplace ?? true)) return new Region(file);
      discard(file);
      return null;
    } catch (error) {
      discard(file);
      throw error;
    }
  }

  get path(): string {
    return this.file.path;
  }

  /** A kind-specific size of the header. */
  size(index: number): number {
    return this.header[WORD_SIZES + index]! >>> 0;
  }

  get isRetired(): boolean {
    return Atomics.load(this.header, WORD_STATE) !== LIVE;
  }

  /** Generation in force, as a signed word; image `generation & 1`. */
  get generation(): number {
    return Atomics.load(this.header, WORD_GENERATION);
  }

  /** When the image in force was published, ms since 1970. */
  get publishedMs(): number {
    return this.#doubles[DOUBLE_PUBLISHED_MS]!;
  }

  /** Byte offset in the file of the image of a generation. */
  imageOffset(generation: number): number {
    return HEADER_BYTES + (generation & 1) * this.capacity;
  }

  image(generation: number): Uint8Array {
    return this.file.u8.subarray(this.imageOffset(generation), this.imageOffset(generation) + this.capacity);
  }

  /** Bytes that each of the first OWN_SLOTS reader slots owns; they begin as zeros. */
  get ownBytes(): number {
    return this.header[WORD_OWN_BYTES]! >>> 0;
  }

  /** Byte offset in the file of what a reader slot below OWN_SLOTS owns. */
  ownOffset(slot: number): number {
    return HEADER_BYTES + 2 * this.capacity + slot * this.ownBytes;
  }

  /**
   * Puts the image of the next generation in force after `fill` wrote it, then waits until no live reader uses the old
   * one: what was decided by it is on its way when this returns. Under the writer lock only.
   * @param reservedBytes so many bytes of the image have their memory before it is filled
   * @throws {CapacityError} no memory for the image, or a reader did not leave the one to be overwritten in time: what was in
   *   force stays; or one did not leave the image before in time: then the change is in force
   */
  publish(fill: (image: Uint8Array) => void, reservedBytes = 0): void {
    const current = this.generation;
    this.#awaitReaders(current - 1, "nothing is changed"); // of the image to be overwritten; usually there is none
    if (reservedBytes > 0) this.#reserve(this.imageOffset(current + 1), reservedBytes);
    fill(this.image(current + 1));
    // Orders all of the image's stores before the new number: a reader that sees it sees the image.
    Atomics.store(this.header, WORD_GENERATION, (current + 1) | 0);
    this.#doubles[DOUBLE_PUBLISHED_MS] = Date.now();
    this.#awaitReaders(current, "the change is in force, but packets may still be decided by what was before");
  }

  /** Takes the memory for image 0, if that was not done when the file was made. @throws {CapacityError} */
  reserveFirstImage(): void {
    this.#reserve(0, HEADER_BYTES + this.capacity);
  }

  /** @throws {CapacityError} */
  #reserve(offset: number, bytes: number): void {
    try {
      this.file.reserve(offset, bytes);
    } catch (error) {
      if (!(error instanceof SysError && error.errno === "ENOSPC")) throw error;
      throw new CapacityError(this.file.path, `no room for ${bytes} bytes (ENOSPC)`);
    }
  }

  /** Gives the memory of the image that is not in force back. Under the writer lock only. @throws as {@link publish} */
  releaseIdle(): void {
    const idle = this.generation - 1;
    this.#awaitReaders(idle, "nothing is changed");
    this.file.release(this.imageOffset(idle), this.capacity);
  }

  #awaitReaders(generation: number, consequence: string): void {
    const value = slotValue(generation);
    const pause = new Int32Array(new SharedArrayBuffer(4));
    const deadline = performance.now() + READER_DEADLINE_MS;
    for (let slot = 0; slot < SLOTS; slot++) {
      while (Atomics.load(this.header, SLOT_WORD + slot) === value) {
        if (!isRangeLocked(this.file.fd, LOCK_SLOTS + slot, 1)) break; // its reader is dead
        if (performance.now() > deadline) {
          throw new CapacityError(
            this.file.path,
            `reader ${slot} has not left generation ${generation} in ${READER_DEADLINE_MS} ms; ${consequence}`,
          );
        }
        Atomics.wait(pause, 0, 0, 0.2);
      }
    }
  }

  [Symbol.dispose](): void {
    this.file[Symbol.dispose]();
  }
}

/** A reader's place in a region: it tells writers which image it is using. One per thread and region. */
export class ReaderSlot {
  /** 0…255; nobody else has it while this reader lives. */
  readonly index: number;
  readonly #header: Int32Array;
  readonly #word: number;

  /** @throws {CapacityError} all slots are taken */
  constructor(region: Region) {
    this.#header = region.header;
    for (let slot = 0; slot < SLOTS; slot++) {
      if (!tryLockRange(region.file.fd, LOCK_SLOTS + slot, 1)) continue; // the lock dies with its holder
      this.index = slot;
      this.#word = SLOT_WORD + slot;
      Atomics.store(this.#header, this.#word, 0);
      return;
    }
    throw new CapacityError(region.file.path, `more than ${SLOTS} readers`);
  }

  /**
   * Marks the image in force as used and returns its generation. After the mark the generation is looked at again: if a
   * writer flipped it in between, it may not have seen the mark. Two atomic operations; allocates nothing.
   */
  enter(): number {
    for (;;) {
      const generation = Atomics.load(this.#header, WORD_GENERATION);
      Atomics.store(this.#header, this.#word, slotValue(generation));
      if (Atomics.load(this.#header, WORD_GENERATION) === generation) return generation;
    }
  }

  /** The reader uses no image any more. */
  leave(): void {
    Atomics.store(this.#header, this.#word, 0);
  }
}

/**
 * Runs `work` on the region of that name under its writer lock; writers, in whatever process, go one after the other.
 * @param deadlineMs how long it may take until the lock is free
 * @throws as {@link Region.open}; {CapacityError} another writer hangs
 */
export function withWriter<T>(
  folder: string,
  name: string,
  kind: number,
  work: (region: Region) => T,
  deadlineMs = WRITER_DEADLINE_MS,
): T {
  const endMs = performance.now() + deadlineMs;
  const pause = new Int32Array(new SharedArrayBuffer(4));
  for (;;) {
    using region = Region.open(folder, name, kind, { isTrusted: true });
    while (!tryLockRange(region.file.fd, LOCK_WRITER, 1)) {
      if (performance.now() > endMs)
        throw new CapacityError(
          region.file.path,
          `another writer has held it for ${deadlineMs} ms; nothing is changed`,
        );
      Atomics.wait(pause, 0, 0, 0.5);
    }
    if (region.isRetired || !hasItsName(region.file)) continue; // replaced while we waited for the lock
    try {
      return work(region);
    } finally {
      unlockRange(region.file.fd, LOCK_WRITER, 1);
    }
  }
}

/** @throws the ENOENT of open(2); {LayoutError} the file is empty: there is nothing to map */
function openFile(path: string): MappedFile {
  try {
    return MappedFile.open(path, { isWritable: true });
  } catch (error) {
    if ((error as { errno?: unknown }).errno === "EINVAL") throw new LayoutError(path, "an empty file");
    throw error;
  }
}

/** @throws {LayoutError} somebody else's file: he could change what it says, or cut it off under our hands */
function checkOwner(file: MappedFile): void {
  const { uid } = fstatSync(file.fd);
  if (uid !== 0 && uid !== process.geteuid?.())
    throw new LayoutError(file.path, `it belongs to user ${uid}, not to us or root; delete it if nobody needs it`);
}

/** @param header its first words @throws {LayoutError} */
export function checkHeader(path: string, length: number, header: Uint32Array, kind: number): void {
  if (length < HEADER_BYTES) throw new LayoutError(path, `${length} bytes, a header has ${HEADER_BYTES}`);
  const want = (what: string, found: number, wanted: number) => {
    if (found !== wanted) throw new LayoutError(path, `${what} is ${found}, not ${wanted}`);
  };
  want("magic", header[WORD_MAGIC]!, MAGIC);
  want("kind", header[WORD_KIND]!, kind);
  want("layout version", header[WORD_VERSION]!, LAYOUT_VERSIONS[kind]!);
  const capacity = header[WORD_CAPACITY]!;
  if (capacity === 0 || capacity % PAGE_BYTES !== 0)
    throw new LayoutError(path, `image capacity ${capacity} is no multiple of ${PAGE_BYTES}, 1 at least`);
  want("length", length, HEADER_BYTES + 2 * capacity + OWN_SLOTS * header[WORD_OWN_BYTES]!);
}
