import { formatRefusal, type Refusal } from "./refusal.js";
import { equalBytes, splitList } from "./wire.js";

/** What one object of a list turned out to be; null is none of ours, without a word. */
export type Candidate<T> = { readonly value: T } | { readonly refusal: Refusal } | null;

/** A list as read: values in the order of their keys, each key once. */
export type ReadList<T> = { readonly values: readonly T[]; readonly refusals: readonly Refusal[] };

export type ListRules<T> = {
  /** Decodes one object. Called once per object as long as its bytes don't change. */
  readonly decode: (bytes: Uint8Array) => Candidate<T>;
  /** Order of keys; 0 for objects with the same key. */
  readonly compare: (a: T, b: T) => number;
  /** What is said of an object whose key stands twice; null drops it without a word. */
  readonly toDuplicate: (value: T) => Refusal | null;
  /** A rule that depends on more than the object itself; null when it holds. */
  readonly check?: (value: T) => Refusal | null;
};

/**
 * Reads one list of the contract again and again, at a cost that follows what changed: equal bytes are recognised as a
 * whole, then object by object, and a value that says the same stays the same JavaScript object. So `===` tells callers
 * whether there is anything to do.
 *
 * The result depends on the set of objects, not on their order: of several with one key the one whose JSON text comes
 * first is taken, and instances that are told the same in different order agree.
 */
export class ListReader<T> {
  readonly #rules: ListRules<T>;
  #bytes: Uint8Array | null = null;
  #candidates: readonly Candidate<T>[] = [];
  #list: ReadList<T> = { values: [], refusals: [] };

  constructor(rules: ListRules<T>) {
    this.#rules = rules;
  }

  /** Whether any answer was read. */
  get isKnown(): boolean {
    return this.#bytes !== null;
  }

  /** The last answer, or null. Over the memory that `read` was given. */
  get bytes(): Uint8Array | null {
    return this.#bytes;
  }

  get list(): ReadList<T> {
    return this.#list;
  }

  /**
   * Takes an answer. Keeps its memory.
   * @returns the list; the same object as before when it says the same
   * @throws {MalformedAnswer} nothing was taken
   */
  read(bytes: Uint8Array): ReadList<T> {
    if (this.#bytes !== null && equalBytes(this.#bytes, bytes)) return this.#list;
    this.#candidates = this.#decode(splitList(bytes));
    this.#bytes = bytes;
    return this.settle();
  }

  /** Applies `check` and the rules between objects again; needed when what `check` depends on has changed. */
  settle(): ReadList<T> {
    const { compare, check, toDuplicate } = this.#rules;
    const refusals: Refusal[] = [];
    const good: T[] = [];
    for (const candidate of this.#candidates) {
      if (candidate === null) continue;
      const refusal = "refusal" in candidate ? candidate.refusal : check?.(candidate.value);
      if (refusal) refusals.push(refusal);
      else good.push((candidate as { readonly value: T }).value);
    }
    good.sort((a, b) => compare(a, b) || compareText(JSON.stringify(a), JSON.stringify(b)));
    const values: T[] = [];
    for (const value of good) {
      const isDuplicate = values.length > 0 && compare(values.at(-1)!, value) === 0;
      const refusal = isDuplicate ? toDuplicate(value) : null;
      if (refusal !== null) refusals.push(refusal);
      if (!isDuplicate) values.push(value);
    }
    refusals.sort((a, b) => compareText(formatRefusal(a), formatRefusal(b)));
    const next = {
      values: reuse(this.#list.values, values, compare),
      refusals: equalRefusals(this.#list.refusals, refusals) ? this.#list.refusals : refusals,
    };
    const isSame = next.values === this.#list.values && next.refusals === this.#list.refusals;
    if (!isSame) this.#list = next;
    return this.#list;
  }

  /** Candidates of the objects; those whose bytes stood in the last answer are taken from there. */
  #decode(items: readonly Uint8Array[]): readonly Candidate<T>[] {
    const known = this.#bytes === null ? [] : splitList(this.#bytes);
    let places: Map<string, number> | null = null;
    let next = 0; // where the last answer goes on; most of it comes again in the same order
    return items.map((item) => {
      for (const place of [next, next + 1]) {
        if (place < known.length && equalBytes(known[place]!, item)) {
          next = place + 1;
          return this.#candidates[place]!;
        }
      }
      places ??= new Map(known.map((bytes, i) => [toKey(bytes), i]));
      const place = places.get(toKey(item));
      if (place === undefined) return this.#rules.decode(item);
      next = place + 1;
      return this.#candidates[place]!;
    });
  }
}

export function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function toKey(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
}

function equalRefusals(a: readonly Refusal[], b: readonly Refusal[]): boolean {
  return a.length === b.length && a.every((refusal, i) => formatRefusal(refusal) === formatRefusal(b[i]!));
}

/** `next` with the objects of `last` wherever they say the same; `last` itself when all do. Both are in key order. */
function reuse<T>(last: readonly T[], next: readonly T[], compare: (a: T, b: T) => number): readonly T[] {
  let at = 0;
  const values = next.map((value) => {
    while (at < last.length && compare(last[at]!, value) < 0) at++;
    const old = last[at];
    return old !== undefined && (old === value || JSON.stringify(old) === JSON.stringify(value)) ? old : value;
  });
  return values.length === last.length && values.every((value, i) => value === last[i]) ? last : values;
}
