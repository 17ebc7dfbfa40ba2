/** One packet for a capture file, from its IP header on. */
export type CapturePacket = {
  /** Number of the NFQUEUE. */
  readonly queue: number;
  readonly seconds: number;
  readonly nanoseconds: number;
  /** The first bytes of the packet, and its length. */
  readonly bytes: Uint8Array;
  readonly length: number;
  readonly comment: string;
};

const BLOCK_SECTION = 0x0a0d0d0a;
const BLOCK_INTERFACE = 1;
const BLOCK_ENHANCED = 6;
const BYTE_ORDER = 0x1a2b3c4d;
const LINKTYPE_RAW = 101;
const OPT_END = 0;
const OPT_COMMENT = 1;
const EPB_QUEUE = 6;
const SHB_USER_APPLICATION = 4;
const IF_NAME = 2;
const IF_TIMESTAMP_RESOLUTION = 9;
/** Timestamps count nanoseconds: 10^-9. */
const NANOSECONDS = 9;

/**
 * The blocks that a pcapng file begins with: a section and an interface of raw IP packets. One interface for all queues:
 * libpcap 1.10 (tcpdump) refuses a second one of this link type, which it compares before and after translating it.
 * @param snapBytes most bytes that a packet has in the file
 * @see draft-ietf-opsawg-pcapng, sections 4.1 and 4.2
 */
export function captureHead(application: string, interfaceName: string, snapBytes: number): Uint8Array {
  const section = words(BYTE_ORDER, 1 /* version 1.0 */, 0xffff_ffff, 0xffff_ffff); // the section's length is not known
  return concat([
    block(BLOCK_SECTION, [section, option(SHB_USER_APPLICATION, utf8(application)), option(OPT_END)]),
    block(BLOCK_INTERFACE, [
      words(LINKTYPE_RAW, snapBytes),
      option(IF_NAME, utf8(interfaceName)),
      option(IF_TIMESTAMP_RESOLUTION, new Uint8Array([NANOSECONDS])),
      option(OPT_END),
    ]),
  ]);
}

/** A packet with its queue and a comment. @see draft-ietf-opsawg-pcapng, section 4.3 */
export function captureBlock(packet: CapturePacket): Uint8Array {
  const { queue, seconds, nanoseconds, bytes, length, comment } = packet;
  const time = BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds);
  return block(BLOCK_ENHANCED, [
    words(0, Number(time >> 32n), Number(time & 0xffff_ffffn), bytes.length, length),
    padded(bytes),
    option(OPT_COMMENT, utf8(comment)),
    option(EPB_QUEUE, words(queue)),
    option(OPT_END),
  ]);
}

/** A block: its type, its length, its body of whole words, its length again. */
function block(type: number, parts: readonly Uint8Array[]): Uint8Array {
  const body = concat(parts);
  const length = body.length + 12;
  return concat([words(type, length), body, words(length)]);
}

/** An option: code and length as u16, the value padded to whole words. */
function option(code: number, value: Uint8Array = new Uint8Array(0)): Uint8Array {
  return concat([words(code | (value.length << 16)), padded(value)]);
}

/** 32-bit words, little endian. */
function words(...values: readonly number[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(values.length * 4));
  values.forEach((value, index) => {
    view.setUint32(index * 4, value >>> 0, true);
  });
  return new Uint8Array(view.buffer);
}

function padded(bytes: Uint8Array): Uint8Array {
  const whole = new Uint8Array((bytes.length + 3) & ~3);
  whole.set(bytes);
  return whole;
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

/** Text for an option, cut to what its length field can say. */
function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text).subarray(0, 65_535);
}
