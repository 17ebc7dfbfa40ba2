import { TraceFile } from "./trace-file.js";
import { SELECTIONS } from "./trace-layout.js";
import { RingReader, type TraceRecord } from "./trace-ring.js";

/** A record with the ring it came from: the index of the queue worker, or the number of workers for the main thread. */
export type Traced = { readonly ring: number; readonly record: TraceRecord };

/** One who watches: from its making to its disposal, or its process's end, what it selects is recorded. */
export class TraceWatcher implements Disposable {
  readonly #file: TraceFile;
  readonly #readers: readonly RingReader[];
  readonly #mask: number;

  /** @throws ENOENT no data plane has run here; {LayoutError}; {CapacityError} too many watchers */
  constructor(folder: string, name: string, mask: number) {
    this.#file = TraceFile.open(folder, name);
    this.#mask = mask;
    try {
      this.#readers = Array.from({ length: this.#file.rings }, (_, ring) => new RingReader(this.#file.ring(ring)));
      this.#file.watch(mask);
    } catch (error) {
      this.#file[Symbol.dispose]();
      throw error;
    }
  }

  /** Whether a data plane still writes here. */
  get isLive(): boolean {
    return this.#file.isLive;
  }

  /** Whether the file is another one's now: nothing will ever come again. */
  get isReplaced(): boolean {
    return this.#file.isReplaced;
  }

  /** What has been recorded since the last poll and is selected, in order of time. */
  poll(): readonly Traced[] {
    const found: Traced[] = [];
    this.#readers.forEach((reader, ring) => {
      for (let record = reader.read(); record !== null; record = reader.read()) {
        if ((record.selection & this.#mask) !== 0) found.push({ ring, record });
      }
    });
    return found.sort(
      (a, b) => a.record.seconds - b.record.seconds || a.record.nanoseconds - b.record.nanoseconds || a.ring - b.ring,
    );
  }

  /** Records overwritten before this watcher read them; it may not have selected all of them. */
  get lost(): number {
    return this.#readers.reduce((sum, { lost }) => sum + lost, 0);
  }

  /** Packets that it selected and the rate forbade to record, by bit number of the selection. */
  suppressed(): readonly number[] {
    const each = this.#readers.map((reader) => reader.suppressed());
    return Array.from({ length: SELECTIONS }, (_, bit) =>
      ((this.#mask >> bit) & 1) === 0 ? 0 : each.reduce((sum, bits) => sum + bits[bit]!, 0),
    );
  }

  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]();
  }
}
