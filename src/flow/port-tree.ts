import { COUNT_SHIFT, NODE_PORTS, PORTS_BASE, PORTS_CHILDREN, reference, SOURCE_PORT_BIT } from "./program.js";
import type { WordWriter } from "./word-writer.js";

/** The ports from `first` up to the next interval lead to `node`. */
export type PortInterval = { readonly first: number; readonly node: number };

/** The packet's key has the ports in this 32-bit word, the source's in the upper half. */
const KEY_WORD_PORTS = 9;
/** A node has up to so many blocks, and up to so many more as there are intervals. */
const BLOCKS = 64;
const BLOCKS_PER_INTERVAL = 8;
const LAST_PORT = 65_535;

/**
 * Writes the nodes that lead from a port to its interval: the ports from the first bound to the last one are divided into
 * blocks, of one port if there is room for so many blocks; a block with several intervals has a node of its own.
 * @param intervals ascending, the first begins at 0
 */
export function buildPortTree(words: WordWriter, intervals: readonly PortInterval[], isSource: boolean): number {
  const distinct = intervals.filter(({ node }, i) => i === 0 || node !== intervals[i - 1]!.node);
  return portNode(words, distinct, 0, distinct.length, isSource);
}

/** The node for intervals [from, to). */
function portNode(
  words: WordWriter,
  intervals: readonly PortInterval[],
  from: number,
  to: number,
  isSource: boolean,
): number {
  if (to - from === 1) return intervals[from]!.node;
  const base = intervals[from + 1]!.first;
  const span = intervals[to - 1]!.first - base;
  let shift = 0;
  while (span >> shift > BLOCKS + BLOCKS_PER_INTERVAL * (to - from)) shift++;
  const blocks = Math.ceil(span / 2 ** shift);
  const children = new Int32Array(PORTS_CHILDREN + blocks + 2);
  children[0] = shift | (isSource ? SOURCE_PORT_BIT : 0) | (blocks << COUNT_SHIFT);
  children[PORTS_BASE] = base;
  children[PORTS_CHILDREN] = intervals[from]!.node;
  let at = from + 1; // interval that the block's first port is in
  for (let block = 0; block < blocks; block++) {
    const start = base + block * 2 ** shift;
    while (at + 1 < to && intervals[at + 1]!.first <= start) at++;
    let end = at + 1;
    while (end < to && intervals[end]!.first < start + 2 ** shift) end++;
    children[PORTS_CHILDREN + 1 + block] = portNode(words, intervals, at, end, isSource);
    at = end - 1;
  }
  children[PORTS_CHILDREN + 1 + blocks] = intervals[to - 1]!.node;
  return reference(NODE_PORTS, words.append(children), KEY_WORD_PORTS);
}

/** Ports at which the set of rules changes, ascending, with the rules that begin and that end there. */
export type PortChange = {
  readonly first: number;
  readonly enter: readonly number[];
  readonly leave: readonly number[];
};

/** @param rangesOf first << 16 | last each, or null: the rule takes any port */
export function portChanges(
  rules: readonly number[],
  rangesOf: (rule: number) => Int32Array | null,
): readonly PortChange[] {
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
    for (const range of ranges ?? []) {
      at(range >>> 16).enter.push(rule);
      if ((range & 0xffff) < LAST_PORT) at((range & 0xffff) + 1).leave.push(rule);
    }
  }
  return [...changes.values()].sort((a, b) => a.first - b.first);
}

/** Ranges of ports of many rules: range i, first << 16 | last, is one of rule i's. */
export type PortItems = { readonly rules: Int32Array; readonly ranges: Int32Array };

/** The ranges of `rules`, and the others, which take any port. */
export function gatherPorts(
  rules: readonly number[],
  rangesOf: (rule: number) => Int32Array | null,
): { readonly items: PortItems; readonly others: readonly number[] } {
  const lists = rules.map(rangesOf);
  const count = lists.reduce((sum, list) => sum + (list?.length ?? 0), 0);
  const items = { rules: new Int32Array(count), ranges: new Int32Array(count) };
  const others: number[] = [];
  let at = 0;
  for (let i = 0; i < rules.length; i++) {
    const list = lists[i]!;
    if (list === null) {
      others.push(rules[i]!);
      continue;
    }
    items.rules.fill(rules[i]!, at, at + list.length);
    items.ranges.set(list, at);
    at += list.length;
  }
  return { items, others };
}

/**
 * How many rules there are in all regions that the ranges divide ports into, taken together, and how many such regions.
 * @param others rules that take every port
 */
export function weighPorts({ ranges }: PortItems, others: number): { readonly sum: number; readonly regions: number } {
  let inside = others;
  let sum = others;
  let regions = 1;
  const pass = (change: number) => {
    inside += change;
    sum += inside;
    regions++;
  };
  if (ranges.length > MANY_RANGES) passAll(ranges, pass);
  else for (const [, change] of bordersOf(ranges)) pass(change);
  return { sum, regions };
}

/** From so many ranges on a look at every port is faster than sorting. */
const MANY_RANGES = 4_096;

/** How many more ranges begin than end at each port where one does, in the order of ports. */
function passAll(ranges: Int32Array, pass: (change: number) => void): void {
  const changes = new Int32Array(LAST_PORT + 2);
  const isBorder = new Uint8Array(LAST_PORT + 2);
  for (let i = 0; i < ranges.length; i++) {
    const first = ranges[i]! >>> 16;
    const end = (ranges[i]! & 0xffff) + 1;
    changes[first]!++;
    changes[end]!--;
    isBorder[first] = isBorder[end] = 1;
  }
  for (let port = 0; port < changes.length; port++) if (isBorder[port] === 1) pass(changes[port]!);
}

/** The same of few. */
function bordersOf(ranges: Int32Array): Iterable<readonly [number, number]> {
  const changes = new Map<number, number>();
  const add = (port: number, change: number) => changes.set(port, (changes.get(port) ?? 0) + change);
  for (const range of ranges) {
    add(range >>> 16, 1);
    add((range & 0xffff) + 1, -1);
  }
  return [...changes].sort(([a], [b]) => a - b);
}

/** What {@link divide} does with the rules it finds; a set of rules is a number that means something to it alone. */
export type PortTarget = {
  /** The set with rules in it that take all its ports. */
  readonly add: (set: number, rules: readonly number[]) => number;
  /** The set with rules [from, to) in it whose ports have to be tested yet, up to `untested`; in any order, perhaps repeated. */
  readonly addUntested: (set: number, rules: ArrayLike<number>, from: number, to: number) => number;
  readonly untested: number;
  readonly leaf: (set: number) => number;
  /** The first rule of the set that takes all packets; those behind it are never asked. */
  readonly cut: (set: number) => number;
};

/**
 * Halves the ports until each half is all within or all without each of the ranges, so that a range is in a few sets of
 * rules only, nested like prefixes. @returns intervals as {@link buildPortTree} takes them
 */
export function divide({ rules, ranges }: PortItems, settled: number, target: PortTarget): readonly PortInterval[] {
  const intervals: PortInterval[] = [];
  const part = (items: ArrayLike<number>, above: number, low: number, high: number) => {
    const whole: number[] = [];
    const rest: number[] = [];
    const cut = target.cut(above);
    for (let i = 0; i < items.length; i++) {
      const item = items[i]!;
      const first = ranges[item]! >>> 16;
      const last = ranges[item]! & 0xffff;
      if (first > high || last < low || rules[item]! >= cut) continue;
      if (first <= low && last >= high) whole.push(rules[item]!);
      else rest.push(item);
    }
    const set = whole.length === 0 ? above : target.add(above, whole);
    if (rest.length <= target.untested) {
      const untested = rest.map((item) => rules[item]!);
      intervals.push({ first: low, node: target.leaf(target.addUntested(set, untested, 0, untested.length)) });
      return;
    }
    const middle = (low + high + 1) >> 1;
    part(rest, set, low, middle - 1);
    part(rest, set, middle, high);
  };
  part(
    Int32Array.from(rules, (_, i) => i),
    settled,
    0,
    LAST_PORT,
  );
  return intervals;
}
