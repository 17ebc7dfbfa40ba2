import { effectiveSize, populate, rows } from "#maglev";
import { KIND_STREAM, LayoutError, OWN_SLOTS } from "./layout.js";
import { ReaderSlot, Region, withWriter } from "./region.js";
import { hasItsName, isOtherKind } from "./region-file.js";
import { RegionFile } from "./region-reader.js";

/**
 * Sizes in the header: M, N and the tier's own fwmark. The image: lookup i32[M], then active i32[N]. A reader slot owns
 * f64[N]: packets it sent to each target.
 */
const SIZE_POSITIONS = 0;
const SIZE_TARGETS = 1;
const SIZE_OWN_FWMARK = 2;

/** A lookup table as it was at one moment; the arrays are copies. */
export type StreamTable = {
  /** M, positions, a prime. */
  readonly size: number;
  /** N, most targets. */
  readonly targets: number;
  readonly ownFwmark: number;
  /** u32; one more with every change. */
  readonly generation: number;
  /** Target index → fwmark, -1 = none. */
  readonly active: Int32Array;
  /** Position → target index, -1 = none. */
  readonly lookup: Int32Array;
};

/**
 * Makes an empty lookup table, or replaces the one of that name.
 * @param table.size positions asked for; the table gets the largest prime not above, 3 at least
 * @param table.targets N, 0…M
 * @param table.ownFwmark for a table of balancers: the own one's fwmark
 */
export function createStreamTable(
  folder: string,
  name: string,
  table: { readonly size: number; readonly targets: number; readonly ownFwmark: number },
): { readonly size: number } {
  const { targets, ownFwmark } = table;
  const size = effectiveSize(table.size);
  const imageBytes = (size + targets) * 4;
  const sizes = [size, targets, ownFwmark];
  const spec = { kind: KIND_STREAM, imageBytes, sizes, ownBytes: targets * 8 };
  Region.create(folder, name, spec, (image) => image.fill(0xff, 0, imageBytes))?.[Symbol.dispose]();
  return { size };
}

/**
 * Changes the targets of a table in one step: `change` edits a copy of `active`, the lookup table is computed aside and
 * published. When it returns no packet is being decided by the old table.
 * @returns whether anything changed; if not, nothing was written
 * @throws ENOENT there is no such table; {LayoutError}; {CapacityError} a reader hangs
 */
export function updateStreamTable(
  folder: string,
  name: string,
  change: (active: Int32Array) => void,
): { readonly changed: boolean; readonly stamp: string } {
  return withWriter(folder, name, KIND_STREAM, (region) => {
    const { size, targets } = checkSizes(region);
    const before = tableViews(region, region.generation, size, targets);
    const active = before.active.slice();
    change(active);
    if (active.every((fwmark, index) => fwmark === before.active[index]))
      return { changed: false, stamp: stampOf(region) };
    region.publish((image) => {
      const views = viewsOf(image.buffer as ArrayBuffer, image.byteOffset, size, targets);
      views.active.set(active);
      const isSameSet = active.every((fwmark, index) => fwmark >= 0 === before.active[index]! >= 0);
      if (isSameSet) views.lookup.set(before.lookup);
      else populate(views.lookup, rows(size, targets), active);
    });
    return { changed: true, stamp: stampOf(region) };
  });
}

/** Whether a region of ours that is no lookup table has that name. @throws {LayoutError} `name` cannot be one */
export function isNoStreamTable(folder: string, name: string): boolean {
  return isOtherKind(folder, name, KIND_STREAM);
}

/** Another text whenever somebody has changed or replaced the table; null: there is none. */
export function streamStamp(folder: string, name: string): string | null {
  try {
    using region = RegionFile.open(folder, name, KIND_STREAM);
    return stampOf(region);
  } catch {
    return null;
  }
}

/** N of a table: most targets. @throws ENOENT, {LayoutError} */
export function readMaxTargets(folder: string, name: string): number {
  using region = RegionFile.open(folder, name, KIND_STREAM);
  return checkSizes(region).targets;
}

/** Notices at hardly any cost that somebody else has changed, deleted or replaced a table: its header stays in sight. */
export class StreamTableWatch implements Disposable {
  readonly #region: Region;
  /** As it was when looked at last. */
  #seen = { generation: 0, stamp: "" };

  private constructor(region: Region) {
    this.#region = region;
  }

  /** null: there is no such table. */
  static open(folder: string, name: string): StreamTableWatch | null {
    try {
      return new StreamTableWatch(Region.open(folder, name, KIND_STREAM));
    } catch {
      return null;
    }
  }

  /** As {@link streamStamp}; null: it was deleted or replaced. A file that was deleted by hand is not noticed. */
  stamp(): string | null {
    const region = this.#region;
    if (region.isRetired) return null;
    const { generation } = region;
    if (generation !== this.#seen.generation || this.#seen.stamp === "")
      this.#seen = { generation, stamp: stampOf(region) };
    return this.#seen.stamp;
  }

  /** Whether its file still has its name. */
  get isInPlace(): boolean {
    return hasItsName(this.#region.file);
  }

  [Symbol.dispose](): void {
    this.#region[Symbol.dispose]();
  }
}

/** Another text whenever the image in force is another one. */
export function stampOf(region: Pick<Region, "generation" | "publishedMs" | "size">): string {
  return `${region.generation >>> 0} ${region.publishedMs} ${region.size(SIZE_TARGETS)}`;
}

/** The table in force; copies. @throws ENOENT, {LayoutError} */
export function readStreamTable(folder: string, name: string): StreamTable {
  using region = Region.open(folder, name, KIND_STREAM);
  const { size, targets } = checkSizes(region);
  const slot = new ReaderSlot(region);
  const generation = slot.enter();
  const { active, lookup } = tableViews(region, generation, size, targets);
  const ownFwmark = region.size(SIZE_OWN_FWMARK);
  return { size, targets, ownFwmark, generation: generation >>> 0, active: active.slice(), lookup: lookup.slice() };
}

/**
 * A live view of a table for the packet path. `enter` before, `leave` after a batch; in between `lookup` and `active` are
 * of one image that no writer touches. Allocates only in the constructor.
 */
export class StreamTableReader implements Disposable {
  readonly size: number;
  readonly ownFwmark: number;
  lookup: Int32Array;
  active: Int32Array;
  /** Packets per target index, for the user to count in: shared memory that this reader alone writes, or its own. */
  readonly hits: Float64Array;
  readonly #region: Region;
  readonly #slot: ReaderSlot;
  readonly #views: readonly [Views, Views];

  /**
   * @param isCounting whether `hits` is shared, for `readTargetHits`; it goes on from the slot's last owner
   * @throws ENOENT, {LayoutError}, {CapacityError} too many readers
   */
  constructor(folder: string, name: string, { isCounting = false } = {}) {
    this.#region = Region.open(folder, name, KIND_STREAM, { isTrusted: true });
    try {
      const { size, targets } = checkSizes(this.#region);
      this.size = size;
      this.ownFwmark = this.#region.size(SIZE_OWN_FWMARK);
      this.#slot = new ReaderSlot(this.#region);
      const { index } = this.#slot;
      this.hits = isCounting && index < OWN_SLOTS ? hitsOf(this.#region, index, targets) : new Float64Array(targets);
      this.#views = [tableViews(this.#region, 0, size, targets), tableViews(this.#region, 1, size, targets)];
      this.lookup = this.#views[0].lookup;
      this.active = this.#views[0].active;
    } catch (error) {
      this.#region[Symbol.dispose]();
      throw error;
    }
  }

  /** Begins to use the image in force. @returns false when the table was deleted or replaced: open it anew by name */
  enter(): boolean {
    if (this.#region.isRetired) return false;
    const views = this.#views[(this.#slot.enter() & 1) as 0 | 1];
    this.lookup = views.lookup;
    this.active = views.active;
    return true;
  }

  leave(): void {
    this.#slot.leave();
  }

  [Symbol.dispose](): void {
    this.#region[Symbol.dispose]();
  }
}

type Views = { readonly lookup: Int32Array; readonly active: Int32Array };

function hitsOf(region: Region, slot: number, targets: number): Float64Array {
  return new Float64Array(region.file.buffer, region.ownOffset(slot), targets);
}

function tableViews(region: Region, generation: number, size: number, targets: number): Views {
  return viewsOf(region.file.buffer, region.imageOffset(generation), size, targets);
}

function viewsOf(buffer: ArrayBuffer, offset: number, size: number, targets: number): Views {
  return { lookup: new Int32Array(buffer, offset, size), active: new Int32Array(buffer, offset + size * 4, targets) };
}

/** M and N of a table. @throws {LayoutError} they do not fit the region */
export function checkSizes(region: Pick<RegionFile, "path" | "capacity" | "ownBytes" | "size">): {
  size: number;
  targets: number;
} {
  const size = region.size(SIZE_POSITIONS);
  const targets = region.size(SIZE_TARGETS);
  if (size < 3 || (size + targets) * 4 > region.capacity) {
    throw new LayoutError(region.path, `M=${size}, N=${targets} do not fit an image of ${region.capacity} bytes`);
  }
  if (targets * 8 > region.ownBytes) {
    throw new LayoutError(region.path, `counters of N=${targets} do not fit ${region.ownBytes} bytes`);
  }
  return { size, targets };
}
