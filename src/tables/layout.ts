/**
 * Layout of a region: one file in shared memory with a header page and two images. All numbers are little endian; the
 * document is docs/tables.md. Word indices below count 32-bit words from the start of the file.
 */
export const MAGIC = 0x544c4253; // "SBLT"
/** Layout version by kind of region: one that changes leaves the others in force. */
export const LAYOUT_VERSIONS: Readonly<Record<number, number>> = { 1: 2, 2: 3, 3: 2, 4: 1 };
export const HEADER_BYTES = 4096;
export const PAGE_BYTES = 4096;

export const WORD_MAGIC = 0;
export const WORD_VERSION = 1;
export const WORD_KIND = 2;
/** Bytes of one image, a multiple of PAGE_BYTES. Image k begins at HEADER_BYTES + k * capacity. */
export const WORD_CAPACITY = 3;
/** Number of the image in force: image `generation & 1`. Written by one atomic store. */
export const WORD_GENERATION = 4;
/** LIVE or RETIRED. */
export const WORD_STATE = 5;
/** Bytes that each of the first OWN_SLOTS reader slots has to itself behind the images, a multiple of 64; often 0. */
export const WORD_OWN_BYTES = 6;
/** Sizes whose meaning depends on the kind. */
export const WORD_SIZES = 8;
export const SIZES = 8;

/** float64 index in the header: when the image in force was published, ms since 1970. */
export const DOUBLE_PUBLISHED_MS = 8;

export const KIND_STREAM = 1;
export const KIND_FLOWS = 2;
export const KIND_COUNTERS = 3;
export const KIND_TRACE = 4;

export const LIVE = 0;
/** Deleted, or replaced by another file of the name: open by name again. */
export const RETIRED = 1;

/** Reader slots: word SLOT_WORD + slot holds generation + 1 of the image the reader uses, 0 when it uses none. */
export const SLOT_WORD = 64;
export const SLOTS = 256;
/** Slots with memory of their own; readers beyond have none. */
export const OWN_SLOTS = 64;
/** What a slot holds for a generation; 0 is kept for idle, so the last generation shares its sign with the one before. */
export function slotValue(generation: number): number {
  const value = (generation + 1) | 0;
  return value === 0 ? -1 : value;
}

/** Byte ranges that locks are taken on; they lie behind everything that is read or written. */
export const LOCK_WRITER = 2 ** 40;
export const LOCK_OWNER = 2 ** 40 + 1;
export const LOCK_READY = 2 ** 40 + 2;
/** Held by whoever makes the file, until it has its name. */
export const LOCK_NEW = 2 ** 40 + 3;
export const LOCK_SLOTS = 2 ** 40 + 16;

/** A region file is not what it should be. */
export class LayoutError extends Error {
  readonly code = "ERR_LAYOUT";
  constructor(path: string, problem: string) {
    super(`region ${path}: ${problem}`);
    this.name = "LayoutError";
  }
}

/** More is asked than a region, or what reads it, can take. */
export class CapacityError extends Error {
  readonly code = "ERR_CAPACITY";
  constructor(path: string, problem: string) {
    super(`region ${path}: ${problem}`);
    this.name = "CapacityError";
  }
}
