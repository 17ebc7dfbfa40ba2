import type { Packet } from "#packet";
import {
  ARGUMENT_MASK,
  ARGUMENT_SHIFT,
  CLASS_OTHER,
  CLASS_PING,
  CLASS_SCTP,
  CLASS_TCP,
  CLASS_UDP,
  DESTINATION_PORT,
  ENTRY_ENCAP,
  ENTRY_MATCHES,
  ENTRY_RULE,
  ENTRY_SLOT,
  ENTRY_STREAM,
  ENTRY_WHOLE,
  ENTRY_WORDS,
  HEADER_ROOT4,
  HEADER_ROOT6,
  INDEX_SHIFT,
  NODE_COMPARE,
  NODE_DENSE,
  NODE_LEAF,
  NODE_PAGE,
  NODE_PORT_SEARCH,
  NODE_PORT_TABLE,
  NODE_PROTOCOL,
  NODE_SPARSE,
  TYPE_MASK,
} from "./program.js";

const TCP = 6;
const UDP = 17;
const SCTP = 132;
const UDP_HEADER_BYTES = 8;

/** No rule takes the packet. */
const NO_RULE = -1;

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
 * of rules. Allocates nothing, throws nothing.
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
  const key = packet.key;
  const protocolClass = isPromiscuousPing && packet.isEchoRequest ? CLASS_PING : classOf(packet.protocol);
  let node = program[packet.isV4 ? HEADER_ROOT4 : HEADER_ROOT6]!;
  for (;;) {
    const argument = (node >>> ARGUMENT_SHIFT) & ARGUMENT_MASK;
    const at = node >>> INDEX_SHIFT;
    switch (node & TYPE_MASK) {
      case NODE_COMPARE:
        node = program[at + (isEqual(program, at, key, argument) ? 1 : 2)]!;
        break;
      case NODE_SPARSE:
        node = findByte(program, at, key[argument]!);
        break;
      case NODE_DENSE:
        node = program[at + key[argument]!]!;
        break;
      case NODE_PROTOCOL:
        node = program[at + protocolClass]!;
        break;
      case NODE_PORT_SEARCH: {
        const port = argument === DESTINATION_PORT ? packet.destinationPort : packet.sourcePort;
        const last = at + 2 * program[at]!;
        node = program[at + 1]!;
        for (let i = at + 2; i < last && program[i]! <= port; i += 2) node = program[i + 1]!;
        break;
      }
      case NODE_PORT_TABLE: {
        const port = argument === DESTINATION_PORT ? packet.destinationPort : packet.sourcePort;
        node = program[at + (port >> 8)]!;
        if ((node & TYPE_MASK) === NODE_PAGE) node = program[(node >>> INDEX_SHIFT) + (port & 0xff)]!;
        break;
      }
      case NODE_LEAF:
        return ask(program, at, false, protocolClass, packet, bytes, end, hits, out);
      default:
        return ask(program, at, true, protocolClass, packet, bytes, end, hits, out);
    }
  }
}

function classOf(protocol: number): number {
  return protocol === TCP ? CLASS_TCP : protocol === UDP ? CLASS_UDP : protocol === SCTP ? CLASS_SCTP : CLASS_OTHER;
}

function isEqual(program: Int32Array, node: number, key: Uint8Array, first: number): boolean {
  const count = program[node]!;
  for (let i = 0; i < count; i++) if (program[node + 3 + i] !== key[first + i]) return false;
  return true;
}

function findByte(program: Int32Array, node: number, byte: number): number {
  const last = node + 2 + 2 * program[node]!;
  for (let i = node + 2; i < last; i += 2) if (program[i] === byte) return program[i + 1]!;
  return program[node + 1]!;
}

/** Asks the rules of a leaf in order; `isFull`: nothing is known of them yet. */
function ask(
  program: Int32Array,
  leaf: number,
  isFull: boolean,
  protocolClass: number,
  packet: Packet,
  bytes: Uint8Array,
  end: number,
  hits: Float64Array,
  out: Classification,
): number {
  out.udpEncapPort = 0;
  const last = leaf + 1 + program[leaf]! * ENTRY_WORDS;
  for (let entry = leaf + 1; entry < last; entry += ENTRY_WORDS) {
    if (isFull && !fits(program, program[entry + ENTRY_WHOLE]!, protocolClass, packet)) continue;
    const matches = program[entry + ENTRY_MATCHES]!;
    if (matches !== 0 && protocolClass !== CLASS_PING && !holdsAll(program, matches, packet, bytes, end)) continue;
    const slot = program[entry + ENTRY_SLOT]!;
    hits[slot] = hits[slot]! + 1;
    if (protocolClass !== CLASS_PING) out.udpEncapPort = program[entry + ENTRY_ENCAP]!;
    const stream = program[entry + ENTRY_STREAM]!;
    if (stream < 0) continue;
    out.stream = stream;
    return program[entry + ENTRY_RULE]!;
  }
  return NO_RULE;
}

/**
 * Byte matches: [n, n × (protocol, offset, size, mask, value, minimal header)]. Only those of the packet's own protocol
 * are asked; for UDP whose payload is taken as SCTP they are SCTP's, 8 bytes further on.
 */
function holdsAll(program: Int32Array, matches: number, packet: Packet, bytes: Uint8Array, end: number): boolean {
  if (packet.l4Offset < 0) return false;
  const isEncapsulated = packet.l4Protocol === UDP && packet.protocol === SCTP;
  const protocol = isEncapsulated ? SCTP : packet.l4Protocol;
  const l4 = packet.l4Offset + (isEncapsulated ? UDP_HEADER_BYTES : 0);
  const last = matches + 1 + program[matches]! * 6;
  for (let i = matches + 1; i < last; i += 6) {
    if (program[i] !== protocol) continue;
    if (l4 + program[i + 5]! > end) return false;
    const size = program[i + 2]!;
    const at = l4 + program[i + 1]!;
    let field = 0;
    for (let k = 0; k < size; k++) field = (field << 8) | bytes[at + k]!;
    const mask = program[i + 3]!;
    if ((mask === 0 ? field : field & mask) !== program[i + 4]) return false;
  }
  return true;
}

/**
 * The whole rule: [classes, n × destinations (5 words), n × sources, n × destination ports (2 words), n × source ports],
 * each list behind its length; a length of 0 is any, -1 none. A prefix is four words of address and its length.
 */
function fits(program: Int32Array, test: number, protocolClass: number, packet: Packet): boolean {
  let at = test + 1;
  const destinations = program[at]!;
  if (destinations !== 0 && !isInPrefixes(program, at, packet.key, 16)) return false;
  at += 1 + destinations * 5;
  const sources = program[at]!;
  if (sources !== 0 && !isInPrefixes(program, at, packet.key, 0)) return false;
  if (protocolClass === CLASS_PING) return true;
  if (((program[test]! >> protocolClass) & 1) === 0) return false;
  at += 1 + sources * 5;
  if (!isInPorts(program, at, packet.destinationPort)) return false;
  at += 1 + Math.max(0, program[at]!) * 2;
  return isInPorts(program, at, packet.sourcePort);
}

function isInPrefixes(program: Int32Array, list: number, key: Uint8Array, first: number): boolean {
  const last = list + 1 + program[list]! * 5;
  for (let at = list + 1; at < last; at += 5) {
    let bits = program[at + 4]!;
    let isInside = true;
    for (let word = 0; bits > 0 && isInside; word++, bits -= 32) {
      const k = first + word * 4;
      const value = (key[k]! << 24) | (key[k + 1]! << 16) | (key[k + 2]! << 8) | key[k + 3]!;
      const mask = bits >= 32 ? -1 : -1 << (32 - bits);
      isInside = (value & mask) === program[at + word];
    }
    if (isInside) return true;
  }
  return false;
}

function isInPorts(program: Int32Array, list: number, port: number): boolean {
  const count = program[list]!;
  if (count === 0) return true;
  for (let i = 0; i < count; i++) {
    if (port >= program[list + 1 + i * 2]! && port <= program[list + 2 + i * 2]!) return true;
  }
  return false;
}
