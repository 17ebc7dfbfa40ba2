import type { PrefixList } from "./prefix-list.js";
import type { View } from "./rule-code.js";

/** Prefixes of many rules, sorted so that each stands before everything it contains; those of one prefix by rule. */
export type PrefixItems = {
  readonly count: number;
  /** The four u32 words of the prefixes, most significant first; of IPv4 addresses only the last one. */
  readonly words: readonly Uint32Array[];
  readonly bits: Uint8Array;
  readonly rules: Int32Array;
  /** Leading bits that the item shares with the one before it, whatever their lengths; 0…128. */
  readonly common: Uint8Array;
};

type Columns = Omit<PrefixItems, "common">;

/** Up to so many are sorted by comparing them, more by their digits. */
const FEW = 200;
const DIGIT_BITS = 11;
/** Prefixes of 0…128 bits around each other, and one place for what is around all. */
const MOST_NESTED = 130;

/** Items of so many and more are remembered. */
const MANY = 2_048;
/** Where at most so large a share of the items is new, they are merged into those remembered. */
const NEW_SHARE = 0.1;

/** What was gathered last under a name: the rules, their lists and the items. */
type Gathered = { readonly rules: readonly number[]; readonly lists: readonly Lists[]; readonly items: PrefixItems };
type Lists = PrefixList | null;

/**
 * Sorted items, to be merged with what is new the next time: most rules stay from one compilation to the next. What comes
 * out is the same as without it.
 */
export type ItemMemory = Map<string, Gathered>;

/** Gathers items for one compilation, with what an earlier one left. */
export class ItemGatherer {
  readonly #memory: ItemMemory;
  /** Names under which this compilation has left something. */
  readonly #left = new Set<string>();

  constructor(memory: ItemMemory) {
    this.#memory = memory;
  }

  /** The items of `rules` that have a list; the others take every address. @param rules ascending; @param name of the items in the memory */
  gather(
    rules: readonly number[],
    view: View,
    listOf: (rule: number) => PrefixList | null,
    name: string,
  ): { readonly items: PrefixItems; readonly others: readonly number[] } {
    const lists = rules.map(listOf);
    const others = rules.filter((_, i) => lists[i] === null);
    const last = this.#memory.get(name);
    const isLike = last !== undefined && 2 * rules.length > last.rules.length; // most sets are far smaller than the remembered one
    const items = (isLike ? mergeItems(last, rules, lists, view) : null) ?? sortItems(columnsOf(rules, lists, view));
    if (items.count >= MANY && (isLike || !this.#left.has(name))) {
      this.#memory.set(name, { rules, lists, items });
      this.#left.add(name);
    }
    return { items, others };
  }
}

function columnsOf(rules: readonly number[], lists: readonly Lists[], view: View): Columns {
  const count = lists.reduce((sum, list) => sum + (list?.count ?? 0), 0);
  const first = firstWord(view);
  const words = Array.from({ length: 4 }, (_, k) => new Uint32Array(k < first ? 0 : count));
  const bits = new Uint8Array(count);
  const owners = new Int32Array(count);
  let at = 0;
  for (let i = 0; i < rules.length; i++) {
    const list = lists[i]!;
    if (list === null) continue;
    for (let k = first; k < 4; k++) {
      const column = words[k]!;
      for (let j = 0; j < list.count; j++) column[at + j] = list.words[4 * j + k]!;
    }
    bits.set(list.bits, at);
    owners.fill(rules[i]!, at, at + list.count);
    at += list.count;
  }
  return { count, words, bits, rules: owners };
}

/** Of IPv4 addresses only the last word is looked at. */
function firstWord(view: View): number {
  return view === 4 ? 3 : 0;
}

/** The items by way of those gathered last, or null where too much is new or the rules are in another order. */
function mergeItems(last: Gathered, rules: readonly number[], lists: readonly Lists[], view: View): PrefixItems | null {
  const places = new Int32Array((last.rules.at(-1) ?? -1) + 1).fill(-1); // by rule of last time
  const stay = (at: number, now: number) => {
    if (last.lists[at] !== lists[now]) return false;
    places[last.rules[at]!] = rules[now]!;
    return true;
  };
  let low = 0; // lists before it, and as many as `high` at the end, are what they were
  while (low < lists.length && low < last.lists.length && stay(low, low)) low++;
  let high = 0;
  const least = Math.min(lists.length, last.lists.length) - low;
  while (high < least && stay(last.lists.length - 1 - high, lists.length - 1 - high)) high++;
  const fresh = new Map<PrefixList, number>();
  for (let i = low; i < lists.length - high; i++) {
    const list = lists[i]!;
    if (list === null) continue;
    if (fresh.has(list)) return null; // one rule twice
    fresh.set(list, rules[i]!);
  }
  let before = -1;
  for (let i = low; i < last.lists.length - high; i++) {
    const list = last.lists[i]!;
    const rule = list === null ? undefined : fresh.get(list);
    if (rule === undefined) continue;
    if (rule < before) return null;
    before = rule;
    places[last.rules[i]!] = rule;
    fresh.delete(list!);
  }
  let freshCount = 0;
  for (const { count } of fresh.keys()) freshCount += count;
  if (freshCount > NEW_SHARE * last.items.count) return null;
  return mergeSorted(last.items, places, sortItems(columnsOf([...fresh.values()], [...fresh.keys()], view)), view);
}

/** Old items, those whose rule has a new place, and fresh ones in one order: copied in runs, as most stay together. */
function mergeSorted(old: PrefixItems, places: Int32Array, fresh: PrefixItems, view: View): PrefixItems {
  const first = firstWord(view);
  const most = old.count + fresh.count;
  const words = old.words.map((_, k) => new Uint32Array(k < first ? 0 : most));
  const bits = new Uint8Array(most);
  const rules = new Int32Array(most);
  const common = new Uint8Array(most);
  let count = 0;
  const copy = (from: PrefixItems, start: number, end: number, placeOf: Int32Array | null) => {
    if (start === end) return;
    for (let k = first; k < 4; k++) words[k]!.set(from.words[k]!.subarray(start, end), count);
    bits.set(from.bits.subarray(start, end), count);
    common.set(from.common.subarray(start, end), count);
    for (let i = start; i < end; i++) {
      rules[count + i - start] = placeOf === null ? from.rules[i]! : placeOf[from.rules[i]!]!;
    }
    common[count] = count === 0 ? 0 : commonBits(words, first, count - 1, count);
    count += end - start;
  };
  // Rules that are gone stand where the one before them does, so that the order is one all the same.
  const standsAt = places.slice();
  for (let rule = 1; rule < standsAt.length; rule++) if (standsAt[rule]! < 0) standsAt[rule] = standsAt[rule - 1]!;
  let start = 0; // of the run of old items to be copied next
  let next = 0;
  let before = next < fresh.count ? placeFor(fresh, next, old, standsAt, first) : old.count;
  for (let i = 0; i <= old.count; i++) {
    while (next < fresh.count && before === i) {
      copy(old, start, i, places);
      start = i;
      copy(fresh, next, next + 1, null);
      next++;
      if (next < fresh.count) before = placeFor(fresh, next, old, standsAt, first);
    }
    if (i === old.count || places[old.rules[i]!]! >= 0) continue;
    copy(old, start, i, places);
    start = i + 1;
  }
  copy(old, start, old.count, places);
  const whole = { bits: bits.subarray(0, count), rules: rules.subarray(0, count), common: common.subarray(0, count) };
  return { count, words: words.map((column) => column.subarray(0, count)), ...whole };
}

/** Index of the first old item that fresh item j stands before. */
function placeFor(fresh: PrefixItems, j: number, old: PrefixItems, standsAt: Int32Array, first: number): number {
  let low = 0;
  let high = old.count;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (isBefore(fresh, j, old, middle, standsAt[old.rules[middle]!]!, first)) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Whether fresh item j stands before old item i, which is now of `rule`. */
function isBefore(fresh: PrefixItems, j: number, old: PrefixItems, i: number, rule: number, first: number): boolean {
  for (let k = first; k < 4; k++) {
    const difference = fresh.words[k]![j]! - old.words[k]![i]!;
    if (difference !== 0) return difference < 0;
  }
  const difference = fresh.bits[j]! - old.bits[i]!;
  return difference === 0 ? fresh.rules[j]! < rule : difference < 0;
}

/** Some of the items, in the same order. */
export function pickItems(items: PrefixItems, indices: readonly number[]): PrefixItems {
  return permute(items, Uint32Array.from(indices));
}

function sortItems(columns: Columns): PrefixItems {
  const { count, words, bits } = columns;
  let order = new Uint32Array(count);
  for (let i = 0; i < count; i++) order[i] = i;
  if (count <= FEW) {
    order.sort((a, b) => compare(columns, a, b));
    return permute(columns, order);
  }
  let other = new Uint32Array(count);
  for (const column of [new Uint32Array(bits), ...words.toReversed()]) {
    const differing = differingBits(column);
    for (let shift = 0; shift < 32; shift += DIGIT_BITS) {
      if (((differing >>> shift) & ((1 << DIGIT_BITS) - 1)) === 0) continue;
      sortByDigit(column, shift, order, other);
      [order, other] = [other, order];
    }
  }
  return permute(columns, order);
}

/** The bits in which not all are equal. */
function differingBits(column: Uint32Array): number {
  let all = -1;
  let any = 0;
  for (let i = 0; i < column.length; i++) {
    all &= column[i]!;
    any |= column[i]!;
  }
  return any & ~all;
}

/** One pass of a radix sort: `from` in the order of a digit of the column, into `to`. */
function sortByDigit(column: Uint32Array, shift: number, from: Uint32Array, to: Uint32Array): void {
  const mask = (1 << DIGIT_BITS) - 1;
  const places = new Uint32Array(1 << DIGIT_BITS);
  for (let i = 0; i < column.length; i++) places[(column[i]! >>> shift) & mask]!++;
  let sum = 0;
  for (let digit = 0; digit < places.length; digit++) {
    const count = places[digit]!;
    places[digit] = sum;
    sum += count;
  }
  for (let i = 0; i < from.length; i++) {
    const item = from[i]!;
    to[places[(column[item]! >>> shift) & mask]!++] = item;
  }
}

function permute({ words, bits, rules }: Columns, order: Uint32Array): PrefixItems {
  const count = order.length;
  const sorted = {
    count,
    words: words.map((column) => new Uint32Array(column.length === 0 ? 0 : count)),
    bits: new Uint8Array(count),
    rules: new Int32Array(count),
  };
  for (let k = 0; k < 4; k++) {
    const from = words[k]!;
    const to = sorted.words[k]!;
    if (from.length > 0) for (let i = 0; i < count; i++) to[i] = from[order[i]!]!;
  }
  for (let i = 0; i < count; i++) {
    sorted.bits[i] = bits[order[i]!]!;
    sorted.rules[i] = rules[order[i]!]!;
  }
  return withCommon(sorted);
}

function withCommon(columns: Columns): PrefixItems {
  const { count, words } = columns;
  const common = new Uint8Array(count);
  const first = count > 0 && words[0]!.length === 0 ? 3 : 0;
  for (let i = 1; i < count; i++) common[i] = commonBits(words, first, i - 1, i);
  return { ...columns, common };
}

function compare({ words, bits }: Pick<Columns, "words" | "bits">, a: number, b: number): number {
  for (const column of words) {
    if (column.length > 0 && column[a] !== column[b]) return column[a]! - column[b]!;
  }
  return bits[a]! - bits[b]!;
}

function commonBits(words: readonly Uint32Array[], first: number, a: number, b: number): number {
  for (let k = first; k < 4; k++) {
    const difference = words[k]![a]! ^ words[k]![b]!;
    if (difference !== 0) return k * 32 + Math.clz32(difference);
  }
  return 128;
}

/**
 * How many rules there are in all regions that the items divide addresses into, taken together, how many such regions,
 * and how many rules in one of them at most.
 * @param others rules that take every address
 */
export function weigh(
  { count, bits, common }: PrefixItems,
  others: number,
): { readonly sum: number; readonly regions: number; readonly most: number } {
  const ends = new Uint8Array(MOST_NESTED); // prefixes around the current one: bits, and rules so far
  const sums = new Int32Array(MOST_NESTED);
  sums[0] = others;
  let depth = 0;
  let sum = others;
  let regions = 1;
  let most = others;
  for (let i = 0; i < count; ) {
    while (depth > 0 && common[i]! < ends[depth]!) depth--;
    let end = i + 1;
    while (end < count && bits[end] === bits[i] && common[end]! >= bits[i]!) end++;
    sums[depth + 1] = sums[depth]! + end - i;
    ends[++depth] = bits[i]!;
    sum += sums[depth]!;
    if (sums[depth]! > most) most = sums[depth]!;
    regions++;
    i = end;
  }
  return { sum, regions, most };
}
