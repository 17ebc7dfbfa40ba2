import type { Packet } from "#packet";
import { fits, isInRange, lookUpField } from "./match.js";
import {
  BLOCK_MASK,
  CHAIN_LEAST,
  CHAIN_NEXT,
  CHAIN_NODE,
  CHILD_SHIFT,
  CLASS_OTHER,
  CLASS_PING,
  CLASS_SCTP,
  CLASS_TCP,
  CLASS_UDP,
  CLASSES,
  CONTROL_ENCAP_SHIFT,
  CONTROL_IS_HELPER,
  COUNT_SHIFT,
  FIRST_MASK,
  FIRST_RECORD,
  HASH_ELSE,
  HASH_FACTOR,
  HASH_PROBES,
  HASH_SHIFT,
  HASH_SLOTS,
  HEADER_ASKS_SOURCES,
  HEADER_HAS_HELPERS,
  HEADER_HELPER_ROOTS,
  HEADER_ROOTS,
  INDEX_SHIFT,
  KEY_MASK,
  KEY_SHIFT,
  LIST_COUNT_SHIFT,
  LIST_ENTRY_WORDS,
  LIST_FIRST,
  MORE_CHAIN,
  MORE_CLASS,
  MORE_FIELD,
  NODE_HASH,
  NODE_LIST,
  NODE_PORTS,
  NODE_RULE,
  NODE_TABLE,
  NODE_TRIE,
  OPEN_MASK,
  OPEN_SHIFT,
  PATH_CHILDREN,
  PATH_VALUE,
  PORTS_BASE,
  PORTS_CHILDREN,
  RECORD_CONTROL,
  RECORD_SHIFT,
  RECORD_SLOT,
  RECORD_STREAM,
  RULE_INDEX_SHIFT,
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
} from "./program.js";

const TCP = 6;
const UDP = 17;
const SCTP = 132;

/** No rule takes the packet. */
const NO_RULE = -1;
/** Above every record's word index. */
const NO_RECORD = 0x7fff_ffff;
/** Chains lie in nodes of chains, one per dimension at most; and some room. */
const MAX_PENDING = 16;

/** Chains whose second half is still to be asked; of the one thread that this module is loaded in. */
const pending = new Int32Array(MAX_PENDING);

/** What a classification found besides the rule; reused for every packet. */
export class Classification {
  /** Index of the table that the rule names, in `streamsOf(rules)`; means nothing without a rule. */
  stream = -1;
  /** UDP destination port whose payload is to be taken as SCTP, or 0. */
  udpEncapPort = 0;
  /** Record of the last helper rule that matches, or 0; for `classify` alone. */
  helper = 0;
}

/**
 * The rule that takes a packet: the first in evaluation order whose tests all hold and that has a table. Equal to
 * asking the rules one after the other; the cost depends on the depth of the compiled decision graph, not on the number
 * of rules (see decision 0051 for what that means with nasty rules). Allocates nothing, throws nothing.
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
  const isV4 = packet.isV4 || isMapped(packet.keyWords, program[HEADER_ASKS_SOURCES]!);
  const root = isV4 ? protocolClass : CLASSES + protocolClass;
  out.udpEncapPort = 0;
  const record = search(
    program,
    program[HEADER_ROOTS + root]!,
    NO_RECORD,
    protocolClass,
    isV4,
    packet,
    bytes,
    end,
    hits,
    out,
  );
  if (program[HEADER_HAS_HELPERS] !== 0) {
    out.helper = 0;
    const helpers = program[HEADER_HELPER_ROOTS + root]!;
    search(program, helpers, record, protocolClass, isV4, packet, bytes, end, hits, out);
    if (out.helper !== 0 && protocolClass !== CLASS_PING) {
      out.udpEncapPort = program[out.helper + RECORD_CONTROL]! >>> CONTROL_ENCAP_SHIFT;
    }
  }
  if (record === NO_RECORD) return NO_RULE;
  count(program, record, hits);
  if (protocolClass !== CLASS_PING) out.udpEncapPort = program[record + RECORD_CONTROL]! >>> CONTROL_ENCAP_SHIFT;
  out.stream = program[record + RECORD_STREAM]!;
  return (record - FIRST_RECORD) >> RECORD_SHIFT;
}

function classOf(protocol: number): number {
  return protocol === TCP ? CLASS_TCP : protocol === UDP ? CLASS_UDP : protocol === SCTP ? CLASS_SCTP : CLASS_OTHER;
}

/** Whether the destination of an IPv6 packet's key is an IPv4 one, ::ffff:0:0/96, and its source too, where any rule asks for that. */
function isMapped(keyWords: DataView, asksSources: number): boolean {
  if (keyWords.getInt32(24) !== 0xffff || (keyWords.getInt32(16) | keyWords.getInt32(20)) !== 0) return false;
  return asksSources === 0 || (keyWords.getInt32(8) === 0xffff && (keyWords.getInt32(0) | keyWords.getInt32(4)) === 0);
}

function count(program: Int32Array, record: number, hits: Float64Array): void {
  const slot = program[record + RECORD_SLOT]!;
  hits[slot] = hits[slot]! + 1;
}

/**
 * The first of the rules below a node that takes the packet, if it lies before `limit`. Helper rules that match are
 * counted instead.
 * @returns its record, or `limit`
 */
function search(
  program: Int32Array,
  root: number,
  limit: number,
  protocolClass: number,
  isV4: boolean,
  packet: Packet,
  bytes: Uint8Array,
  end: number,
  hits: Float64Array,
  out: Classification,
): number {
  let best = limit;
  let waiting = 0;
  let node = root;
  for (;;) {
    node = descend(program, node, packet.keyWords);
    const type = node & TYPE_MASK;
    if (type === NODE_RULE) {
      const record = (node >>> RULE_INDEX_SHIFT) << RECORD_SHIFT;
      const open = (node >>> OPEN_SHIFT) & OPEN_MASK;
      if (record < best && fits(program, record, open, protocolClass, isV4, packet, bytes, end)) {
        if (!isHelper(program, record, hits, out)) best = record;
      }
    } else if (type === NODE_LIST) {
      best = askList(program, node >>> INDEX_SHIFT, best, protocolClass, isV4, packet, bytes, end, hits, out);
    } else {
      const at = node >>> INDEX_SHIFT;
      const kind = (node >>> KEY_SHIFT) & KEY_MASK;
      if (kind === MORE_CHAIN) {
        pending[waiting++] = at;
        node = program[at + CHAIN_NODE]!;
        continue;
      }
      if (kind === MORE_CLASS) {
        node = program[at + protocolClass]!;
        continue;
      }
      if (kind === MORE_FIELD) {
        node = lookUpField(program, at, packet, bytes, end);
        continue;
      }
    }
    let chain = 0;
    do {
      if (waiting === 0) return best;
      chain = pending[--waiting]!;
    } while (program[chain + CHAIN_LEAST]! >= best);
    node = program[chain + CHAIN_NEXT]!;
  }
}

/** Goes down through the nodes that look at the key. Without calls, so that the loop keeps everything in registers. */
function descend(program: Int32Array, root: number, keyWords: DataView): number {
  let node = root | 0;
  for (;;) {
    const type = node & TYPE_MASK;
    if (type >= NODE_RULE) return node;
    const word = keyWords.getInt32(((node >>> KEY_SHIFT) & KEY_MASK) * 4);
    if (type === NODE_TABLE) {
      const mask = (1 << ((node >>> TABLE_WIDTH_SHIFT) & TABLE_WIDTH_MASK)) - 1;
      const child = (word >>> ((node >>> TABLE_SHIFT) & SHIFT_MASK)) & mask;
      node = program[((node >>> TABLE_INDEX_SHIFT) << TABLE_UNIT_SHIFT) + child]! | 0;
      continue;
    }
    const at = node >>> INDEX_SHIFT;
    if (type === NODE_HASH) {
      let slot = at + HASH_SLOTS + 2 * (Math.imul(word, program[at + HASH_FACTOR]!) >>> program[at + HASH_SHIFT]!);
      const last = slot + 2 * program[at + HASH_PROBES]!;
      while (program[slot] !== word && program[slot + 1] !== 0 && slot < last) slot += 2;
      const child = slot < last ? program[slot + 1]! : 0;
      node = (child !== 0 ? child : program[at + HASH_ELSE]!) | 0;
      continue;
    }
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
      const blocks = control >>> COUNT_SHIFT;
      node = program[at + PATH_CHILDREN + (agreeing < blocks ? agreeing : blocks)]! | 0;
    }
  }
}

/** Asks the rules of a list in order, those before `limit`. @returns the record of the first that takes the packet, or `limit` */
function askList(
  program: Int32Array,
  list: number,
  limit: number,
  protocolClass: number,
  isV4: boolean,
  packet: Packet,
  bytes: Uint8Array,
  end: number,
  hits: Float64Array,
  out: Classification,
): number {
  const control = program[list]!;
  const last = list + LIST_FIRST + (control >>> LIST_COUNT_SHIFT) * LIST_ENTRY_WORDS;
  const isPing = protocolClass === CLASS_PING;
  for (let at = list + LIST_FIRST; at < last; at += LIST_ENTRY_WORDS) {
    const record = program[at]!;
    if (record >= limit) break;
    if (!isInRange(program[at + 1]!, packet.destinationPort) && !isPing) continue;
    if (!fits(program, record, control & OPEN_MASK, protocolClass, isV4, packet, bytes, end)) continue;
    if (!isHelper(program, record, hits, out)) return record;
  }
  return limit;
}

/** Whether a rule that matches is a helper: then it is counted and the search goes on. */
function isHelper(program: Int32Array, record: number, hits: Float64Array, out: Classification): boolean {
  if ((program[record + RECORD_CONTROL]! & CONTROL_IS_HELPER) === 0) return false;
  count(program, record, hits);
  if (record > out.helper) out.helper = record;
  return true;
}
