// Capture files of both formats and byte orders with all kinds of blocks, options and link types, whole or spoiled: bytes,
// lengths, whole blocks.
import { pick, type Random } from "../harness/random.js";

/** Known ones, and some that are not. */
const LINK_TYPES = [0, 1, 1, 1, 101, 101, 113, 228, 229, 276];
const OTHER_LINK_TYPES = [2, 105, 127, 147, 65_535];
const ETHER_TYPES = [0x0800, 0x0800, 0x86dd, 0x8100, 0x88a8, 0x0806, 0, 0xffff];
/** What follows a VLAN tag: IPv4, IPv6, one more tag. */
const TAGGED = [
  [8, 0],
  [0x86, 0xdd],
  [0x81, 0, 0, 9, 8, 0],
];
const VERSIONS = [0x45, 0x60, 0x45, 0x60, 0, 0xff];
const BLOCK_TYPES = [2, 4, 5, 10, 0x0bad, 0x80000001]; // obsolete, name resolution, statistics, secrets, unknown, private
const LENGTHS = [0, 1, 3, 4, 8, 11, 12, 13, 16, 20, 28, 32, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff];

/** Writes numbers in one byte order. */
class Writer {
  readonly bytes: number[] = [];
  readonly #isLittle: boolean;
  constructor(isLittle: boolean) {
    this.#isLittle = isLittle;
  }
  u16(value: number): this {
    const [low, high] = [value & 255, (value >> 8) & 255];
    if (this.#isLittle) this.bytes.push(low, high);
    else this.bytes.push(high, low);
    return this;
  }
  u32(value: number): this {
    const [low, high] = [value & 0xffff, value >>> 16];
    return this.#isLittle ? this.u16(low).u16(high) : this.u16(high).u16(low);
  }
  raw(bytes: readonly number[]): this {
    for (const byte of bytes) this.bytes.push(byte);
    return this;
  }
  pad(): this {
    while (this.bytes.length % 4 !== 0) this.bytes.push(0);
    return this;
  }
}

export function captureInput(random: Random): Uint8Array {
  const items = random(2) === 0 ? pcap(random) : pcapng(random);
  if (random(3) === 0) for (let n = 1 + random(3); n > 0; n--) spoilItems(random, items);
  const bytes: number[] = [];
  for (const item of items) for (const byte of item) bytes.push(byte);
  if (random(3) === 0) for (let n = 1 + random(3); n > 0; n--) spoilBytes(random, bytes);
  return new Uint8Array(bytes);
}

const linkType = (random: Random) => pick(random, random(20) === 0 ? OTHER_LINK_TYPES : LINK_TYPES);

/** The file's head and its records, each in a list of its own. */
function pcap(random: Random): number[][] {
  const isLittle = random(2) === 0;
  const writer = () => new Writer(isLittle);
  const magic = random(2) === 0 ? 0xa1b2c3d4 : 0xa1b23c4d;
  const link = linkType(random);
  const flags = random(8) === 0 ? random(65_536) << 16 : 0; // FCS length
  const head = writer().u32(magic).u16(2).u16(4).u32(0).u32(0).u32(65_535);
  const items = [head.u32((flags | link) >>> 0).bytes];
  for (let n = random(5); n > 0; n--) {
    const bytes = frame(random, link);
    const original = bytes.length + (random(3) === 0 ? random(1_000) : 0);
    items.push(
      writer()
        .u32(random(2 ** 31))
        .u32(random(1_000_000))
        .u32(bytes.length)
        .u32(original)
        .raw(bytes).bytes,
    );
  }
  return items;
}

/** The blocks, each in a list of its own; more than one section, each with its byte order. */
function pcapng(random: Random): number[][] {
  const blocks: number[][] = [];
  for (let sections = random(4) === 0 ? 2 : 1; sections > 0; sections--) {
    const isLittle = random(2) === 0;
    const writer = () => new Writer(isLittle);
    const block = (type: number, body: Writer) => {
      const length = body.pad().bytes.length + 12;
      blocks.push(writer().u32(type).u32(length).raw(body.bytes).u32(length).bytes);
    };
    const section = writer()
      .u32(0x1a2b3c4d)
      .u16(1)
      .u16(random(3) === 0 ? 2 : 0);
    block(0x0a0d0d0a, options(random, section.u32(0xffffffff).u32(0xffffffff), [2, 3, 4]));
    const links: { link: number; snap: number }[] = [];
    for (let n = random(5); n >= 0; n--) {
      const kind = random(8);
      if (links.length === 0 ? random(20) > 0 : kind === 0) {
        const one = { link: linkType(random), snap: pick(random, [0, 13, 30, 256, 65_535]) };
        links.push(one);
        block(1, options(random, writer().u16(one.link).u16(0).u32(one.snap), [2, 9, 11, 14]));
      }
      if (kind < 4) enhanced(random, writer(), links, block);
      else if (kind < 6) simple(random, writer(), links[0], block);
      else block(pick(random, BLOCK_TYPES), writer().raw(anyBytes(random, 40)));
    }
  }
  return blocks;
}

type PutBlock = (type: number, body: Writer) => void;
type Link = { readonly link: number; readonly snap: number };

function enhanced(random: Random, body: Writer, links: readonly Link[], block: PutBlock): void {
  const at = random(links.length + (random(20) === 0 ? 2 : 0));
  const bytes = frame(random, links[at]?.link ?? 1);
  body
    .u32(at)
    .u32(random(2 ** 31))
    .u32(random(2 ** 31))
    .u32(bytes.length)
    .u32(bytes.length + random(2) * 100);
  block(6, options(random, body.raw(bytes).pad(), [1, 2, 4, 5, 6]));
}

/** How much of the packet is there follows from its length and the interface's snap length. */
function simple(random: Random, body: Writer, from: Link | undefined, block: PutBlock): void {
  const whole = frame(random, from?.link ?? 1);
  const snap = from === undefined || from.snap === 0 ? whole.length : from.snap;
  block(3, body.u32(whole.length).raw(whole.slice(0, snap)));
}

function options(random: Random, writer: Writer, codes: readonly number[]): Writer {
  if (random(2) === 0) return writer;
  for (let n = random(3); n > 0; n--) {
    const value = anyBytes(random, 12);
    writer
      .u16(random(10) === 0 ? random(65_536) : pick(random, codes))
      .u16(value.length)
      .raw(value)
      .pad();
  }
  return random(8) === 0 ? writer : writer.u16(0).u16(0);
}

/** A frame of that link type, with VLAN tags now and then; some are too short. */
function frame(random: Random, link: number): number[] {
  const bytes = linkHeader(random, link);
  const begin = bytes.length;
  bytes.push(pick(random, VERSIONS));
  for (let n = random(60); n > 0; n--) bytes.push(random(256));
  if (random(2) === 0) sayLength(random, bytes, begin);
  if (random(12) === 0) bytes.length = random(bytes.length + 1);
  return bytes;
}

/** The packet that begins there says a length near its own, or none. */
function sayLength(random: Random, bytes: number[], begin: number): void {
  const is4 = bytes[begin] === 0x45;
  const field = begin + (is4 ? 2 : 4);
  if (field + 3 > bytes.length) return;
  bytes[field] = 0;
  bytes[field + 1] = random(4) === 0 ? 0 : Math.min(255, random(bytes.length - begin + 8));
  if (!is4 && random(2) === 0) bytes[field + 2] = 0; // next header: Hop-by-Hop
}

function linkHeader(random: Random, link: number): number[] {
  if (link === 0) return [2, 0, 0, 0];
  const ether = pick(random, ETHER_TYPES);
  const type = [ether >> 8, ether & 255];
  const tags = ether === 0x8100 || ether === 0x88a8 ? [0, random(256), ...pick(random, TAGGED)] : [];
  if (link === 1) return [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, ...type, ...tags];
  if (link === 113) return [0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 2, 0, 0, ...type, ...tags];
  if (link === 276) return [...type, 0, 0, 0, 0, 0, 1, 0, 1, 0, 6, 2, 0, 0, 0, 0, 2, 0, 0, ...tags];
  return [];
}

function anyBytes(random: Random, most: number): number[] {
  const bytes = Array<number>(random(most + 1));
  for (let i = 0; i < bytes.length; i++) bytes[i] = random(256);
  return bytes;
}

/** Blocks and records: gone, twice, in another order, with another length. */
function spoilItems(random: Random, items: number[][]): void {
  if (items.length === 0) return;
  const at = random(items.length);
  const item = items[at]!;
  const kind = random(5);
  if (kind === 0) items.splice(at, 1);
  else if (kind === 1) items.splice(at, 0, [...item]);
  else if (kind === 2) items.push(...items.splice(at, 1));
  else if (item.length >= 8) {
    // A length that lies: of the block, of the packet, or the one at the block's end.
    const offset = kind === 3 ? pick(random, [4, 8, 16, 20]) : item.length - 4;
    const length = random(2) === 0 ? pick(random, LENGTHS) : item.length + pick(random, [-8, -4, -1, 1, 4, 8]);
    if (offset + 4 <= item.length) item.splice(offset, 4, ...new Writer(random(2) === 0).u32(length >>> 0).bytes);
  }
}

function spoilBytes(random: Random, bytes: number[]): void {
  const at = random(bytes.length + 1);
  const kind = random(4);
  if (kind === 0) bytes.length = at;
  else if (kind === 1) bytes.splice(at, 1 + random(4));
  else if (kind === 2) bytes.splice(at, 0, ...anyBytes(random, 4));
  else if (at < bytes.length) bytes[at] = pick(random, [0, 1, 0x7f, 0x80, 0xff, random(256)]);
}
