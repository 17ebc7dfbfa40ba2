import type { Packet } from "#packet";
import {
  CLASS_PING,
  CONTROL_ASKS_SHIFT,
  CONTROL_RANGES_MASK,
  CONTROL_RANGES_SHIFT,
  FIELD_HASH,
  FIELD_IGNORED,
  FIELD_TEST,
  HASH_ELSE,
  HASH_FACTOR,
  HASH_PROBES,
  HASH_SHIFT,
  HASH_SLOTS,
  LONG_DESTINATION4,
  LONG_DESTINATION6,
  LONG_DPORTS,
  LONG_MATCHES,
  LONG_SOURCE4,
  LONG_SOURCE6,
  LONG_SPORTS,
  OPEN_DESTINATION,
  OPEN_DPORT,
  OPEN_MATCHES,
  OPEN_SOURCE,
  OPEN_SPORT,
  RECORD_CONTROL,
  RECORD_DESTINATION_MASK,
  RECORD_DESTINATION_VALUE,
  RECORD_DPORTS,
  RECORD_LONG,
  RECORD_RANGES,
  RECORD_SOURCE_MASK,
  RECORD_SOURCE_VALUE,
  RECORD_SPORTS,
} from "./program.js";

const UDP = 17;
const SCTP = 132;
const UDP_HEADER_BYTES = 8;
const MATCH_WORDS = 6;
const PREFIX_WORDS = 5;
/** Where the prefixes begin in a list of IPv4 ones. */
const MARKED_FIRST = 2;
/** Byte offsets of the addresses and of their last words in the packet's key. */
const SOURCE_AT = 0;
const DESTINATION_AT = 16;
const LAST_WORD = 12;
/** A packet has no L4 header, or not the whole minimal one. */
const NO_HEADER = -1;

/**
 * Whether a rule takes a packet, as far as the way to it left open; protocol and range of destination ports are always
 * tested.
 * @param open OPEN_*
 */
export function fits(
  program: Int32Array,
  record: number,
  open: number,
  protocolClass: number,
  isV4: boolean,
  packet: Packet,
  bytes: Uint8Array,
  end: number,
): boolean {
  const control = program[record + RECORD_CONTROL]!;
  let asked = (control >> CONTROL_ASKS_SHIFT) & open;
  if (protocolClass === CLASS_PING) asked &= OPEN_DESTINATION | OPEN_SOURCE;
  else if (((control >> protocolClass) & 1) === 0) return false;
  else if (!isInRange(program[record + RECORD_DPORTS]!, packet.destinationPort)) return false;
  return asked === 0 || fitsIn(program, record, asked, isV4, packet, bytes, end);
}

/** Whether a port is in a range, first << 16 | last. */
export function isInRange(range: number, port: number): boolean {
  return range >>> 16 <= port && port <= (range & 0xffff);
}

function fitsIn(
  program: Int32Array,
  record: number,
  asked: number,
  isV4: boolean,
  packet: Packet,
  bytes: Uint8Array,
  end: number,
): boolean {
  const long = program[record + RECORD_LONG]!;
  if ((asked & OPEN_DPORT) !== 0 && !isInPorts(program, record, long, packet.destinationPort)) return false;
  if ((asked & OPEN_SPORT) !== 0) {
    if (!isInRange(program[record + RECORD_SPORTS]!, packet.sourcePort)) return false;
    const list = long === 0 ? 0 : program[long + LONG_SPORTS]!;
    if (list !== 0 && !isInRanges(program, list, packet.sourcePort)) return false;
  }
  if (isV4) {
    if ((asked & OPEN_DESTINATION) !== 0) {
      const word = packet.keyWords.getInt32(DESTINATION_AT + LAST_WORD);
      if ((word & program[record + RECORD_DESTINATION_MASK]!) !== program[record + RECORD_DESTINATION_VALUE]!)
        return false;
      if (long !== 0 && !isInPrefixes4(program, program[long + LONG_DESTINATION4]!, word)) return false;
    }
    if ((asked & OPEN_SOURCE) !== 0) {
      const word = packet.keyWords.getInt32(SOURCE_AT + LAST_WORD);
      if ((word & program[record + RECORD_SOURCE_MASK]!) !== program[record + RECORD_SOURCE_VALUE]!) return false;
      if (long !== 0 && !isInPrefixes4(program, program[long + LONG_SOURCE4]!, word)) return false;
    }
  } else if (long !== 0) {
    const { keyWords } = packet;
    if ((asked & OPEN_DESTINATION) !== 0) {
      if (!isInPrefixes6(program, program[long + LONG_DESTINATION6]!, keyWords, DESTINATION_AT)) return false;
    }
    if ((asked & OPEN_SOURCE) !== 0) {
      if (!isInPrefixes6(program, program[long + LONG_SOURCE6]!, keyWords, SOURCE_AT)) return false;
    }
  }
  return (asked & OPEN_MATCHES) === 0 || matchesAll(program, program[long + LONG_MATCHES]!, packet, bytes, end);
}

/** Whether a port is in one of the ranges that a record holds, or in its list of them. */
function isInPorts(program: Int32Array, record: number, long: number, port: number): boolean {
  const count = (program[record + RECORD_CONTROL]! >> CONTROL_RANGES_SHIFT) & CONTROL_RANGES_MASK;
  if (count === 0) return isInRanges(program, program[long + LONG_DPORTS]!, port);
  const last = record + RECORD_RANGES + count;
  for (let at = record + RECORD_RANGES; at < last; at++) if (isInRange(program[at]!, port)) return true;
  return false;
}

/** Whether a port is in one of n ranges: [n, n × (first << 16 | last)], ascending. */
function isInRanges(program: Int32Array, list: number, port: number): boolean {
  let low = 0;
  let high = program[list]!;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (program[list + 1 + middle]! >>> 16 > port) high = middle;
    else low = middle + 1;
  }
  return low > 0 && port <= (program[list + low]! & 0xffff);
}

/**
 * Whether the last word of an IPv4 address is in one of n prefixes of 1 to 31 bits or is one of m whole addresses; list 0 is any.
 * The list: [n, m, n × (the prefix's bits, a one, zeros), m × address], all u32, both ascending, none within another.
 */
function isInPrefixes4(program: Int32Array, list: number, word: number): boolean {
  if (list === 0) return true;
  const count = program[list]!;
  const first = list + MARKED_FIRST;
  const at = lastUpTo(program, first, count, word, 1);
  if (at >= first) {
    const marked = program[at]!;
    if (((word ^ marked) & (-2 * (marked & -marked))) === 0) return true;
  }
  const whole = program[list + 1]!;
  if (whole === 0) return false;
  const found = lastUpTo(program, first + count, whole, word, 0);
  return found >= first + count && program[found] === word;
}

/**
 * Index of the last of `count` ascending u32 from `first` on that is not above a word, `first` - 1 if all are.
 * @param marks 1: the lowest one bit of each does not count; 0: it does
 */
function lastUpTo(program: Int32Array, first: number, count: number, word: number, marks: number): number {
  let low = first;
  let high = first + count;
  while (low < high) {
    const middle = (low + high) >> 1;
    const value = program[middle]!;
    if ((value & (value - marks)) >>> 0 > word >>> 0) high = middle;
    else low = middle + 1;
  }
  return low - 1;
}

/** Whether an IPv6 address is in one of n prefixes: [n, n × (4 words, bits)], ascending, none within another; list 0 is any. */
function isInPrefixes6(program: Int32Array, list: number, keyWords: DataView, at: number): boolean {
  if (list === 0) return true;
  let low = 0;
  let high = program[list]!;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (isAbove(program, list + 1 + PREFIX_WORDS * middle, keyWords, at)) high = middle;
    else low = middle + 1;
  }
  return low > 0 && isInPrefix(program, list + 1 + PREFIX_WORDS * (low - 1), keyWords, at);
}

/** Whether a prefix begins above an address. */
function isAbove(program: Int32Array, prefix: number, keyWords: DataView, at: number): boolean {
  for (let i = 0; i < 4; i++) {
    const first = program[prefix + i]! >>> 0;
    const word = keyWords.getUint32(at + 4 * i);
    if (first !== word) return first > word;
  }
  return false;
}

function isInPrefix(program: Int32Array, prefix: number, keyWords: DataView, at: number): boolean {
  let bits = program[prefix + 4]!;
  for (let i = 0; bits > 0; i++, bits -= 32) {
    const mask = bits >= 32 ? -1 : -1 << (32 - bits);
    if ((keyWords.getInt32(at + 4 * i) & mask) !== program[prefix + i]!) return false;
  }
  return true;
}

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
function matchesAll(program: Int32Array, matches: number, packet: Packet, bytes: Uint8Array, end: number): boolean {
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
  if (l4 === NO_HEADER) return program[node + FIELD_HASH + HASH_ELSE]!;
  const value = fieldAt(bytes, l4 + program[test + 1]!, program[test + 2]!, program[test + 3]!);
  return lookUpHash(program, node + FIELD_HASH, value);
}

/** The node to which a hash table (HASH_*) leads. */
export function lookUpHash(program: Int32Array, node: number, value: number): number {
  let slot = node + HASH_SLOTS + 2 * (Math.imul(value, program[node + HASH_FACTOR]!) >>> program[node + HASH_SHIFT]!);
  const end = slot + 2 * program[node + HASH_PROBES]!;
  for (; slot < end; slot += 2) {
    const child = program[slot + 1]!;
    if (child === 0) break;
    if (program[slot]! === value) return child;
  }
  return program[node + HASH_ELSE]!;
}
