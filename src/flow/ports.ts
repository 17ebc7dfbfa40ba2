/** Ports first…last, 1…65535, both included. */
export type PortRange = { readonly first: number; readonly last: number };

/**
 * Reads `80,100-200` (also separated by blanks) into sorted, disjoint ranges; overlapping and adjacent ones are merged.
 * An empty text gives no range at all.
 * @returns the offending item when one is not a port or a range of ports 1…65535
 */
export function parsePorts(text: string): readonly PortRange[] | string {
  const ranges: PortRange[] = [];
  for (const item of text.split(/[, ]+/).filter((part) => part !== "")) {
    const match = /^([0-9]{1,5})(?:-([0-9]{1,5}))?$/.exec(item);
    const first = Number(match?.[1]);
    const last = Number(match?.[2] ?? match?.[1]);
    if (match === null || first < 1 || last > 65_535 || first > last) return item;
    ranges.push({ first, last });
  }
  ranges.sort((a, b) => a.first - b.first || a.last - b.last);
  const merged: { first: number; last: number }[] = [];
  for (const { first, last } of ranges) {
    const before = merged.at(-1);
    if (before !== undefined && first <= before.last + 1) before.last = Math.max(before.last, last);
    else merged.push({ first, last });
  }
  return merged;
}

/** `80` or `100-200`. */
export function formatPorts({ first, last }: PortRange): string {
  return first === last ? String(first) : `${first}-${last}`;
}
