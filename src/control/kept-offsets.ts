import { isDeepStrictEqual } from "node:util";
import type { OffsetPlacement, Offsets } from "./offsets.js";
import { readOffsets, writeOffsets } from "./state-file.js";
import type { Log } from "./turn-log.js";

/** The fwmark ranges in force, and beside the tables, where they outlive the process. */
export class KeptOffsets {
  readonly #folder: string;
  readonly #placement: OffsetPlacement;
  #current: Offsets;
  #savedText: string;
  /** Those of which the last try to save them went well. */
  #kept: Offsets | null = null;

  /** Takes over the ranges of an earlier run, unless that was told to place them otherwise: then they are given anew. */
  constructor(folder: string, placement: OffsetPlacement, log: Log) {
    this.#folder = folder;
    this.#placement = placement;
    const { offsets, placement: before } = readOffsets(folder);
    const isSaved = isDeepStrictEqual(before, placement);
    const isSamePlace = isSaved || before === null;
    if (!isSamePlace && offsets.size > 0)
      log.info("fwmark ranges are given anew, the settings of their place have changed", { before, now: placement });
    this.#current = isSamePlace ? offsets : new Map();
    this.#savedText = isSaved ? JSON.stringify([...this.#current]) : "";
  }

  get current(): Offsets {
    return this.#current;
  }

  /** @returns what could not be saved; the ranges are in force nevertheless */
  keep(offsets: Offsets): readonly string[] {
    if (offsets === this.#kept) return [];
    const text = JSON.stringify([...offsets]);
    this.#current = offsets;
    try {
      if (text !== this.#savedText) writeOffsets(this.#folder, offsets, this.#placement);
      this.#savedText = text;
      this.#kept = offsets;
      return [];
    } catch (error) {
      return [`fwmark ranges are not saved, a restart may give others: ${(error as Error).message}`];
    }
  }
}
