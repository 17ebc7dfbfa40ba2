import type { Packet } from "#packet";
import {
  FIELD_FACTOR,
  FIELD_FAILED,
  FIELD_IGNORED,
  FIELD_PROBES,
  FIELD_SHIFT,
  FIELD_SLOTS,
  FIELD_TEST,
} from "./program.js";

const UDP = 17;
const SCTP = 132;
const UDP_HEADER_BYTES = 8;
const MATCH_WORDS = 6;
const PREFIX_WORDS = 5;
/** A packet has no L4 header, or not the whole minimal one. */
const NO_HEADER = -1;

/** Protocol that byte matches are asked for: the packet's own, SCTP where it is taken out of UDP. */
function matchProtocol({ l4Protocol, protocol }: Packet): number {
  return l4Protocol === UDP && protocol === SCTP ? SCTP : l4Protocol;
}

/** Index of the header that byte matches look at, of `minimal` bytes at least, or NO_HEADER. */
function header({ l4Offset, l4Protocol, protocol }: Packet, minimal: number, end: number): number {
  const at = l4Protocol === UDP && protocol === SCTP ? l4Offset + UDP_HEADER_BYTES : l4Offset;
  return l4Offset < 0 || at + minimal > end ? NO_HEADER : at;
}

/** The masked big-endian integer at `at`, as a signed word; a mask of 0 is none. */
function fieldAt(bytes: Uint8Array, at: number, size: number, mask: number): number {
  let field = 0;
  for (let i = 0; i < size; i++) field = (field << 8) | bytes[at + i]!;
  return mask === 0 ? field : field & mask;
}

/**
 * Whether a rule's byte matches hold: [n, n × (protocol, offset, size, mask, value, minimal header)]. Only those of the
 * packet's own protocol are asked; for UDP whose payload is taken as SCTP they are SCTP's, 8 bytes further on.
 */
export function matchesAll(
  program: Int32Array,
  matches: number,
  packet: Packet,
  bytes: Uint8Array,
  end: number,
): boolean {
  if (packet.l4Offset < 0) return false;
  const protocol = matchProtocol(packet);
  const last = matches + 1 + program[matches]! * MATCH_WORDS;
  for (let i = matches + 1; i < last; i += MATCH_WORDS) {
    if (program[i] !== protocol) continue;
    const l4 = header(packet, program[i + 5]!, end);
    if (l4 === NO_HEADER) return false;
    if (fieldAt(bytes, l4 + program[i + 1]!, program[i + 2]!, program[i + 3]!) !== program[i + 4]) return false;
  }
  return true;
}

/** The node to which a field node (FIELD_*) leads. */
export function lookUpField(program: Int32Array, node: number, packet: Packet, bytes: Uint8Array, end: number): number {
  const test = node + FIELD_TEST;
  if (packet.l4Offset >= 0 && matchProtocol(packet) !== program[test]) return program[node + FIELD_IGNORED]!;
  const l4 = header(packet, program[test + 4]!, end);
  if (l4 === NO_HEADER) return program[node + FIELD_FAILED]!;
  const value = fieldAt(bytes, l4 + program[test + 1]!, program[test + 2]!, program[test + 3]!);
  let slot =
    node + FIELD_SLOTS + 2 * (Math.imul(value, program[node + FIELD_FACTOR]!) >>> program[node + FIELD_SHIFT]!);
  const end2 = slot + 2 * program[node + FIELD_PROBES]!;
  for (; slot < end2; slot += 2) {
    if (program[slot] === value && program[slot + 1] !== 0) return program[slot + 1]!;
  }
  return program[node + FIELD_FAILED]!;
}

/** Whether an address of the key lies in one of n prefixes: [n, n × (4 words, bits)]; list 0 is any. */
export function isInPrefixes(program: Int32Array, list: number, key: Uint8Array, first: number): boolean {
  if (list === 0) return true;
  const last = list + 1 + program[list]! * PREFIX_WORDS;
  for (let at = list + 1; at < last; at += PREFIX_WORDS) {
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

/** Whether a port is in one of n ranges: [n, n × (first, last)]; n = 0 is any, -1 none. */
export function isInPorts(program: Int32Array, list: number, port: number): boolean {
  const n = program[list]!;
  if (n === 0) return true;
  for (let i = 0; i < n; i++) {
    if (port >= program[list + 1 + i * 2]! && port <= program[list + 2 + i * 2]!) return true;
  }
  return false;
}
