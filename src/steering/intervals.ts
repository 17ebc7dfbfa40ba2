import { isIpv4, parsePrefix } from "#model";
import type { Element } from "#netlink/nftables";

/** Addresses from `first` up to, not including, `end`; `end` = 2^bits for the highest address. */
type Interval = { readonly first: bigint; readonly end: bigint };

/**
 * The elements of an interval set for prefixes of one family: overlapping and adjacent prefixes are merged, since the
 * kernel refuses overlaps. An interval that reaches the highest address has no end element.
 * @param prefixes CIDR text of both families; those of the other family are left out
 */
export function intervalElements(prefixes: readonly string[], family: 4 | 6): readonly Element[] {
  const bytes = family === 4 ? 4 : 16;
  const size = 1n << BigInt(bytes * 8);
  const intervals = prefixes.flatMap((text): Interval[] => {
    const prefix = parsePrefix(text);
    const is4 = isIpv4(prefix.address) && prefix.bits >= 96;
    if (is4 !== (family === 4)) return [];
    const first = toNumber(prefix.address) & (size - 1n);
    return [{ first, end: first + (1n << BigInt(128 - prefix.bits)) }];
  });
  const merged: Interval[] = [];
  for (const interval of intervals.toSorted((a, b) => (a.first < b.first ? -1 : a.first > b.first ? 1 : 0))) {
    const before = merged.at(-1);
    if (before === undefined || interval.first > before.end) merged.push(interval);
    else if (interval.end > before.end) merged[merged.length - 1] = { first: before.first, end: interval.end };
  }
  return merged.flatMap(({ first, end }) => [
    { key: toBytes(first, bytes), isEnd: false },
    ...(end === size ? [] : [{ key: toBytes(end, bytes), isEnd: true }]),
  ]);
}

/** What to delete from and to add to an interval set; an interval goes or comes as a whole. */
export function diffElements(
  desired: readonly Element[],
  actual: readonly Element[],
): { readonly added: readonly Element[]; readonly deleted: readonly Element[] } {
  const wanted = pairs(desired);
  const present = pairs(actual);
  const only = (these: ReadonlyMap<string, readonly Element[]>, those: ReadonlyMap<string, unknown>) =>
    [...these].filter(([text]) => !those.has(text)).flatMap(([, elements]) => elements);
  return { added: only(wanted, present), deleted: only(present, wanted) };
}

/** Intervals by their text: each start with the end that follows it. */
function pairs(elements: readonly Element[]): ReadonlyMap<string, readonly Element[]> {
  const sorted = elements.toSorted(
    (a, b) => Buffer.compare(a.key, b.key) || Number(b.isEnd === true) - Number(a.isEnd === true),
  );
  const result = new Map<string, readonly Element[]>();
  for (const [i, start] of sorted.entries()) {
    if (start.isEnd === true) continue;
    const next = sorted[i + 1];
    const interval = next?.isEnd === true && start.isCatchAll !== true ? [start, next] : [start];
    result.set(interval.map(({ key }) => Buffer.from(key).toString("hex")).join("-"), interval);
  }
  return result;
}

function toNumber(bytes: Uint8Array): bigint {
  return BigInt(`0x${Buffer.from(bytes).toString("hex")}`);
}

function toBytes(value: bigint, length: number): Uint8Array {
  return new Uint8Array(Buffer.from(value.toString(16).padStart(length * 2, "0"), "hex"));
}
