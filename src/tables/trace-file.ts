import { isRangeLocked, tryLockRange } from "#sys";
import {
  CapacityError,
  KIND_TRACE,
  LayoutError,
  LOCK_OWNER,
  LOCK_SLOTS,
  SLOT_WORD,
  SLOTS,
  WORD_SIZES,
} from "./layout.js";
import { Region } from "./region.js";
import {
  blockBytes,
  HEAD_BYTES,
  RECORD_WORDS,
  SIZE_LEVEL,
  SIZE_MASK,
  SIZE_RECORDS,
  SIZE_RINGS,
  TRACE_RULE_SLOTS,
} from "./trace-layout.js";

/** nfqlb's "notice". */
const DEFAULT_LEVEL = 5;

/** The memory of one ring; one thread writes it. */
export type RingMemory = {
  readonly head: Int32Array;
  /** Matches per counter slot of a trace rule. */
  readonly ruleHits: Float64Array;
  readonly words: Int32Array;
  /** The same bytes as `words`. */
  readonly bytes: Uint8Array;
  /** Records, a power of two. */
  readonly records: number;
};

/**
 * The trace region of a data plane. Its owner holds a lock on the file, which dies with it; each watcher holds one on its
 * slot. A watcher's selection stands in its slot's word of the header, the union of all in one word that workers look at
 * once per batch.
 */
export class TraceFile implements Disposable {
  readonly rings: number;
  readonly #region: Region;
  readonly #records: number;
  /** The slot that we watch from, or -1. */
  #slot = -1;

  private constructor(region: Region) {
    this.#region = region;
    this.rings = region.size(SIZE_RINGS);
    this.#records = region.size(SIZE_RECORDS);
    const isPower = (this.#records & (this.#records - 1)) === 0;
    if (!isPower || this.rings * blockBytes(this.#records) > region.capacity) {
      region[Symbol.dispose]();
      throw new LayoutError(region.file.path, `${this.rings} rings of ${this.#records} records do not fit`);
    }
  }

  /**
   * Becomes the owner of the region of that name, made anew unless there is one of just that size: then watchers of a data
   * plane that died see the next one's packets. The log level stays.
   * @param records per ring, a power of two
   * @throws {CapacityError} the folder has no room for it
   */
  static own(folder: string, name: string, rings: number, records: number): TraceFile {
    let file = tryOpen(folder, name);
    if (file === null || file.rings !== rings || file.#records !== records) {
      const level = file?.level ?? DEFAULT_LEVEL;
      file?.[Symbol.dispose]();
      create(folder, name, { rings, records, level, mayReplace: true });
      file = TraceFile.open(folder, name);
    }
    if (!tryLockRange(file.#region.file.fd, LOCK_OWNER, 1)) {
      file[Symbol.dispose]();
      throw new LayoutError(`${folder}/${name}`, "another data plane owns it");
    }
    file.settleMask();
    return file;
  }

  /** @throws ENOENT, {LayoutError} */
  static open(folder: string, name: string): TraceFile {
    return new TraceFile(Region.open(folder, name, KIND_TRACE));
  }

  /** The region of that name; one without rings, for the log level, is made when there is none. */
  static openOrCreate(folder: string, name: string): TraceFile {
    const file = tryOpen(folder, name);
    if (file !== null) return file;
    const spec = { rings: 0, records: 0, level: DEFAULT_LEVEL };
    // A data plane may have made its own at this moment; what is no trace region is replaced.
    if (!create(folder, name, { ...spec, mayReplace: false }) && tryOpen(folder, name) === null)
      create(folder, name, { ...spec, mayReplace: true });
    return TraceFile.open(folder, name);
  }

  /** Whether a data plane writes here. */
  get isLive(): boolean {
    return isRangeLocked(this.#region.file.fd, LOCK_OWNER, 1);
  }

  /** Whether another file has taken the name. */
  get isReplaced(): boolean {
    return this.#region.isRetired;
  }

  get level(): number {
    return Atomics.load(this.#region.header, WORD_SIZES + SIZE_LEVEL);
  }

  set level(level: number) {
    Atomics.store(this.#region.header, WORD_SIZES + SIZE_LEVEL, level);
  }

  /** Union of the selections of those who watch; one atomic load. */
  get mask(): number {
    return Atomics.load(this.#region.header, WORD_SIZES + SIZE_MASK);
  }

  ring(index: number): RingMemory {
    if (index < 0 || index >= this.rings) throw new RangeError(`ring ${index} of ${this.rings}`);
    const { buffer } = this.#region.file;
    const at = this.#region.imageOffset(0) + index * blockBytes(this.#records);
    const recordsAt = at + HEAD_BYTES + TRACE_RULE_SLOTS * 8;
    const words = new Int32Array(buffer, recordsAt, this.#records * RECORD_WORDS);
    return {
      head: new Int32Array(buffer, at, HEAD_BYTES / 4),
      ruleHits: new Float64Array(buffer, at + HEAD_BYTES, TRACE_RULE_SLOTS),
      words,
      bytes: new Uint8Array(buffer, recordsAt, words.byteLength),
      records: this.#records,
    };
  }

  /** Matches of a trace rule's slot over all workers, since the file was made. */
  sumRule(slot: number): number {
    let sum = 0;
    for (let ring = 0; ring < this.rings; ring++) sum += this.ring(ring).ruleHits[slot]!;
    return sum;
  }

  /**
   * Begins to watch; once per object. The lock on the slot dies with the process.
   * @throws {CapacityError} all slots are taken
   */
  watch(mask: number): void {
    const { header, file } = this.#region;
    if (this.#slot >= 0) throw new RangeError("this object watches already");
    for (let slot = 0; slot < SLOTS; slot++) {
      if (!tryLockRange(file.fd, LOCK_SLOTS + slot, 1)) continue;
      // First the slot, then the union: whoever lowers the union looks at the slots once more afterwards.
      Atomics.store(header, SLOT_WORD + slot, mask);
      Atomics.or(header, WORD_SIZES + SIZE_MASK, mask);
      this.#slot = slot;
      return;
    }
    throw new CapacityError(file.path, `more than ${SLOTS} watchers`);
  }

  /**
   * Makes the union what the live watchers select, so that one that was killed costs nothing any more. Anybody may do it
   * at any time: after lowering the union it looks at the slots again, in case one was taken meanwhile.
   * @returns the union
   */
  settleMask(): number {
    const { header } = this.#region;
    for (;;) {
      const union = this.mask;
      const wanted = this.#selected();
      if (wanted === union) return union;
      Atomics.compareExchange(header, WORD_SIZES + SIZE_MASK, union, wanted);
    }
  }

  #selected(): number {
    const { header, file } = this.#region;
    let mask = 0;
    for (let slot = 0; slot < SLOTS; slot++) {
      const selected = Atomics.load(header, SLOT_WORD + slot);
      if (selected === 0) continue;
      // A slot whose holder died keeps its word until somebody takes it. Our own lock is not told to us.
      if (slot === this.#slot || isRangeLocked(file.fd, LOCK_SLOTS + slot, 1)) mask |= selected;
    }
    return mask;
  }

  /** Ends the watch, if there is one; the slot's lock goes with the file's descriptor. */
  [Symbol.dispose](): void {
    if (this.#slot >= 0) {
      Atomics.store(this.#region.header, SLOT_WORD + this.#slot, 0);
      this.#slot = -1;
      this.settleMask();
    }
    this.#region[Symbol.dispose]();
  }
}

/** @returns false when there is one that may not be replaced @throws {CapacityError} */
function create(
  folder: string,
  name: string,
  spec: { rings: number; records: number; level: number; mayReplace: boolean },
): boolean {
  const { rings, records, level, mayReplace } = spec;
  const imageBytes = rings * blockBytes(records);
  const sizes = [rings, records, level, 0];
  // Image 1 is not used. Threads touch every page sooner or later, so all of the memory is taken now.
  const region = Region.create(
    folder,
    name,
    { kind: KIND_TRACE, imageBytes, sizes, reservedBytes: imageBytes, mayReplace },
    () => {},
  );
  region?.[Symbol.dispose]();
  return region !== null;
}

function tryOpen(folder: string, name: string): TraceFile | null {
  try {
    return TraceFile.open(folder, name);
  } catch (error) {
    const { code } = error as { code?: string };
    if (code === "ENOENT" || code === "ERR_LAYOUT") return null;
    throw error;
  }
}
