import type { PrefixItems } from "./prefix-items.js";
import type { PrefixList } from "./prefix-list.js";

const WORDS = 4;

/**
 * Addresses within one prefix, where rules have prefixes around each other. What is known there of the dimension: nothing but
 * that the address is within it, so that of a rule's prefixes only those within matter.
 */
export type Region = {
  readonly id: number;
  readonly dimension: number;
  /** Four u32 words, of IPv4 addresses only the last. */
  readonly words: readonly number[];
  readonly bits: number;
  /** By a rule's prefixes: those within the region, null if one contains all of it. */
  readonly known: Map<PrefixList, PrefixList | null>;
};

/** The items [from, to) that are within the prefix of item `from`. */
export type Span = { readonly from: number; readonly to: number };

/** Of a span so many prefixes around each other have many rules. */
const LEAST_DEPTH = 3;
/** At least such a share of the items within it is of prefixes with many rules. */
const LEAST_SHARE = 1 / 3;

/**
 * Where prefixes with more than `many` rules each lie within each other, {@link LEAST_DEPTH} deep and more: the outermost of
 * them, apart from each other, ascending.
 */
export function nestedSpans({ count, bits, common }: PrefixItems, many: number): readonly Span[] {
  const start = new Int32Array(count); // by prefix: its first item
  const end = new Int32Array(count); // behind its last item within it
  const depth = new Uint8Array(count); // most prefixes with many rules around each other, it and what is within it
  const rules = new Int32Array(count); // items of those
  const stack: number[] = [];
  let prefixes = 0;
  const close = (to: number) => {
    const prefix = stack.pop()!;
    end[prefix] = to;
    const parent = stack.at(-1);
    if (parent === undefined) return;
    const isMany = start[parent + 1]! - start[parent]! > many;
    depth[parent] = Math.max(depth[parent]!, depth[prefix]! + Number(isMany));
    rules[parent]! += rules[prefix]!;
  };
  for (let i = 0; i < count; ) {
    while (stack.length > 0 && common[i]! < bits[start[stack.at(-1)!]!]!) close(i);
    let next = i + 1;
    while (next < count && bits[next] === bits[i] && common[next]! >= bits[i]!) next++;
    start[prefixes] = i;
    if (prefixes + 1 < count) start[prefixes + 1] = next;
    const isMany = next - i > many;
    depth[prefixes] = Number(isMany);
    rules[prefixes] = isMany ? next - i : 0;
    stack.push(prefixes++);
    i = next;
  }
  while (stack.length > 0) close(count);
  const spans: Span[] = [];
  for (let prefix = 0, at = 0; prefix < prefixes; prefix++) {
    const from = start[prefix]!;
    if (from < at || depth[prefix]! < LEAST_DEPTH) continue;
    const own = (prefix + 1 < prefixes ? start[prefix + 1]! : count) - from;
    const to = end[prefix]!;
    if (own <= many || rules[prefix]! < LEAST_SHARE * (to - from)) continue;
    spans.push({ from, to });
    at = to;
  }
  return spans;
}

/** The items with one in place of each span, whose rule is -1 - the span's number. */
export function withSpans(items: PrefixItems, spans: readonly Span[]): PrefixItems {
  if (spans.length === 0) return items;
  const count = items.count - spans.reduce((sum, { from, to }) => sum + to - from - 1, 0);
  const columns = {
    words: items.words.map((column) => new Uint32Array(column.length === 0 ? 0 : count)),
    bits: new Uint8Array(count),
    rules: new Int32Array(count),
    common: new Uint8Array(count),
  };
  let at = 0;
  const copy = (from: number, to: number) => {
    for (const [k, column] of items.words.entries()) {
      if (column.length > 0) columns.words[k]!.set(column.subarray(from, to), at);
    }
    columns.bits.set(items.bits.subarray(from, to), at);
    columns.rules.set(items.rules.subarray(from, to), at);
    columns.common.set(items.common.subarray(from, to), at);
    at += to - from;
  };
  let from = 0;
  for (const [k, span] of spans.entries()) {
    copy(from, span.from + 1);
    columns.rules[at - 1] = -1 - k;
    from = span.to;
  }
  copy(from, items.count);
  return { count, ...columns };
}

/** A rule's prefixes within a region, or null if one contains all of it. */
export function listWithin(list: PrefixList | null, region: Region): PrefixList | null {
  if (list === null) return null;
  const before = region.known.get(list);
  if (before !== undefined) return before;
  const found = within(list, region);
  region.known.set(list, found);
  return found;
}

function within({ count, words, bits }: PrefixList, region: Region): PrefixList | null {
  let low = 0; // the first prefix that does not begin before the region
  let high = count;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (beginsBefore(words, middle, region)) low = middle + 1;
    else high = middle;
  }
  const around = low > 0 ? low - 1 : 0;
  if (around < count && bits[around]! <= region.bits && agrees(words, around, region, bits[around]!)) return null;
  if (low < count && bits[low]! <= region.bits && agrees(words, low, region, bits[low]!)) return null;
  let to = low;
  while (to < count && agrees(words, to, region, region.bits)) to++;
  return { count: to - low, words: words.subarray(WORDS * low, WORDS * to), bits: bits.subarray(low, to) };
}

function beginsBefore(words: Uint32Array, prefix: number, region: Region): boolean {
  for (let k = 0; k < WORDS; k++) {
    const difference = words[WORDS * prefix + k]! - region.words[k]!;
    if (difference !== 0) return difference < 0;
  }
  return false;
}

/** Whether the first bits of a prefix and of the region are the same. */
function agrees(words: Uint32Array, prefix: number, region: Region, bits: number): boolean {
  for (let k = 0; k * 32 < bits; k++) {
    const rest = bits - k * 32;
    const mask = rest >= 32 ? -1 : -1 << (32 - rest);
    if (((words[WORDS * prefix + k]! ^ region.words[k]!) & mask) !== 0) return false;
  }
  return true;
}
