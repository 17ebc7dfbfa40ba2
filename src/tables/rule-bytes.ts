import type { FlowRule } from "#flow";
import { isIpv4, type Prefix } from "#model";
import type { StoredRule } from "./flow-table.js";

/** A rule's head: u32 bytes of its body, u32 counter slot, f64 counter base; little endian, not aligned. */
const HEAD_BYTES = 16;
const HEAD_SLOT = 4;
const HEAD_BASE = 8;
/**
 * A body begins with four u16: how many destinations, sources, ranges of destination and of source ports (ANY: there is no
 * such list). These follow: prefixes, ranges as two u16, then JSON of all the rest.
 */
const BODY_HEAD_BYTES = 8;
const ANY = 0xffff;
const RANGE_BYTES = 4;
/** A prefix: its bits, how many bytes it begins with as the one of its family before does, the further bytes that it has. */
const PREFIX_HEAD_BYTES = 2;
const ADDRESS_BYTES = 16;
/** Of the second byte of a prefix: it is not of IPv4 addresses, ::ffff:0:0/96. */
const NATIVE = 0x80;

/** Body of each rule object: a change writes anew only what changed. */
const bodies = new WeakMap<FlowRule, Buffer>();
/** What this process read or wrote last: most changes follow one of its own, and most rules stay. */
let last: { readonly bytes: Buffer; readonly rules: readonly StoredRule[] } | null = null;

/**
 * Rules as bytes, the source of truth from which the program is compiled; docs/tables.md. The rule objects must not be
 * changed any more.
 */
export function encodeRules(rules: readonly StoredRule[]): Uint8Array {
  const encoded = rules.map(({ rule }) => bodyOf(rule));
  const bytes = Buffer.allocUnsafe(encoded.reduce((sum, body) => sum + HEAD_BYTES + body.length, 0));
  let at = 0;
  for (const [i, body] of encoded.entries()) {
    bytes.writeUInt32LE(body.length, at);
    bytes.writeUInt32LE(rules[i]!.slot, at + HEAD_SLOT);
    bytes.writeDoubleLE(rules[i]!.base, at + HEAD_BASE);
    bytes.set(body, at + HEAD_BYTES);
    at += HEAD_BYTES + body.length;
  }
  last = { bytes, rules };
  return bytes;
}

function bodyOf(rule: FlowRule): Buffer {
  const known = bodies.get(rule);
  if (known !== undefined) return known;
  const { destinations, sources, destinationPorts, sourcePorts, ...rest } = rule;
  const counts = [destinations.length, sources.length, destinationPorts?.length ?? ANY, sourcePorts?.length ?? ANY];
  const body = Buffer.concat([
    words16(counts),
    encodePrefixes(destinations),
    encodePrefixes(sources),
    words16([...(destinationPorts ?? []), ...(sourcePorts ?? [])].flatMap(({ first, last }) => [first, last])),
    Buffer.from(JSON.stringify(rest)),
  ]);
  bodies.set(rule, body);
  return body;
}

function words16(words: readonly number[]): Buffer {
  const bytes = Buffer.alloc(2 * words.length);
  for (const [i, word] of words.entries()) bytes.writeUInt16LE(word, 2 * i);
  return bytes;
}

function encodePrefixes(prefixes: readonly Prefix[]): Uint8Array {
  const bytes = new Uint8Array(prefixes.length * (PREFIX_HEAD_BYTES + ADDRESS_BYTES));
  const before = firstOnes();
  let at = 0;
  for (const { address, bits } of prefixes) {
    const length = Math.ceil(bits / 8);
    const like = before[isIpv4(address) ? 0 : 1]!;
    let shared = 0;
    while (shared < length && address[shared] === like[shared]) shared++;
    bytes[at] = bits;
    bytes[at + 1] = isIpv4(address) ? shared : shared | NATIVE;
    bytes.set(address.subarray(shared, length), at + PREFIX_HEAD_BYTES);
    at += PREFIX_HEAD_BYTES + length - shared;
    before[isIpv4(address) ? 0 : 1] = address;
  }
  return bytes.subarray(0, at);
}

/** What the first prefixes of a list are compared with: of IPv4 addresses, of others. */
function firstOnes(): Uint8Array[] {
  const mapped = new Uint8Array(ADDRESS_BYTES);
  mapped.fill(0xff, 10, 12);
  return [mapped, new Uint8Array(ADDRESS_BYTES)];
}

/**
 * The rules of what {@link encodeRules} wrote. Rules that are equal to those this process read or wrote last are the same
 * objects again.
 * @throws {RangeError}, {SyntaxError} the bytes are none of that
 */
export function decodeRules(shared: Uint8Array): readonly StoredRule[] {
  if (last?.bytes.equals(shared) === true) return last.rules;
  const bytes = Buffer.from(shared); // of its own: another process may write there some time
  const known = new Map(last?.rules.map(({ rule }) => [bodyOf(rule).toString("latin1"), rule]));
  const rules: StoredRule[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = bytes.readUInt32LE(at);
    const start = at + HEAD_BYTES;
    if (start + length > bytes.length) throw new RangeError(`a rule of ${length} bytes at ${at} of ${bytes.length}`);
    const body = bytes.subarray(start, start + length);
    const rule = known.get(body.toString("latin1")) ?? decodeBody(body);
    rules.push({ rule, slot: bytes.readUInt32LE(at + HEAD_SLOT), base: bytes.readDoubleLE(at + HEAD_BASE) });
    at = start + length;
  }
  last = { bytes, rules };
  return rules;
}

/**
 * The bytes with the bases of those rules lowered whose slots have counted less, to what they have; null: there are none.
 * @throws {RangeError} the bytes are none of {@link encodeRules}
 */
export function rebase(shared: Uint8Array, countOf: (slot: number) => number): Uint8Array | null {
  const bytes = Buffer.from(shared);
  let isChanged = false;
  for (let at = 0; at < bytes.length; at += HEAD_BYTES + bytes.readUInt32LE(at)) {
    const base = bytes.readDoubleLE(at + HEAD_BASE);
    if (base === 0) continue; // most are; what is not looked at takes no memory for its counters
    const counted = countOf(bytes.readUInt32LE(at + HEAD_SLOT));
    if (base <= counted) continue;
    bytes.writeDoubleLE(counted, at + HEAD_BASE);
    isChanged = true;
  }
  return isChanged ? bytes : null;
}

function decodeBody(body: Buffer): FlowRule {
  const count = (list: number) => body.readUInt16LE(2 * list);
  const destinations = decodePrefixes(body, BODY_HEAD_BYTES, count(0));
  const sources = decodePrefixes(body, destinations.end, count(1));
  const dports = decodeRanges(body, sources.end, count(2));
  const sports = decodeRanges(body, dports.end, count(3));
  type Rest = Omit<FlowRule, "destinations" | "sources" | "destinationPorts" | "sourcePorts">;
  const rest = JSON.parse(body.toString("utf8", sports.end)) as Rest;
  const rule = {
    ...rest,
    destinations: destinations.prefixes,
    sources: sources.prefixes,
    destinationPorts: dports.ranges,
    sourcePorts: sports.ranges,
  };
  bodies.set(rule, body);
  return rule;
}

function decodePrefixes(bytes: Buffer, start: number, count: number) {
  const prefixes: Prefix[] = [];
  const before = firstOnes();
  let at = start;
  for (let i = 0; i < count; i++) {
    const bits = bytes.readUInt8(at);
    const family = bytes.readUInt8(at + 1) < NATIVE ? 0 : 1;
    const shared = bytes.readUInt8(at + 1) & ~NATIVE;
    const length = Math.ceil(bits / 8);
    const end = at + PREFIX_HEAD_BYTES + length - shared;
    if (length > ADDRESS_BYTES || shared > length || end > bytes.length) {
      throw new RangeError(`a prefix of ${bits} bits, ${shared} bytes of them as before, at ${at} of ${bytes.length}`);
    }
    const address = new Uint8Array(ADDRESS_BYTES);
    address.set(before[family]!.subarray(0, shared));
    address.set(bytes.subarray(at + PREFIX_HEAD_BYTES, end), shared);
    if (length > 0) address[length - 1]! &= 0xff00 >> (bits - 8 * (length - 1));
    prefixes.push({ address, bits });
    before[family] = address;
    at = end;
  }
  return { prefixes, end: at };
}

function decodeRanges(bytes: Buffer, start: number, count: number) {
  if (count === ANY) return { ranges: null, end: start };
  const ranges = Array.from({ length: count }, (_, i) => ({
    first: bytes.readUInt16LE(start + RANGE_BYTES * i),
    last: bytes.readUInt16LE(start + RANGE_BYTES * i + 2),
  }));
  return { ranges, end: start + RANGE_BYTES * count };
}
