import { COUNT_SHIFT, NODE_PORTS, reference, SOURCE_PORT_BIT } from "./program.js";
import type { WordWriter } from "./word-writer.js";

/** The ports from `first` up to the next interval lead to `node`. */
export type PortInterval = { readonly first: number; readonly node: number };

/** The packet's key has the ports in this 32-bit word, the source's in the upper half. */
const KEY_WORD_PORTS = 9;
/** A node has up to so many blocks, and up to so many more as there are intervals. */
const BLOCKS = 64;
const BLOCKS_PER_INTERVAL = 8;

/**
 * Writes the nodes that lead from a port to its interval: the ports from the first bound to the last one are divided into
 * blocks, of one port if there is room for so many blocks; a block with several intervals has a node of its own.
 * @param intervals ascending, the first begins at 0
 */
export function buildPortTree(words: WordWriter, intervals: readonly PortInterval[], isSource: boolean): number {
  const distinct = intervals.filter(({ node }, i) => i === 0 || node !== intervals[i - 1]!.node);
  return portNode(words, distinct, isSource);
}

function portNode(words: WordWriter, intervals: readonly PortInterval[], isSource: boolean): number {
  if (intervals.length === 1) return intervals[0]!.node;
  const base = intervals[1]!.first;
  const span = intervals.at(-1)!.first - base;
  let shift = 0;
  while (span >> shift > BLOCKS + BLOCKS_PER_INTERVAL * intervals.length) shift++;
  const blocks = Math.ceil(span / 2 ** shift);
  const children = [intervals[0]!.node];
  let at = 1; // interval that the block's first port is in
  for (let block = 0; block < blocks; block++) {
    const start = base + block * 2 ** shift;
    while (at + 1 < intervals.length && intervals[at + 1]!.first <= start) at++;
    let end = at + 1;
    while (end < intervals.length && intervals[end]!.first < start + 2 ** shift) end++;
    children.push(portNode(words, intervals.slice(at, end), isSource));
    at = end - 1;
  }
  children.push(intervals.at(-1)!.node);
  const control = shift | (isSource ? SOURCE_PORT_BIT : 0) | (blocks << COUNT_SHIFT);
  return reference(NODE_PORTS, words.append([control, base, ...children]), KEY_WORD_PORTS);
}

/** Ports at which the set of rules changes, ascending, with the rules that begin and that end there. */
export function portChanges(
  rules: readonly number[],
  rangesOf: (rule: number) => readonly { readonly first: number; readonly last: number }[] | null,
): readonly { readonly first: number; readonly enter: readonly number[]; readonly leave: readonly number[] }[] {
  const changes = new Map<number, { first: number; enter: number[]; leave: number[] }>();
  const at = (first: number) => {
    const before = changes.get(first);
    if (before !== undefined) return before;
    const change = { first, enter: [], leave: [] };
    changes.set(first, change);
    return change;
  };
  at(0);
  for (const rule of rules) {
    const ranges = rangesOf(rule);
    if (ranges === null) at(0).enter.push(rule);
    for (const { first, last } of ranges ?? []) {
      at(first).enter.push(rule);
      if (last < 65_535) at(last + 1).leave.push(rule);
    }
  }
  return [...changes.values()].sort((a, b) => a.first - b.first);
}
