import type { Packet } from "#packet";
import { isInPorts, isInPrefixes, lookUpField, matchesAll } from "./match.js";
import {
  BLOCK_MASK,
  CHILD_SHIFT,
  CLASS_OTHER,
  CLASS_PING,
  CLASS_SCTP,
  CLASS_TCP,
  CLASS_UDP,
  CLASSES,
  CONTROL_ENCAP_SHIFT,
  CONTROL_IS_HELPER,
  CONTROL_IS_LONG,
  CONTROL_KEY_SHIFT,
  COUNT_SHIFT,
  ENTRY_CONTROL,
  ENTRY_DPORTS,
  ENTRY_LONG,
  ENTRY_MASK,
  ENTRY_RULE,
  ENTRY_SLOT,
  ENTRY_STREAM,
  ENTRY_VALUE,
  ENTRY_WORDS,
  FIRST_MASK,
  HEADER_PARTS,
  HEADER_WORDS,
  INDEX_SHIFT,
  KEY_MASK,
  KEY_SHIFT,
  LONG_MATCHES,
  LONG_SPORTS,
  LONG_WHOLE,
  NODE_FIELD,
  NODE_LEAF,
  NODE_PORTS,
  NODE_TABLE,
  NODE_TRIE,
  PART_WORDS,
  PATH_CHILDREN,
  PATH_VALUE,
  PORTS_BASE,
  PORTS_CHILDREN,
  SET_BLOCK_WORDS,
  SHIFT_MASK,
  SOURCE_PORT_BIT,
  TABLE_INDEX_SHIFT,
  TABLE_SHIFT,
  TABLE_UNIT_SHIFT,
  TABLE_WIDTH_MASK,
  TABLE_WIDTH_SHIFT,
  TRIE_CHILDREN,
  TRIE_ELSE,
  TRIE_MASK,
  TRIE_VALUE,
  TYPE_MASK,
  VECTOR_ALL,
  VECTOR_BLOCKS,
  VECTOR_DIMENSIONS,
  VECTOR_ENTRIES,
} from "./program.js";

const TCP = 6;
const UDP = 17;
const SCTP = 132;

/** No rule takes the packet. */
const NO_RULE = -1;
/** Above every rule's index. */
const NO_LIMIT = 0x7fff_ffff;
const DIMENSIONS = 4;
const FIRST_PORT_DIMENSION = 2;

/** Word index and number of the sets that are intersected; of the one thread that this module is loaded in. */
const sets = new Int32Array(DIMENSIONS);

/** What a classification found besides the rule; reused for every packet. */
export class Classification {
  /** Index of the table that the rule names, in `streamsOf(rules)`; means nothing without a rule. */
  stream = -1;
  /** UDP destination port whose payload is to be taken as SCTP, or 0. */
  udpEncapPort = 0;
}

/**
 * The rule that takes a packet: the first in evaluation order whose tests all hold and that has a table. Equal to
 * asking the rules one after the other; the cost depends on the depth of the compiled decision graph, not on the number
 * of rules (see decision 0013 for what that means with nasty rules). Allocates nothing, throws nothing.
 *
 * @param program result of `compile`
 * @param packet result of `parse`, not unusable and not a later fragment
 * @param bytes the memory `packet.l4Offset` indexes; only byte matches read it, and only before `end`
 * @param isPromiscuousPing echo requests match by addresses alone
 * @param hits one counter per slot; each rule that matches in full is counted, helper rules too
 * @returns index of the rule in evaluation order, or {@link NO_RULE}
 */
export function classify(
  program: Int32Array,
  packet: Packet,
  bytes: Uint8Array,
  end: number,
  isPromiscuousPing: boolean,
  hits: Float64Array,
  out: Classification,
): number {
  const protocolClass = isPromiscuousPing && packet.isEchoRequest ? CLASS_PING : classOf(packet.protocol);
  out.udpEncapPort = 0;
  let found = 0;
  let limit = NO_LIMIT;
  const last = HEADER_WORDS + program[HEADER_PARTS]! * PART_WORDS;
  for (let part = HEADER_WORDS; part < last; part += PART_WORDS) {
    const root = program[(packet.isV4 ? part : part + CLASSES) + protocolClass]!;
    let node = descend(program, root, packet.keyWords);
    if ((node & TYPE_MASK) === NODE_FIELD) node = walk(program, node, packet, bytes, end);
    const entry =
      (node & TYPE_MASK) === NODE_LEAF
        ? askList(program, node >>> INDEX_SHIFT, limit, protocolClass, packet, bytes, end, hits, out)
        : askVector(program, node >>> INDEX_SHIFT, limit, protocolClass, packet, bytes, end, hits, out);
    if (entry === 0) continue;
    found = entry;
    limit = program[entry + ENTRY_RULE]!;
  }
  if (found === 0) return NO_RULE;
  count(program, found, hits);
  if (protocolClass !== CLASS_PING) out.udpEncapPort = program[found + ENTRY_CONTROL]! >>> CONTROL_ENCAP_SHIFT;
  out.stream = program[found + ENTRY_STREAM]!;
  return limit;
}

function classOf(protocol: number): number {
  return protocol === TCP ? CLASS_TCP : protocol === UDP ? CLASS_UDP : protocol === SCTP ? CLASS_SCTP : CLASS_OTHER;
}

/** Goes on from a field node to an answer: a leaf, a vector node or, inside of that, a set. */
function walk(program: Int32Array, field: number, packet: Packet, bytes: Uint8Array, end: number): number {
  let node = field;
  while ((node & TYPE_MASK) === NODE_FIELD) {
    const next = lookUpField(program, node >>> INDEX_SHIFT, packet, bytes, end);
    node = descend(program, next, packet.keyWords);
  }
  return node;
}

/** Goes down through the nodes that look at the key. Without calls, so that the loop keeps everything in registers. */
function descend(program: Int32Array, root: number, keyWords: DataView): number {
  let node = root | 0;
  for (;;) {
    const type = node & TYPE_MASK;
    if (type >= NODE_FIELD) return node;
    const word = keyWords.getInt32(((node >>> KEY_SHIFT) & KEY_MASK) * 4);
    if (type === NODE_TABLE) {
      const mask = (1 << ((node >>> TABLE_WIDTH_SHIFT) & TABLE_WIDTH_MASK)) - 1;
      const child = (word >>> ((node >>> TABLE_SHIFT) & SHIFT_MASK)) & mask;
      node = program[((node >>> TABLE_INDEX_SHIFT) << TABLE_UNIT_SHIFT) + child]! | 0;
      continue;
    }
    const at = node >>> INDEX_SHIFT;
    const control = program[at]!;
    if (type === NODE_PORTS) {
      const port = (word >>> (control & SOURCE_PORT_BIT)) & 0xffff;
      const block = (port - program[at + PORTS_BASE]!) >> (control & BLOCK_MASK);
      const blocks = control >>> COUNT_SHIFT;
      const child = block < 0 ? 0 : block < blocks ? block + 1 : blocks + 1;
      node = program[at + PORTS_CHILDREN + child]! | 0;
    } else if (type === NODE_TRIE) {
      const isEqual = (word & program[at + TRIE_MASK]!) === program[at + TRIE_VALUE]!;
      const child = (word >>> (control & SHIFT_MASK)) & (control >>> CHILD_SHIFT);
      node = program[at + (isEqual ? TRIE_CHILDREN + child : TRIE_ELSE)]! | 0;
    } else {
      const agreeing = Math.clz32(word ^ program[at + PATH_VALUE]!) - (control & FIRST_MASK);
      const count = control >>> COUNT_SHIFT;
      node = program[at + PATH_CHILDREN + (agreeing < count ? agreeing : count)]! | 0;
    }
  }
}

function count(program: Int32Array, entry: number, hits: Float64Array): void {
  const slot = program[entry + ENTRY_SLOT]!;
  hits[slot] = hits[slot]! + 1;
}

/**
 * Asks the rules of a leaf in order, those before `limit`. Helper rules that match are counted.
 * @returns word index of the entry of the first rule with a table that matches, or 0
 */
function askList(
  program: Int32Array,
  leaf: number,
  limit: number,
  protocolClass: number,
  packet: Packet,
  bytes: Uint8Array,
  end: number,
  hits: Float64Array,
  out: Classification,
): number {
  const last = leaf + 1 + program[leaf]! * ENTRY_WORDS;
  for (let entry = leaf + 1; entry < last; entry += ENTRY_WORDS) {
    if (program[entry + ENTRY_RULE]! >= limit) return 0;
    if (!fits(program, entry, protocolClass, packet, bytes, end)) continue;
    if ((program[entry + ENTRY_CONTROL]! & CONTROL_IS_HELPER) === 0) return entry;
    help(program, entry, protocolClass, hits, out);
  }
  return 0;
}

/** A helper rule matches: it is counted, tells its port, and the search goes on. */
function help(
  program: Int32Array,
  entry: number,
  protocolClass: number,
  hits: Float64Array,
  out: Classification,
): void {
  count(program, entry, hits);
  if (protocolClass !== CLASS_PING) out.udpEncapPort = program[entry + ENTRY_CONTROL]! >>> CONTROL_ENCAP_SHIFT;
}

/** As askList, of the rules that are in the packet's set of every dimension: 32 at once, 1024 where none can be. */
function askVector(
  program: Int32Array,
  vector: number,
  limit: number,
  protocolClass: number,
  packet: Packet,
  bytes: Uint8Array,
  end: number,
  hits: Float64Array,
  out: Classification,
): number {
  const dimensions = protocolClass === CLASS_PING ? FIRST_PORT_DIMENSION : DIMENSIONS;
  let n = 0;
  for (let dimension = 0; dimension < dimensions; dimension++) {
    const root = program[vector + VECTOR_DIMENSIONS + dimension]!;
    if (root !== 0) sets[n++] = descend(program, root, packet.keyWords) >>> INDEX_SHIFT;
  }
  if (n === 0) sets[n++] = program[vector + VECTOR_ALL]! >>> INDEX_SHIFT;
  const blocks = program[vector + VECTOR_BLOCKS]! * SET_BLOCK_WORDS;
  let entries = program[vector + VECTOR_ENTRIES]!;
  for (let block = 0; block < blocks; block += SET_BLOCK_WORDS, entries += 1024 * ENTRY_WORDS) {
    let summary = program[sets[0]! + block]!;
    for (let i = 1; i < n; i++) summary &= program[sets[i]! + block]!;
    for (; summary !== 0; summary &= summary - 1) {
      const word = 31 - Math.clz32(summary & -summary);
      let rules = -1;
      for (let i = 0; i < n && rules !== 0; i++) rules &= wordOfSet(program, sets[i]! + block, word);
      for (; rules !== 0; rules &= rules - 1) {
        const entry = entries + (word * 32 + 31 - Math.clz32(rules & -rules)) * ENTRY_WORDS;
        if (program[entry + ENTRY_RULE]! >= limit) return 0;
        if (!fits(program, entry, protocolClass, packet, bytes, end)) continue;
        if ((program[entry + ENTRY_CONTROL]! & CONTROL_IS_HELPER) === 0) return entry;
        help(program, entry, protocolClass, hits, out);
      }
    }
  }
  return 0;
}

/** Word `word` of a block whose summary says that it is not 0: those that are stand one after the other. */
function wordOfSet(program: Int32Array, block: number, word: number): number {
  return program[program[block + 1]! + bitCount(program[block]! & ((1 << word) - 1))]!;
}

function bitCount(word: number): number {
  const pairs = word - ((word >>> 1) & 0x5555_5555);
  const nibbles = (pairs & 0x3333_3333) + ((pairs >>> 2) & 0x3333_3333);
  return Math.imul((nibbles + (nibbles >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
}

/** Whether the rule of an entry takes the packet; what the way there told is not asked again. */
function fits(
  program: Int32Array,
  entry: number,
  protocolClass: number,
  packet: Packet,
  bytes: Uint8Array,
  end: number,
): boolean {
  const control = program[entry + ENTRY_CONTROL]!;
  const word = packet.keyWords.getInt32(((control >>> CONTROL_KEY_SHIFT) & KEY_MASK) * 4);
  if ((word & program[entry + ENTRY_MASK]!) !== program[entry + ENTRY_VALUE]!) return false;
  if (protocolClass !== CLASS_PING) {
    if (((control >> protocolClass) & 1) === 0) return false;
    if (!isInRange(program[entry + ENTRY_DPORTS]!, packet.destinationPort)) return false;
  }
  return (control & CONTROL_IS_LONG) === 0 || fitsLong(program, entry, protocolClass, packet, bytes, end);
}

function isInRange(range: number, port: number): boolean {
  return range >>> 16 <= port && port <= (range & 0xffff);
}

/** What only some rules have: source ports, byte matches, and all of the rule where the way there told too little. */
function fitsLong(
  program: Int32Array,
  entry: number,
  protocolClass: number,
  packet: Packet,
  bytes: Uint8Array,
  end: number,
): boolean {
  const long = program[entry + ENTRY_LONG]!;
  const whole = program[long + LONG_WHOLE]!;
  if (whole !== 0) {
    const lists = packet.isV4 ? whole : whole + 2;
    if (!isInPrefixes(program, program[lists]!, packet.key, 16)) return false;
    if (!isInPrefixes(program, program[lists + 1]!, packet.key, 0)) return false;
  }
  if (protocolClass === CLASS_PING) return true;
  if (!isInRange(program[long + LONG_SPORTS]!, packet.sourcePort)) return false;
  if (whole !== 0) {
    const dports = whole + 4;
    if (!isInPorts(program, dports, packet.destinationPort)) return false;
    if (!isInPorts(program, dports + 1 + 2 * Math.max(0, program[dports]!), packet.sourcePort)) return false;
  }
  const matches = program[long + LONG_MATCHES]!;
  return matches === 0 || matchesAll(program, matches, packet, bytes, end);
}
