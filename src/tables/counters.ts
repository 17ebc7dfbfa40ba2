import { isRangeLocked, type MappedFile, tryLockRange } from "#sys";
import { COUNTER_RULE_SLOTS } from "./flow-table.js";
import { KIND_COUNTERS, LayoutError, LOCK_OWNER, LOCK_READY, WORD_SIZES } from "./layout.js";
import { Region } from "./region.js";
import { hasItsName, isRegion, openAny, regionPath } from "./region-file.js";

/** Sizes in the header. */
const SIZE_WORKERS = 0;
const SIZE_PID = 1;

/** Image 0: SETTINGS_BYTES of JSON ended by a zero byte, then one block per worker. Image 1 is not used. */
const SETTINGS_BYTES = 4096;
/** A block: 96 counters of the worker, 32 samples of the main thread, a counter per rule slot; float64, exact up to 2^53. */
const BLOCK_COUNTERS = 96;
const BLOCK_SAMPLES = 32;
const BLOCK_RULES = BLOCK_COUNTERS + BLOCK_SAMPLES;
const BLOCK_BYTES = (BLOCK_RULES + COUNTER_RULE_SLOTS) * 8;

/** Meaning of a block's first counters; outcomes are numbered by the data plane. */
export const COUNTER_OUTCOMES = 0; // 16 of them
export const COUNTER_BATCHES = 16;
export const COUNTER_PACKETS = 17;
export const COUNTER_OVERRUNS = 18;
export const COUNTER_SEND_FAILURES = 19;
export const COUNTER_KERNEL_ERRORS = 20;
/** Receives that brought no packet: with the batches a thread's sign of life, two a second at least. */
export const COUNTER_IDLE_RECEIVES = 21;
export const COUNTER_FRAGMENT_LOOKUPS = 24;
export const COUNTER_FRAGMENT_INSERTS = 25;
export const COUNTER_FRAGMENT_REJECTED = 26;
export const COUNTER_FRAGMENT_EXPIRED = 27;
export const COUNTER_FRAGMENT_COLLISIONS = 40;
export const COUNTER_FRAGMENT_BUCKETS = 41;
export const COUNTER_FRAGMENT_COMPLETED = 42;
export const COUNTER_FRAGMENT_HELD = 43;
export const COUNTER_FRAGMENT_HELD_NOW = 44;
export const COUNTER_FRAGMENT_DISCARDED = 45;
export const COUNTER_FRAGMENT_REINJECT_FAILURES = 46;
export const COUNTER_FRAGMENT_STRAY = 47;
export const COUNTER_FRAGMENT_CUT = 48;
/** These three in block 0 alone, where the program's main thread writes them. */
export const COUNTER_FRAGMENT_SWEPT = 49;
export const COUNTER_FRAGMENT_LIVE = 50;
export const COUNTER_FRAGMENT_LIVE_EXTRA = 51;

/** Batches by size: 1, 2, 3…4, 5…8, 9…16, 17…32, 33…64 packets. */
export const COUNTER_BATCH_SIZES = 64;
export const BATCH_SIZES = 7;
/** Kernel's id of the worker's thread, and how often a thread has begun to serve the queue. */
export const COUNTER_THREAD_ID = 72;
export const COUNTER_STARTS = 73;
/** Id of the last packet received, as its 4 bytes stand in the message; 0 = none yet. */
export const COUNTER_LAST_PACKET_ID = 74;
/**
 * How long packets were in the thread's hands, from the receive to the end of the send that carries their verdicts and
 * forwards them: of every LATENCY_EVERY-th batch its packets' times, summed in us, and packets by time. Bucket k holds
 * those of at most LATENCY_FIRST_US * 2^k us, the last one all that took longer.
 */
export const COUNTER_LATENCY_SUM_US = 75;
export const COUNTER_LATENCIES = 76;
export const LATENCY_BUCKETS = 16;
export const LATENCY_FIRST_US = 8;
export const LATENCY_EVERY = 16;

/** What the main thread samples of a queue, as indices into its samples. Time of the sample, CLOCK_MONOTONIC in ms. */
export const SAMPLE_TIME_MS = 0;
/** Packets that wait in the kernel for their verdict; NaN: the data plane's user may not know. */
export const SAMPLE_WAITING = 1;
/** Packets lost because the queue was full, and because the socket's buffer was, since the data plane's start; NaN as above. */
export const SAMPLE_QUEUE_DROPPED = 2;
export const SAMPLE_USER_DROPPED = 3;
/** CPU time of the queue's threads in ms, since the data plane's start. */
export const SAMPLE_USER_MS = 4;
export const SAMPLE_SYSTEM_MS = 5;

/** One worker's counters; only that worker writes them. Reading a float64 is atomic on the machines we run on. */
export type CounterBlock = {
  readonly counters: Float64Array;
  /** Written by the data plane's main thread. */
  readonly samples: Float64Array;
  readonly ruleHits: Float64Array;
};

/** A data plane that runs. */
export type DataPlane = {
  readonly pid: number;
  readonly workers: number;
  /** Whether all its queues are bound. */
  readonly isReady: boolean;
  /** What it was started with; its own JSON, empty if it is of another layout version. */
  readonly settings: string;
  /** When its main thread last took samples, CLOCK_MONOTONIC in ms; 0: not yet. Five times a second unless it hangs. */
  readonly sampledMs: number;
  /** Receives of all its threads. */
  readonly batches: number;
};

/** A data plane whose samples are so old does nothing any more. */
const HANG_MS = 3_000;

/** Whether a data plane that is ready hangs, as far as one look can tell: it has not taken samples for seconds. */
export function isHanging({ isReady, sampledMs }: Pick<DataPlane, "isReady" | "sampledMs">, nowMs: number): boolean {
  return isReady && sampledMs > 0 && nowMs - sampledMs > HANG_MS;
}

/**
 * The counters of a data plane and the sign that it runs: its owner holds locks on the file, which die with it. A new
 * data plane takes over the rule counters of the last one if the file has room for its workers; the rest starts at 0.
 */
export class CounterFile implements Disposable {
  readonly #region: Region;
  readonly workers: number;
  readonly #blocks: CounterBlock[] = [];
  /** As they were read last. */
  #settings = { bytes: new Uint8Array(0), text: "" };

  private constructor(region: Region) {
    this.#region = region;
    this.workers = region.size(SIZE_WORKERS);
    if (SETTINGS_BYTES + this.workers * BLOCK_BYTES > region.capacity) {
      throw new LayoutError(region.file.path, `${this.workers} blocks do not fit ${region.capacity} bytes`);
    }
  }

  /**
   * Becomes the data plane of this folder.
   * @param workers blocks of counters, one per queue
   * @throws {LayoutError} another data plane owns the file, whatever its version; {CapacityError} the folder is full
   */
  static create(folder: string, name: string, workers: number, settings: string): CounterFile {
    const path = regionPath(folder, name);
    for (;;) {
      const before = openAny(path);
      if (before === null) {
        const made = CounterFile.#make(folder, name, workers, false);
        if (made === null) continue; // another one was faster
        made.#begin(settings);
        return made;
      }
      // Its lock is the same in every layout version; who holds it is alone with the file.
      if (!tryLockRange(before.fd, LOCK_OWNER, 1)) {
        const owner = `a data plane with pid ${pidIn(before)} is running`;
        before[Symbol.dispose]();
        throw new LayoutError(path, `${owner}; one in a folder of its own needs NFQLB_SHM_DIR`);
      }
      if (!hasItsName(before)) {
        before[Symbol.dispose]();
        continue;
      }
      const kept = CounterFile.#keep(before, workers) ?? CounterFile.#make(folder, name, workers, true)!;
      if (kept.#region.file !== before) before[Symbol.dispose]();
      kept.#begin(settings);
      return kept;
    }
  }

  /** A file, owned, if it has these workers' counters and is ours. @throws {CapacityError} no memory for all of it */
  static #keep(file: MappedFile, workers: number): CounterFile | null {
    try {
      const kept = new CounterFile(Region.of(file, KIND_COUNTERS, { isTrusted: true }));
      if (kept.workers !== workers) return null;
      kept.#region.reserveFirstImage();
      return kept;
    } catch (error) {
      if ((error as { code?: string }).code !== "ERR_LAYOUT") throw error;
      return null;
    }
  }

  /** A new file, owned before anybody sees it; null: there is one, and it may not be replaced. */
  static #make(folder: string, name: string, workers: number, mayReplace: boolean): CounterFile | null {
    const imageBytes = SETTINGS_BYTES + workers * BLOCK_BYTES;
    const reservedBytes = imageBytes; // image 1 is not used
    const spec = { kind: KIND_COUNTERS, imageBytes, sizes: [workers], reservedBytes, lock: LOCK_OWNER, mayReplace };
    const region = Region.create(folder, name, spec, () => {});
    return region === null ? null : new CounterFile(region);
  }

  /** @throws ENOENT, {LayoutError} */
  static open(folder: string, name: string): CounterFile {
    const region = Region.open(folder, name, KIND_COUNTERS);
    try {
      return new CounterFile(region);
    } catch (error) {
      region[Symbol.dispose]();
      throw error;
    }
  }

  /** The counters of worker 0…workers-1. */
  block(worker: number): CounterBlock {
    if (worker < 0 || worker >= this.workers) throw new RangeError(`worker ${worker} of ${this.workers}`);
    this.#blocks[worker] ??= this.#blockOf(worker);
    return this.#blocks[worker];
  }

  #blockOf(worker: number): CounterBlock {
    const offset = this.#region.imageOffset(0) + SETTINGS_BYTES + worker * BLOCK_BYTES;
    const { buffer } = this.#region.file;
    return {
      counters: new Float64Array(buffer, offset, BLOCK_COUNTERS),
      samples: new Float64Array(buffer, offset + BLOCK_COUNTERS * 8, BLOCK_SAMPLES),
      ruleHits: new Float64Array(buffer, offset + BLOCK_RULES * 8, COUNTER_RULE_SLOTS),
    };
  }

  /** One counter summed over all workers. */
  sum(counter: number): number {
    return this.#sum((block) => block.counters[counter]!);
  }

  /** One of the samples summed over all queues. */
  sumSample(sample: number): number {
    return this.#sum((block) => block.samples[sample]!);
  }

  /** Hits of a rule slot over all workers, since the file was made. */
  sumRule(slot: number): number {
    return this.#sum((block) => block.ruleHits[slot]!);
  }

  /** Tells that all queues are bound: a second lock, so that it is never believed of the owner before. */
  setReady(): void {
    tryLockRange(this.#region.file.fd, LOCK_READY, 1);
  }

  /** Whether this is the file that has its name now. */
  get isInPlace(): boolean {
    return !this.#region.isRetired && hasItsName(this.#region.file);
  }

  /** The data plane that owns the file, or null when none does. */
  owner(): DataPlane | null {
    if (!isRangeLocked(this.#region.file.fd, LOCK_OWNER, 1)) return null;
    return {
      pid: this.#region.size(SIZE_PID),
      workers: this.workers,
      isReady: isRangeLocked(this.#region.file.fd, LOCK_READY, 1),
      settings: this.settings,
      sampledMs: this.workers === 0 ? 0 : this.block(0).samples[SAMPLE_TIME_MS]!,
      batches: this.sum(COUNTER_BATCHES),
    };
  }

  /** What the owner, or the last one if there is none, was started with; its own JSON. */
  get settings(): string {
    const from = this.#region.imageOffset(0);
    const bytes = this.#region.file.u8.subarray(from, from + SETTINGS_BYTES);
    if (Buffer.compare(bytes, this.#settings.bytes) !== 0) {
      const copy = bytes.slice();
      this.#settings = { bytes: copy, text: new TextDecoder().decode(copy.subarray(0, copy.indexOf(0))) };
    }
    return this.#settings.text;
  }

  #sum(pick: (block: CounterBlock) => number): number {
    let sum = 0;
    for (let worker = 0; worker < this.workers; worker++) sum += pick(this.block(worker));
    return sum;
  }

  #begin(settings: string): void {
    const bytes = new TextEncoder().encode(settings);
    if (bytes.length >= SETTINGS_BYTES) throw new RangeError(`settings of ${bytes.length} bytes`);
    Atomics.store(this.#region.header, WORD_SIZES + SIZE_PID, process.pid);
    const area = this.#region.file.u8.subarray(
      this.#region.imageOffset(0),
      this.#region.imageOffset(0) + SETTINGS_BYTES,
    );
    area.fill(0);
    area.set(bytes);
    for (let worker = 0; worker < this.workers; worker++) {
      const { counters, samples } = this.block(worker);
      counters.fill(0);
      samples.fill(0);
    }
  }

  [Symbol.dispose](): void {
    this.#region[Symbol.dispose]();
  }
}

/**
 * The counters of whatever data plane there is, for who looks again and again: mapped until another file takes their place.
 * Each mapping counts as memory of this process, megabytes of it, until garbage is collected.
 */
export class CounterWatch {
  readonly #folder: string;
  readonly #name: string;
  #file: CounterFile | null = null;

  constructor(folder: string, name: string) {
    this.#folder = folder;
    this.#name = name;
  }

  /** null before the first data plane. Valid until the next call. @throws {LayoutError} */
  current(): CounterFile | null {
    if (this.#file?.isInPlace === true) return this.#file;
    this.#file?.[Symbol.dispose]();
    this.#file = null;
    try {
      this.#file = CounterFile.open(this.#folder, this.#name);
    } catch (error) {
      if ((error as { code?: string }).code !== "ENOENT") throw error;
    }
    return this.#file;
  }

  /** As {@link readDataPlane}. */
  dataPlane(): DataPlane | null {
    try {
      return this.current()?.owner() ?? null;
    } catch (error) {
      if (!(error instanceof LayoutError)) throw error;
      return readForeignOwner(regionPath(this.#folder, this.#name));
    }
  }
}

/** The data plane that runs on a folder, or null; of one of another layout version only its pid is known. */
export function readDataPlane(folder: string, name: string): DataPlane | null {
  let file: CounterFile;
  try {
    file = CounterFile.open(folder, name);
  } catch (error) {
    const { code } = error as { code?: string };
    if (code === "ENOENT") return null;
    if (code === "ERR_LAYOUT") return readForeignOwner(regionPath(folder, name));
    throw error;
  }
  try {
    return file.owner();
  } finally {
    file[Symbol.dispose]();
  }
}

function readForeignOwner(path: string): DataPlane | null {
  const file = openAny(path);
  if (file === null) return null;
  try {
    if (!isRegion(file) || !isRangeLocked(file.fd, LOCK_OWNER, 1)) return null;
    return { pid: pidIn(file), workers: 0, isReady: false, settings: "", sampledMs: 0, batches: 0 };
  } finally {
    file[Symbol.dispose]();
  }
}

/** Of the data plane that holds the file; it stands at the same place in every layout version. */
function pidIn(file: MappedFile): number {
  return isRegion(file) ? file.view.getUint32((WORD_SIZES + SIZE_PID) * 4, true) : 0;
}
