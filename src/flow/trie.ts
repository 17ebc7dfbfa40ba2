import type { Prefix } from "#model";
import { NODE_COMPARE, NODE_DENSE, NODE_SPARSE, reference } from "./program.js";
import type { WordWriter } from "./word-writer.js";

/** Up to so many different bytes a node lists them; above it has one entry per byte value. */
const LISTED_BYTES = 1;

/** A prefix still to be walked down, and its rule. */
type Item = { readonly prefix: Prefix; readonly rule: number };

export type TrieOptions = {
  /** Rules to tell apart, ascending. */
  readonly candidates: readonly number[];
  /** A rule's prefixes; none = any address. */
  readonly prefixesOf: (rule: number) => readonly Prefix[];
  /** IPv4 packets need not be asked for the first 12 bytes. */
  readonly family: 4 | 6;
  /** Index of the address in the key. */
  readonly keyStart: number;
  readonly words: WordWriter;
  /** Whether the program has become too long to go on. */
  readonly isFull: () => boolean;
  /** Node that asks whole rules one by one. */
  readonly list: (rules: readonly number[]) => number;
  /** Node that goes on with the rules whose prefixes contain the address, ascending. */
  readonly next: (candidates: readonly number[]) => number;
};

/**
 * Builds the nodes that sort an address into sets of rules by longest common path: bytes that all prefixes share are
 * compared at once, others are looked up one by one, so the depth is that of the prefixes' differences.
 * @returns the first node
 */
export function buildTrie(options: TrieOptions): number {
  const { candidates, prefixesOf, family } = options;
  const start = family === 4 ? 12 : 0;
  const settled: number[] = [];
  const items: Item[] = [];
  for (const rule of candidates) {
    const prefixes = prefixesOf(rule);
    if (prefixes.length === 0) settled.push(rule);
    for (const prefix of prefixes) {
      if (family === 4 && !meetsIpv4(prefix)) continue;
      if (prefix.bits <= start * 8) settled.push(rule);
      else items.push({ prefix, rule });
    }
  }
  return level(options, items, unique(settled), start);
}

/** Whether a prefix contains IPv4 addresses at all: it does not differ from ::ffff:0:0 within its length. */
function meetsIpv4({ address, bits }: Prefix): boolean {
  for (let bit = 0; bit < Math.min(bits, 96); bit++) {
    const isSet = ((address[bit >> 3]! >> (7 - (bit & 7))) & 1) === 1;
    if (isSet !== bit >= 80) return false;
  }
  return true;
}

function unique(rules: readonly number[]): readonly number[] {
  return [...new Set(rules)].sort((a, b) => a - b);
}

/** The node for addresses whose first `depth` bytes are those of `items`; `settled` rules match whatever follows. */
function level(options: TrieOptions, items: readonly Item[], settled: readonly number[], depth: number): number {
  if (items.length === 0) return options.next(settled);
  const { words, keyStart } = options;
  if (options.isFull()) {
    return options.list(unique([...settled, ...items.map(({ rule }) => rule)]));
  }
  const shared = sharedBytes(items, depth);
  if (shared > 0) {
    const end = depth + shared;
    const path = [...items[0]!.prefix.address.subarray(depth, end)];
    const equal = descend(options, items, settled, end);
    return reference(NODE_COMPARE, keyStart + depth, words.append([shared, equal, options.next(settled), ...path]));
  }
  const children = new Map<number, Item[]>();
  for (const item of items) {
    const { address, bits } = item.prefix;
    const first = address[depth]!;
    const span = bits - depth * 8 >= 8 ? 1 : 1 << (8 - (bits - depth * 8));
    for (let byte = first; byte < first + span; byte++) {
      const child = children.get(byte) ?? [];
      child.push(item);
      children.set(byte, child);
    }
  }
  const otherwise = options.next(settled);
  const nodes = [...children].map(([byte, child]) => [byte, descend(options, child, settled, depth + 1)] as const);
  if (nodes.length <= LISTED_BYTES) {
    return reference(NODE_SPARSE, keyStart + depth, words.append([nodes.length, otherwise, ...nodes.flat()]));
  }
  const dense = Array.from({ length: 256 }, () => otherwise);
  for (const [byte, node] of nodes) dense[byte] = node;
  return reference(NODE_DENSE, keyStart + depth, words.append(dense));
}

/** Goes on at `depth`: prefixes that end before it are settled now. */
function descend(options: TrieOptions, items: readonly Item[], settled: readonly number[], depth: number): number {
  const ended = items.filter(({ prefix }) => prefix.bits <= depth * 8);
  const rest = items.filter(({ prefix }) => prefix.bits > depth * 8);
  const all = ended.length === 0 ? settled : unique([...settled, ...ended.map(({ rule }) => rule)]);
  return level(options, rest, all, depth);
}

/** How many whole bytes from `depth` on all prefixes have and share. */
function sharedBytes(items: readonly Item[], depth: number): number {
  const [first] = items;
  let shared = 0;
  for (let at = depth; at < 16; at++, shared++) {
    const byte = first!.prefix.address[at]!;
    if (!items.every(({ prefix }) => prefix.bits >= (at + 1) * 8 && prefix.address[at] === byte)) break;
  }
  return shared;
}
