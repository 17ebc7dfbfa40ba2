import { KIND_STREAM, OWN_SLOTS } from "./layout.js";
import { RegionFile } from "./region-reader.js";
import { checkSizes, type StreamTable, stampOf } from "./stream-table.js";

/** What a table says of itself and its targets, without the table. */
export type StreamCounts = Omit<StreamTable, "lookup" | "ownFwmark"> & {
  /** When the image in force was published, ms since 1970. */
  readonly publishedMs: number;
  /** Target index → positions that it owns, of `size`. */
  readonly positions: Float64Array;
  /** Target index → packets sent there since the table was made. */
  readonly hits: Float64Array;
};

type Known = { readonly stamp: string; readonly positions: Float64Array; readonly active: Int32Array };

/**
 * Reads the numbers of tables again and again, for statistics. What is in an image is counted once; what was sent is read
 * each time. Tables that were not asked for between two calls of `forgetOthers` are forgotten.
 */
export class StreamCountsReader {
  readonly #folder: string;
  #known = new Map<string, Known>();
  #asked = new Map<string, Known>();
  #lookup = new Int32Array(0);
  #slots = new Float64Array(0);

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** The numbers of a table; arrays of positions and active targets are the same until the table changes. @throws ENOENT, {LayoutError} */
  read(name: string): StreamCounts {
    using region = RegionFile.open(this.#folder, name, KIND_STREAM);
    const { size, targets } = checkSizes(region);
    const known = this.#knownOf(name, region, size, targets);
    this.#asked.set(name, known);
    const { generation, publishedMs } = region;
    const { active, positions } = known;
    return { size, targets, generation, publishedMs, active, positions, hits: this.#sumHits(region, targets) };
  }

  /** Keeps only what was read since the last call. */
  forgetOthers(): void {
    this.#known = this.#asked;
    this.#asked = new Map();
  }

  #knownOf(name: string, region: RegionFile, size: number, targets: number): Known {
    for (;;) {
      const known = this.#asked.get(name) ?? this.#known.get(name);
      const stamp = `${region.id} ${stampOf(region)}`;
      if (known?.stamp === stamp) return known;
      if (this.#lookup.length < size) this.#lookup = new Int32Array(size);
      const active = new Int32Array(targets);
      region.read(this.#lookup.subarray(0, size), region.imageOffset);
      region.read(active, region.imageOffset + size * 4);
      if (!region.isInForce()) continue; // a writer may have been at it
      return { stamp, active, positions: countPositions(this.#lookup, size, targets) };
    }
  }

  /** Few slots have ever been used, and those are the first: of the others it is seen at once that all is zero. */
  #sumHits(region: RegionFile, targets: number): Float64Array {
    const stride = region.ownBytes / 8;
    const length = OWN_SLOTS * stride;
    if (this.#slots.length < length) this.#slots = new Float64Array(length);
    const slots = this.#slots;
    region.read(slots.subarray(0, length), region.ownOffset);
    let used = OWN_SLOTS;
    while (used > 1 && isZero(slots, (used >> 1) * stride, used * stride)) used >>= 1;
    const sum = slots.slice(0, targets);
    for (let slot = 1; slot < used; slot++)
      for (let target = 0; target < targets; target++) sum[target]! += slots[slot * stride + target]!;
    return sum;
  }
}

/** The numbers of a table, once; copies. @throws ENOENT, {LayoutError} */
export function readStreamCounts(folder: string, name: string): StreamCounts {
  return new StreamCountsReader(folder).read(name);
}

/**
 * Packets sent to each target index since the table was made, summed over the data plane's threads; copies.
 * @throws ENOENT, {LayoutError}
 */
export function readTargetHits(folder: string, name: string): Float64Array {
  return readStreamCounts(folder, name).hits;
}

function countPositions(lookup: Int32Array, size: number, targets: number): Float64Array {
  const counts = new Int32Array(targets);
  for (let position = 0; position < size; position++) {
    const target = lookup[position]!;
    if (target >= 0) counts[target]!++;
  }
  return Float64Array.from(counts);
}

/** Whether all numbers of [from, to) are 0; compared as bytes, which is a hundred times as fast. */
function isZero(numbers: Float64Array, from: number, to: number): boolean {
  const half = Buffer.from(numbers.buffer, from * 8, (to - from) * 8);
  return half.length === 0 || (half[0] === 0 && half.compare(half, 1, half.length, 0, half.length - 1) === 0);
}
