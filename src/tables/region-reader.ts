import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import {
  DOUBLE_PUBLISHED_MS,
  HEADER_BYTES,
  SIZES,
  SLOT_WORD,
  WORD_CAPACITY,
  WORD_GENERATION,
  WORD_OWN_BYTES,
  WORD_SIZES,
} from "./layout.js";
import { checkHeader } from "./region.js";
import { regionPath } from "./region-file.js";

/** The words in front of the reader slots. */
const HEAD = new Uint32Array(SLOT_WORD);
const HEAD_DOUBLES = new Float64Array(HEAD.buffer);

/**
 * A region that is looked at with read(2), for who looks at many again and again: mappings take address space and page
 * table, and the engine counts them as memory of its own, for which it collects garbage.
 */
export class RegionFile implements Disposable {
  readonly path: string;
  /** Another number for another file of that name: its inode. */
  readonly id: number;
  readonly #fd: number;
  /** As {@link Region.capacity}. */
  readonly capacity: number;
  /** As {@link Region.ownBytes}. */
  readonly ownBytes: number;
  readonly #sizes: readonly number[];
  /** u32, of the image in force when it was opened or last looked at again. */
  generation: number;
  /** When that was published, ms since 1970. */
  publishedMs: number;

  private constructor(path: string, fd: number, id: number) {
    this.path = path;
    this.id = id;
    this.#fd = fd;
    this.capacity = HEAD[WORD_CAPACITY]!;
    this.ownBytes = HEAD[WORD_OWN_BYTES]!;
    this.#sizes = [...HEAD.subarray(WORD_SIZES, WORD_SIZES + SIZES)];
    this.generation = HEAD[WORD_GENERATION]!;
    this.publishedMs = HEAD_DOUBLES[DOUBLE_PUBLISHED_MS]!;
  }

  /** @throws as {@link Region.open} */
  static open(folder: string, name: string, kind: number): RegionFile {
    const path = regionPath(folder, name);
    const fd = openSync(path, "r");
    try {
      readHead(fd);
      const { size, ino } = fstatSync(fd);
      checkHeader(path, size, HEAD, kind);
      return new RegionFile(path, fd, ino);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /** As {@link Region.size}. */
  size(index: number): number {
    return this.#sizes[index]!;
  }

  /** Byte offset in the file of the image that is `generation`'s. */
  get imageOffset(): number {
    return HEADER_BYTES + (this.generation & 1) * this.capacity;
  }

  /** Byte offset in the file of what the first reader slot owns; the others follow. */
  get ownOffset(): number {
    return HEADER_BYTES + 2 * this.capacity;
  }

  /** Reads as many bytes as there is room for. */
  read(into: NodeJS.ArrayBufferView, offset: number): void {
    readSync(this.#fd, into, 0, into.byteLength, offset);
  }

  /** Whether the image is still in force, so that nobody has written there since. If not, the one that is takes its place. */
  isInForce(): boolean {
    readHead(this.#fd);
    const { generation } = this;
    this.generation = HEAD[WORD_GENERATION]!;
    this.publishedMs = HEAD_DOUBLES[DOUBLE_PUBLISHED_MS]!;
    return this.generation === generation;
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }
}

function readHead(fd: number): void {
  HEAD.fill(0);
  readSync(fd, HEAD, 0, HEAD.byteLength, 0);
}
