import type { Packet } from "#packet";
import {
  CLASS_OTHER,
  CLASS_PING,
  CLASS_SCTP,
  CLASS_TCP,
  CLASS_UDP,
  DESTINATION_PORT,
  HEADER_ROOT4,
  HEADER_ROOT6,
  HEADER_WORDS,
  NODE_COMPARE,
  NODE_DENSE,
  NODE_LEAF,
  NODE_PORT_SEARCH,
  NODE_PORT_TABLE,
  NODE_PROTOCOL,
  NODE_SPARSE,
  RULE_ENCAP,
  RULE_FULL,
  RULE_MATCHES,
  RULE_SLOT,
  RULE_STREAM,
  RULE_WORDS,
} from "./program.js";

const TCP = 6;
const UDP = 17;
const SCTP = 132;
const UDP_HEADER_BYTES = 8;

/** No rule takes the packet. */
export const NO_RULE = -1;

/** What a classification found besides the rule; reused for every packet. */
export class Classification {
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
  let at = program[packet.isV4 ? HEADER_ROOT4 : HEADER_ROOT6]!;
  for (;;) {
    const type = program[at]!;
    if (type === NODE_COMPARE) {
      at = program[at + (isEqual(program, at, key) ? 3 : 4)]!;
    } else if (type === NODE_DENSE) {
      at = program[at + 2 + key[program[at + 1]!]!]!;
    } else if (type === NODE_PROTOCOL) {
      at = program[at + 1 + protocolClass]!;
    } else if (type === NODE_PORT_SEARCH) {
      const port = program[at + 1] === DESTINATION_PORT ? packet.destinationPort : packet.sourcePort;
      const last = at + 4 + (program[at + 2]! - 1) * 2;
      let node = program[at + 3]!;
      for (let i = at + 4; i < last && program[i]! <= port; i += 2) node = program[i + 1]!;
      at = node;
    } else if (type === NODE_PORT_TABLE) {
      const port = program[at + 1] === DESTINATION_PORT ? packet.destinationPort : packet.sourcePort;
      const node = program[at + 2 + (port >> 8)]!;
      at = node >= 0 ? node : program[-node + (port & 0xff)]!;
    } else if (type === NODE_SPARSE) {
      const byte = key[program[at + 1]!]!;
      const last = at + 4 + program[at + 2]! * 2;
      let node = program[at + 3]!;
      for (let i = at + 4; i < last; i += 2) {
        if (program[i] === byte) {
          node = program[i + 1]!;
          break;
        }
      }
      at = node;
    } else {
      return ask(program, at, type !== NODE_LEAF, protocolClass, packet, bytes, end, hits, out);
    }
  }
}

function classOf(protocol: number): number {
  return protocol === TCP ? CLASS_TCP : protocol === UDP ? CLASS_UDP : protocol === SCTP ? CLASS_SCTP : CLASS_OTHER;
}

function isEqual(program: Int32Array, node: number, key: Uint8Array): boolean {
  const first = program[node + 1]!;
  const count = program[node + 2]!;
  for (let i = 0; i < count; i++) if (program[node + 5 + i] !== key[first + i]) return false;
  return true;
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
  const count = program[leaf + 1]!;
  for (let i = 0; i < count; i++) {
    const rule = program[leaf + 2 + i]!;
    const record = HEADER_WORDS + rule * RULE_WORDS;
    if (isFull && !fits(program, program[record + RULE_FULL]!, protocolClass, packet)) continue;
    const matches = program[record + RULE_MATCHES]!;
    if (matches !== 0 && protocolClass !== CLASS_PING && !holdsAll(program, matches, packet, bytes, end)) continue;
    const slot = program[record + RULE_SLOT]!;
    hits[slot] = hits[slot]! + 1;
    if (protocolClass !== CLASS_PING) out.udpEncapPort = program[record + RULE_ENCAP]!;
    if (program[record + RULE_STREAM]! >= 0) return rule;
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

/** Index of the table's name that a rule's packets belong to; see `streamsOf`. `rule` is a result of `classify` ≥ 0. */
export function programStream(program: Int32Array, rule: number): number {
  return program[HEADER_WORDS + rule * RULE_WORDS + RULE_STREAM]!;
}
