import { formatRefusal, type Refusal } from "./refusal.js";
import { equalBytes, findList } from "./wire.js";

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
  /** Where its objects stand in it, as {@link findList} says. */
  #bounds: readonly number[] = [];
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
    const bounds = findList(bytes);
    this.#candidates = this.#decode(bytes, bounds);
    this.#bytes = bytes;
    this.#bounds = bounds;
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
  #decode(bytes: Uint8Array, bounds: readonly number[]): readonly Candidate<T>[] {
    const [last, known, count] = [this.#bytes ?? bytes, this.#bounds, bounds.length];
    const isSame = (at: number, place: number) => equalRange(bytes, bounds, at, last, known, place);
    // Most of the last answer comes again in the same order: what is the same in front and at the back is left alone.
    const shorter = Math.min(count, known.length);
    let front = 0;
    while (front < shorter && isSame(front, front)) front += 2;
    let back = 0;
    while (back < shorter - front && isSame(count - back - 2, known.length - back - 2)) back += 2;
    const places = new Map<string, number>();
    for (let at = front; at < known.length - back; at += 2) places.set(toKey(last, known, at), at / 2);
    const candidates = this.#candidates.slice(0, front / 2);
    for (let at = front; at < count - back; at += 2) {
      const place = places.get(toKey(bytes, bounds, at));
      const item = () => bytes.subarray(bounds[at], bounds[at + 1]);
      candidates.push(place === undefined ? this.#rules.decode(item()) : this.#candidates[place]!);
    }
    return [...candidates, ...this.#candidates.slice((known.length - back) / 2)];
  }
}

export function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** An object as text: bytes `bounds[at]` to `bounds[at + 1]`. */
function toKey(bytes: Uint8Array, bounds: readonly number[], at: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1", bounds[at], bounds[at + 1]);
}

/** Compares by itself: for so few bytes a call of the library costs more. */
function equalRange(
  a: Uint8Array,
  boundsA: readonly number[],
  atA: number,
  b: Uint8Array,
  boundsB: readonly number[],
  atB: number,
): boolean {
  const [startA, startB] = [boundsA[atA]!, boundsB[atB]!];
  const length = boundsA[atA + 1]! - startA;
  if (boundsB[atB + 1]! - startB !== length) return false;
  for (let i = 0; i < length; i++) if (a[startA + i] !== b[startB + i]) return false;
  return true;
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
