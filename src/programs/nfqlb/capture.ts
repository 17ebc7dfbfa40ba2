import { CommandError } from "./command.js";

/** One packet of a capture file, from its IP header on. `etherType` 0 when it is no IP packet. */
export type CapturedPacket = {
  readonly n: number;
  readonly etherType: number;
  readonly bytes: Uint8Array;
  /** Bytes at its end that the capture does not have. */
  readonly missing: number;
};

const ETHER_TYPE_IPV4 = 0x0800;
const ETHER_TYPE_IPV6 = 0x86dd;
const IPV6_HEADER = 40;
/** Next header of a jumbogram's fixed header. */
const HOP_BY_HOP = 0;

const PCAP_MICROSECONDS = 0xa1b2c3d4;
const PCAP_NANOSECONDS = 0xa1b23c4d;
const PCAPNG_SECTION = 0x0a0d0d0a;
const PCAPNG_BYTE_ORDER = 0x1a2b3c4d;
const BLOCK_INTERFACE = 1;
const BLOCK_SIMPLE = 3;
const BLOCK_ENHANCED = 6;

/** Link types with the length of their header and where in it the EtherType stands (null: told by the IP version). */
const LINK_TYPES: ReadonlyMap<number, { readonly header: number; readonly etherTypeAt: number | null }> = new Map([
  [0, { header: 4, etherTypeAt: null }], // LINKTYPE_NULL
  [1, { header: 14, etherTypeAt: 12 }], // LINKTYPE_ETHERNET
  [101, { header: 0, etherTypeAt: null }], // LINKTYPE_RAW
  [113, { header: 16, etherTypeAt: 14 }], // LINKTYPE_LINUX_SLL
  [228, { header: 0, etherTypeAt: null }], // LINKTYPE_IPV4
  [229, { header: 0, etherTypeAt: null }], // LINKTYPE_IPV6
  [276, { header: 20, etherTypeAt: 0 }], // LINKTYPE_LINUX_SLL2
]);
/** An interface of a pcapng file; `snapBytes`: most bytes of a packet in the file, 0 = no bound. */
type Interface = { readonly linkType: number; readonly snapBytes: number };
const VLAN_TAGS = [0x8100, 0x88a8];

/**
 * The packets of a pcap or pcapng file, numbered from 1 as Wireshark does.
 * @throws {CommandError} no capture file, an unknown link type, or the file breaks off: names the byte offset
 * @see draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng; link types: tcpdump.org/linktypes.html
 */
export function* readCapture(file: Uint8Array): Generator<CapturedPacket> {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const magic = file.length >= 4 ? view.getUint32(0, true) : 0;
  if (magic === PCAPNG_SECTION) yield* readPcapng(file, view);
  else yield* readPcap(file, view);
}

function* readPcap(file: Uint8Array, view: DataView): Generator<CapturedPacket> {
  const isMagic = (value: number) => value === PCAP_MICROSECONDS || value === PCAP_NANOSECONDS;
  const isLittle = file.length >= 24 && isMagic(view.getUint32(0, true));
  if (!isLittle && !(file.length >= 24 && isMagic(view.getUint32(0, false)))) {
    throw new CommandError("not a capture file: neither pcap nor pcapng");
  }
  const linkType = view.getUint32(20, isLittle) & 0xffff;
  for (let at = 24, n = 1; at < file.length; n++) {
    need(file, at, 16);
    const length = view.getUint32(at + 8, isLittle);
    need(file, at + 16, length);
    const original = view.getUint32(at + 12, isLittle);
    yield linkLayer(n, linkType, file.subarray(at + 16, at + 16 + length), original);
    at += 16 + length;
  }
}

function* readPcapng(file: Uint8Array, view: DataView): Generator<CapturedPacket> {
  let isLittle = true;
  let interfaces: Interface[] = [];
  let n = 0;
  for (let at = 0; at < file.length; ) {
    need(file, at, 12);
    const isSection = view.getUint32(at, true) === PCAPNG_SECTION;
    if (isSection) {
      isLittle = view.getUint32(at + 8, true) === PCAPNG_BYTE_ORDER;
      interfaces = [];
    }
    const type = view.getUint32(at, isLittle);
    const length = view.getUint32(at + 4, isLittle);
    if (length < 12 || length % 4 !== 0)
      throw new CommandError(`capture file: bad block length ${length} at byte ${at}`);
    need(file, at, length);
    const body = at + 8;
    const bodyLength = length - 12;
    if (type === BLOCK_INTERFACE && bodyLength >= 8) {
      interfaces.push({ linkType: view.getUint16(body, isLittle), snapBytes: view.getUint32(body + 4, isLittle) });
    }
    if (type === BLOCK_ENHANCED && bodyLength >= 20) {
      const captured = view.getUint32(body + 12, isLittle);
      if (captured > bodyLength - 20)
        throw new CommandError(`capture file: bad packet length ${captured} at byte ${at}`);
      const linkType = interfaces[view.getUint32(body, isLittle)]?.linkType;
      const original = view.getUint32(body + 16, isLittle);
      yield linkLayer(++n, linkType, file.subarray(body + 20, body + 20 + captured), original);
    } else if (type === BLOCK_SIMPLE && bodyLength >= 4) {
      // The block has no captured length: it is the packet's, cut to the interface's (section 4.4).
      const { linkType, snapBytes } = interfaces[0] ?? { linkType: undefined, snapBytes: 0 };
      const most = snapBytes === 0 ? bodyLength - 4 : Math.min(snapBytes, bodyLength - 4);
      const original = view.getUint32(body, isLittle);
      const captured = Math.min(original, most);
      yield linkLayer(++n, linkType, file.subarray(body + 4, body + 4 + captured), original);
    }
    at += length;
  }
}

function need(file: Uint8Array, at: number, length: number): void {
  if (at + length > file.length)
    throw new CommandError(`capture file breaks off at byte ${file.length}, in the item at ${at}`);
}

/** @param original bytes of the frame before the capture cut it */
function linkLayer(n: number, linkType: number | undefined, frame: Uint8Array, original: number): CapturedPacket {
  const link = linkType === undefined ? undefined : LINK_TYPES.get(linkType);
  if (link === undefined) {
    throw new CommandError(
      `capture file: packet ${n} has link type ${linkType}; known: ${[...LINK_TYPES.keys()].join(", ")}`,
    );
  }
  let { header } = link;
  let etherType = 0;
  if (link.etherTypeAt === null) {
    const version = (frame[header] ?? 0) >> 4;
    etherType = version === 4 ? ETHER_TYPE_IPV4 : version === 6 ? ETHER_TYPE_IPV6 : 0;
  } else {
    etherType = be16(frame, link.etherTypeAt);
    while (VLAN_TAGS.includes(etherType) && header + 4 <= frame.length) {
      etherType = be16(frame, header + 2);
      header += 4;
    }
  }
  const rest = frame.subarray(Math.min(header, frame.length));
  const wholeLength = Math.min(ipLength(etherType, rest), rest.length + Math.max(0, original - frame.length));
  const missing = Math.max(0, wholeLength - rest.length);
  return { n, etherType, bytes: rest.subarray(0, wholeLength), missing };
}

/**
 * How long a packet says it is. What is behind it is padding or a trailer of the link layer, which the kernel cuts off
 * before anybody sees the packet. Infinity: it does not say, being cut, larger than its field can hold, or not IP.
 * @see ip_rcv_core, net/ipv4/ip_input.c; ip6_rcv_core, net/ipv6/ip6_input.c (v6.18)
 */
export function ipLength(etherType: number, bytes: Uint8Array): number {
  if (etherType === ETHER_TYPE_IPV4 && bytes.length >= 20) return be16(bytes, 2) || Number.POSITIVE_INFINITY;
  if (etherType !== ETHER_TYPE_IPV6 || bytes.length < IPV6_HEADER) return Number.POSITIVE_INFINITY;
  const payload = be16(bytes, 4);
  const isJumbo = payload === 0 && (bytes[6] === HOP_BY_HOP || bytes.length > IPV6_HEADER + 65_535);
  return isJumbo ? Number.POSITIVE_INFINITY : IPV6_HEADER + payload;
}

function be16(bytes: Uint8Array, at: number): number {
  return ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
}
