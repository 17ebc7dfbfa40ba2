import { compile, type FlowRule, type ItemMemory, LIMITS, streamsOf, TooManyRulesError } from "#flow";
import { KIND_FLOWS, LayoutError } from "./layout.js";
import { ReaderSlot, Region, withWriter } from "./region.js";
import { RegionFile } from "./region-reader.js";
import { decodeRules, encodeRules, rebase } from "./rule-bytes.js";

/**
 * An image begins with three u32: words of the program, bytes of the stream names, bytes of the rules; then those. The
 * program begins on a cache line, as its records and tables do.
 */
const IMAGE_HEADER_BYTES = 64;
/** Room of a fresh region; a larger set of rules moves to a larger file. */
const INITIAL_BYTES = 64 * 1024;
/** Room of a larger file for an image, in images. What is not written takes no memory. */
const ROOM = 2;

/** What compiling again is spared; the program does not depend on it. */
const memory: ItemMemory = new Map();

/** A rule with its place among the counters: its matches are what the slot counted beyond `base`. */
export type StoredRule = { readonly rule: FlowRule; readonly slot: number; readonly base: number };

/** The flow rules as they were at one moment; copies. */
export type FlowTable = {
  /** In evaluation order. */
  readonly rules: readonly StoredRule[];
  /** Names of the tables the rules refer to; the program holds indices into it. */
  readonly streams: readonly string[];
  readonly program: Int32Array;
  /** u32; one more with every change. */
  readonly generation: number;
};

/** Rules that one region takes: counter slots are numbered below this, and half of them may be in use. */
export const COUNTER_RULE_SLOTS = 65_536;

/** Makes an empty region of flow rules unless there is one; the rules of an earlier data plane stay in force. */
export function ensureFlows(folder: string, name: string): void {
  let isUnusable = false;
  try {
    using _region = Region.open(folder, name, KIND_FLOWS, { isTrusted: true });
    return;
  } catch (error) {
    const { code } = error as { code?: string };
    if (code !== "ENOENT" && code !== "ERR_LAYOUT") throw error;
    isUnusable = code === "ERR_LAYOUT"; // another layout, or something else
  }
  const content = encodeImage([]);
  const spec = {
    kind: KIND_FLOWS,
    imageBytes: INITIAL_BYTES,
    sizes: [],
    reservedBytes: INITIAL_BYTES,
    mayReplace: isUnusable, // one that somebody makes at this moment may hold rules
  };
  Region.create(folder, name, spec, content.fill)?.[Symbol.dispose]();
}

/**
 * Changes the flow rules in one step: `change` gets the rules in evaluation order and returns the new ones; they are
 * compiled aside and published. A rule object that comes back as it went in keeps its counter; every other one starts
 * at 0. Nothing is written when no rule changed.
 * @param countOf what a counter slot has counted so far, over all workers
 * @param options.slots counter slots there are; half of them may be in use
 * @param options.deadlineMs how long another writer may hold the region
 * @throws ENOENT no such region; {LayoutError}; {CapacityError} no room, or a reader hangs; {TooManyRulesError} these rules
 * cannot be in force together
 */
export function updateFlows(
  folder: string,
  name: string,
  change: (rules: readonly FlowRule[]) => readonly FlowRule[],
  countOf: (slot: number) => number,
  { slots = COUNTER_RULE_SLOTS, deadlineMs }: { slots?: number; deadlineMs?: number } = {},
): { readonly changed: boolean } {
  const work = (region: Region) => {
    const before = rulesOf(region, decodeImage(region, region.generation).ruleBytes);
    const wanted = change(before.map(({ rule }) => rule));
    const known = new Map(before.map((stored) => [stored.rule, stored]));
    const isSame = wanted.length === before.length && wanted.every((rule, i) => rule === before[i]!.rule);
    if (isSame) return { changed: false };
    if (wanted.length > slots / 2) {
      throw new TooManyRulesError(`${wanted.length} rules; at most ${slots / 2}`);
    }
    const used = new Set(before.map(({ slot }) => slot)); // a slot freed now may still be counted in
    let free = 0;
    const rules = wanted.map((rule): StoredRule => {
      const stored = known.get(rule);
      if (stored !== undefined) return stored;
      while (used.has(free)) free++;
      used.add(free);
      return { rule, slot: free, base: countOf(free) };
    });
    const content = encodeImage(rules);
    if (content.bytes <= region.capacity) {
      region.publish(content.fill, content.bytes);
    } else {
      region.releaseIdle(); // what is in force, and the larger file, may be all that there is room for
      // Numbers go on in the larger file, so that one number never means two sets of rules.
      const generation = (region.generation + 2) & ~1;
      const imageBytes = content.bytes * ROOM;
      const spec = { kind: KIND_FLOWS, imageBytes, sizes: [], generation, reservedBytes: content.bytes };
      Region.create(folder, name, spec, content.fill)?.[Symbol.dispose]();
    }
    return { changed: true };
  };
  return withWriter(folder, name, KIND_FLOWS, work, deadlineMs);
}

/** The flow rules in force. @throws ENOENT no such region; {LayoutError} */
export function readFlows(folder: string, name: string): FlowTable {
  using region = Region.open(folder, name, KIND_FLOWS);
  const slot = new ReaderSlot(region);
  const generation = slot.enter();
  const { ruleBytes, streams, program } = decodeImage(region, generation);
  return { rules: rulesOf(region, ruleBytes), streams, program: program.slice(), generation: generation >>> 0 };
}

/** What a rule has matched: beyond its base; 0 where the counters are younger than the rule. */
export function matchesOf(
  { slot, base }: Pick<StoredRule, "slot" | "base">,
  countOf: (slot: number) => number,
): number {
  return Math.max(0, countOf(slot) - base);
}

/**
 * Counters that were made anew count from 0: rules that began at more begin at what is there. For the owner of the
 * counters, before packets are counted.
 * @param countOf what a counter slot has counted so far, over all workers
 * @throws ENOENT no such region; {LayoutError}
 */
export function rebaseFlows(folder: string, name: string, countOf: (slot: number) => number): void {
  withWriter(folder, name, KIND_FLOWS, (region) => {
    const image = region.image(region.generation);
    const { ruleBytes } = decodeImage(region, region.generation);
    const rebased = readText(region.file.path, () => rebase(ruleBytes, countOf));
    if (rebased === null) return;
    const rulesAt = ruleBytes.byteOffset - image.byteOffset;
    const fill = (next: Uint8Array) => {
      next.set(image.subarray(0, rulesAt));
      next.set(rebased, rulesAt);
    };
    try {
      region.publish(fill, rulesAt + rebased.length);
    } catch (error) {
      if ((error as { code?: string }).code !== "ERR_CAPACITY") throw error; // without it such rules show 0 for a while
    }
  });
}

/** Number of the rules in force, u32; cheaper than reading them. @throws ENOENT no such region; {LayoutError} */
export function flowsGeneration(folder: string, name: string): number {
  using region = RegionFile.open(folder, name, KIND_FLOWS);
  return region.generation;
}

/** Answers of {@link FlowTableReader.enter}. */
export const TABLE_SAME = 0;
export const TABLE_CHANGED = 1;
export const TABLE_RETIRED = 2;

/** A live view of the rules for the packet path; `enter` before, `leave` after a batch. */
export class FlowTableReader implements Disposable {
  /** The program in force, valid until `leave`. Set by `enter`, as is `streams` when it answers TABLE_CHANGED. */
  program: Int32Array;
  streams: readonly string[];
  readonly #region: Region;
  readonly #slot: ReaderSlot;
  #generation: number;

  /** @throws ENOENT, {LayoutError}, {CapacityError} too many readers */
  constructor(folder: string, name: string) {
    this.#region = Region.open(folder, name, KIND_FLOWS, { isTrusted: true });
    try {
      this.#slot = new ReaderSlot(this.#region);
      this.#generation = this.#slot.enter();
      const { streams, program } = decodeImage(this.#region, this.#generation);
      this.program = program;
      this.streams = streams;
      this.#slot.leave();
    } catch (error) {
      this.#region[Symbol.dispose]();
      throw error;
    }
  }

  /** Number of the rules that `program` holds, as a signed word. */
  get generation(): number {
    return this.#generation;
  }

  /** Begins to use the rules in force. Allocates only when they have changed. */
  enter(): typeof TABLE_SAME | typeof TABLE_CHANGED | typeof TABLE_RETIRED {
    if (this.#region.isRetired) return TABLE_RETIRED;
    const generation = this.#slot.enter();
    if (generation === this.#generation) return TABLE_SAME;
    this.#generation = generation;
    const { streams, program } = decodeImage(this.#region, generation);
    this.program = program;
    this.streams = streams;
    return TABLE_CHANGED;
  }

  leave(): void {
    this.#slot.leave();
  }

  [Symbol.dispose](): void {
    this.#region[Symbol.dispose]();
  }
}

/** An image as its length and what writes it. */
function encodeImage(rules: readonly StoredRule[]): {
  readonly bytes: number;
  readonly fill: (image: Uint8Array) => void;
} {
  const flows = rules.map(({ rule }) => rule);
  const slots = rules.map(({ slot }) => slot);
  const program = compile(flows, slots, LIMITS, memory);
  const streams = new TextEncoder().encode(JSON.stringify(streamsOf(flows)));
  const text = encodeRules(rules);
  const streamsAt = IMAGE_HEADER_BYTES + program.byteLength;
  return {
    bytes: streamsAt + streams.length + text.length,
    fill: (image) => {
      new Uint32Array(image.buffer, image.byteOffset, 3).set([program.length, streams.length, text.length]);
      image.set(new Uint8Array(program.buffer, program.byteOffset, program.byteLength), IMAGE_HEADER_BYTES);
      image.set(streams, streamsAt);
      image.set(text, streamsAt + streams.length);
    },
  };
}

/** Program and stream names of an image; the program is a view. @throws {LayoutError} */
function decodeImage(
  region: Region,
  generation: number,
): { readonly program: Int32Array; readonly streams: readonly string[]; readonly ruleBytes: Uint8Array } {
  const offset = region.imageOffset(generation);
  const [programWords = 0, streamBytes = 0, rulesLength = 0] = new Uint32Array(region.file.buffer, offset, 3);
  const streamsAt = IMAGE_HEADER_BYTES + programWords * 4;
  const end = streamsAt + streamBytes + rulesLength;
  const { path } = region.file;
  if (end > region.capacity) throw new LayoutError(path, `${end} bytes of rules in an image of ${region.capacity}`);
  const image = region.image(generation);
  const names = new TextDecoder().decode(image.slice(streamsAt, streamsAt + streamBytes));
  return {
    program: new Int32Array(region.file.buffer, offset + IMAGE_HEADER_BYTES, programWords),
    streams: parseNames(path, names),
    ruleBytes: image.subarray(streamsAt + streamBytes, end),
  };
}

/** Names of streams. @throws {LayoutError} */
function parseNames(path: string, text: string): readonly string[] {
  const names = readText(path, () => JSON.parse(text) as unknown);
  if (Array.isArray(names) && names.every((name) => typeof name === "string")) return names;
  throw new LayoutError(path, "rules cannot be read: their streams are no list of names");
}

/** @throws {LayoutError} */
function rulesOf(region: Region, bytes: Uint8Array): readonly StoredRule[] {
  return readText(region.file.path, () => decodeRules(bytes));
}

function readText<T>(path: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw new LayoutError(path, `rules cannot be read: ${(error as Error).message}`);
  }
}
