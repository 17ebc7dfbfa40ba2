// A second reader of pcap and pcapng files, written from the drafts alone and strict: what they forbid is an error. It
// reads the file from front to back and takes bytes away, so that nothing can be read twice or from outside.
// draft-ietf-opsawg-pcap-06, draft-ietf-opsawg-pcapng-03, link types of tcpdump.org/linktypes.html

export type PlainPacket = { readonly etherType: number; readonly bytes: string; readonly missing: number };
/** The packets up to where the file ends or becomes wrong. */
export type PlainCapture = { readonly packets: readonly PlainPacket[]; readonly isWhole: boolean };

class Wrong extends Error {}

/** Bytes that are taken from the front. */
class Reader {
  #bytes: Buffer;
  isLittle = true;
  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }
  get left(): number {
    return this.#bytes.length;
  }
  take(count: number): Buffer {
    if (count > this.#bytes.length) throw new Wrong();
    const taken = this.#bytes.subarray(0, count);
    this.#bytes = this.#bytes.subarray(count);
    return taken;
  }
  part(count: number): Reader {
    const reader = new Reader(this.take(count));
    reader.isLittle = this.isLittle;
    return reader;
  }
  u16(): number {
    const bytes = this.take(2);
    return this.isLittle ? bytes[1]! * 256 + bytes[0]! : bytes[0]! * 256 + bytes[1]!;
  }
  u32(): number {
    const [first, second] = [this.u16(), this.u16()];
    return this.isLittle ? second * 65_536 + first : first * 65_536 + second;
  }
}

export function readCapturePlainly(file: Uint8Array): PlainCapture {
  const packets: PlainPacket[] = [];
  const reader = new Reader(Buffer.from(file));
  try {
    const magic = Buffer.from(file.subarray(0, 4)).toString("hex");
    if (magic === "0a0d0d0a") readBlocks(reader, packets);
    else readRecords(reader, magic, packets);
    return { packets, isWhole: true };
  } catch (error) {
    if (!(error instanceof Wrong)) throw error;
    return { packets, isWhole: false };
  }
}

function readRecords(reader: Reader, magic: string, packets: PlainPacket[]): void {
  if (!["d4c3b2a1", "4d3cb2a1", "a1b2c3d4", "a1b23c4d"].includes(magic)) throw new Wrong();
  reader.isLittle = magic.endsWith("a1");
  reader.take(20);
  const linkType = reader.u32() % 65_536;
  while (reader.left > 0) {
    reader.take(8);
    const captured = reader.u32();
    const cutOff = reader.u32() - captured;
    packets.push(fromLink(linkType, reader.take(captured), cutOff));
  }
}

function readBlocks(file: Reader, packets: PlainPacket[]): void {
  let interfaces: { readonly linkType: number; readonly snapLength: number }[] = [];
  while (file.left > 0) {
    let type = file.take(4);
    const isSection = type.toString("hex") === "0a0d0d0a";
    let lengthBytes = file.take(4);
    let magic = Buffer.alloc(0);
    if (isSection) {
      magic = file.take(4) as Buffer<ArrayBuffer>;
      const order = magic.toString("hex");
      if (order !== "4d3c2b1a" && order !== "1a2b3c4d") throw new Wrong();
      file.isLittle = order === "4d3c2b1a";
      interfaces = [];
    }
    if (file.isLittle) [type, lengthBytes] = [Buffer.from(type).reverse(), Buffer.from(lengthBytes).reverse()];
    const length = lengthBytes.readUInt32BE();
    const left = length - 12 - magic.length;
    if (left < 0 || length % 4 !== 0) throw new Wrong();
    const body = file.part(left);
    if (file.u32() !== length) throw new Wrong();
    const number = type.readUInt32BE();
    if (isSection) {
      if (body.u16() !== 1) throw new Wrong();
      body.take(10);
    } else if (number === 1) {
      const linkType = body.u16();
      body.take(2);
      interfaces.push({ linkType, snapLength: body.u32() });
    } else if (number === 6) {
      const from = interfaces[body.u32()];
      body.take(8);
      const captured = body.u32();
      const cutOff = body.u32() - captured;
      const bytes = body.take(captured);
      body.take((4 - (captured % 4)) % 4);
      if (from === undefined) throw new Wrong();
      packets.push(fromLink(from.linkType, bytes, cutOff));
    } else if (number === 3) {
      const from = interfaces[0];
      const original = body.u32();
      if (from === undefined) throw new Wrong();
      const captured = from.snapLength === 0 ? original : Math.min(original, from.snapLength);
      const bytes = body.take(captured);
      if (body.left !== (4 - (captured % 4)) % 4) throw new Wrong();
      packets.push(fromLink(from.linkType, bytes, original - captured));
    }
  }
}

const byVersion = (bytes: Buffer) => ({ 4: 0x0800, 6: 0x86dd })[Math.floor((bytes[0] ?? 0) / 16)] ?? 0;

/** The packet in a frame. Of one that is too short for its link layer nothing is left. */
function fromLink(linkType: number, frame: Buffer, cutOff: number): PlainPacket {
  if (linkType === 0) return packet(byVersion(frame.subarray(4)), frame.subarray(4), cutOff);
  if ([101, 228, 229].includes(linkType)) return packet(byVersion(frame), frame, cutOff);
  const [header, at] = { 1: [14, 12], 113: [16, 14], 276: [20, 0] }[linkType] ?? [-1, -1];
  if (header === -1 || header === undefined || at === undefined) throw new Wrong();
  const word = (offset: number) => (frame[offset] ?? 0) * 256 + (frame[offset + 1] ?? 0);
  let etherType = word(at);
  let begin = header;
  // A tag: two bytes of VLAN, then the type of what follows.
  for (; (etherType === 0x8100 || etherType === 0x88a8) && begin + 4 <= frame.length; begin += 4)
    etherType = word(begin + 2);
  return packet(etherType, frame.subarray(begin), cutOff);
}

/** Without what follows the packet by its own word: RFC 791 "Total Length", RFC 8200 "Payload Length", RFC 2675. */
function packet(etherType: number, bytes: Buffer, cutOff: number): PlainPacket {
  let length: number | null = null;
  if (etherType === 0x0800 && bytes.length >= 20) length = bytes.readUInt16BE(2);
  if (etherType === 0x86dd && bytes.length >= 40) {
    length = 40 + bytes.readUInt16BE(4);
    if (length === 40 && (bytes[6] === 0 || bytes.length > 65_575)) length = null;
  }
  if (length === 0) length = null; // larger than it can say
  const whole = bytes.length + Math.max(0, cutOff);
  if (length === null || length > whole) length = whole;
  return {
    etherType,
    bytes: bytes.subarray(0, length).toString("hex"),
    missing: length > bytes.length ? length - bytes.length : 0,
  };
}
