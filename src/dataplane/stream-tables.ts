import { StreamTableReader } from "#tables";

/** How long a table that is not there is not looked for again: packets for it must not cost an open(2) each. */
const RETRY_MS = 20;

/**
 * The lookup tables of the streams that the flow rules name, opened by name. A table is entered at most once per batch,
 * when its first packet comes, so that a packet sees one image from start to end and idle streams cost nothing.
 * A table that was deleted or replaced is opened anew by its name at that moment.
 */
export class StreamTables implements Disposable {
  readonly #folder: string;
  readonly #isCounting: boolean;
  #names: readonly string[] = [];
  #readers: (StreamTableReader | null)[] = [];
  /** 1 where the table was entered in this batch. */
  #entered = new Uint8Array(0);
  #enteredList = new Int32Array(0);
  #enteredCount = 0;
  /** When a missing table may be looked for again, per stream. */
  #retryAtMs = new Float64Array(0);

  /** @param isCounting whether packets sent to targets are counted for others to see; not for decisions that only explain */
  constructor(folder: string, { isCounting = false } = {}) {
    this.#folder = folder;
    this.#isCounting = isCounting;
  }

  /**
   * Sets the tables by name; readers of names that stay are kept. Not within a batch. A name without a table is no
   * error: its packets have no target until the table appears.
   */
  setNames(names: readonly string[]): void {
    const before = new Map(this.#names.map((name, index) => [name, this.#readers[index] ?? null]));
    this.#readers = names.map((name) => {
      const reader = before.get(name) ?? null;
      before.delete(name);
      return reader;
    });
    for (const reader of before.values()) reader?.[Symbol.dispose]();
    this.#names = names;
    this.#entered = new Uint8Array(names.length);
    this.#enteredList = new Int32Array(names.length);
    this.#retryAtMs = new Float64Array(names.length);
  }

  /** The table of a stream, fixed until the batch ends, or null when there is none of that name. */
  current(stream: number): StreamTableReader | null {
    if (this.#entered[stream] === 1) return this.#readers[stream]!;
    this.#entered[stream] = 1;
    this.#enteredList[this.#enteredCount++] = stream;
    const reader = this.#readers[stream]!;
    if (reader?.enter()) return reader;
    return this.#reopen(stream);
  }

  /** Ends the batch: the writer may reuse the images seen. */
  leave(): void {
    for (let i = 0; i < this.#enteredCount; i++) {
      const stream = this.#enteredList[i]!;
      this.#entered[stream] = 0;
      this.#readers[stream]?.leave();
    }
    this.#enteredCount = 0;
  }

  /** Once per change of a table's file, not per packet: the one place of the packet path that allocates. */
  #reopen(stream: number): StreamTableReader | null {
    const nowMs = performance.now();
    if (nowMs < this.#retryAtMs[stream]!) return null;
    this.#retryAtMs[stream] = nowMs + RETRY_MS;
    this.#readers[stream]?.[Symbol.dispose]();
    this.#readers[stream] = null;
    try {
      const reader = new StreamTableReader(this.#folder, this.#names[stream]!, { isCounting: this.#isCounting });
      if (!reader.enter()) {
        reader[Symbol.dispose]();
        return null;
      }
      this.#readers[stream] = reader;
      this.#retryAtMs[stream] = 0;
      return reader;
    } catch {
      return null; // no table of that name (yet); counted as a packet without target
    }
  }

  [Symbol.dispose](): void {
    for (const reader of this.#readers) reader?.[Symbol.dispose]();
    this.#readers = [];
  }
}
