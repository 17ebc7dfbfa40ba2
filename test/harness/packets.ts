// Packets made by hand, from their IP header on, with right checksums.
import { addressBytes, checksum } from "./flows.js";

export const ICMP = 1;
export const TCP = 6;
export const UDP = 17;
export const ICMPV6 = 58;
export const SCTP = 132;

const SCTP_INIT = 1;
const ICMP_ECHO = { 4: 8, 6: 128 } as const;

const be16 = (value: number) => [value >> 8, value & 255];

export type Addresses = { readonly source: string; readonly destination: string };

const isV6 = ({ destination }: Addresses) => destination.includes(":");

/** An IP packet; IPv4 with DF and an identification, which the kernel would otherwise choose. */
export function ipPacket(addresses: Addresses, protocol: number, payload: Uint8Array): Uint8Array {
  const source = addressBytes(addresses.source);
  const destination = addressBytes(addresses.destination);
  if (isV6(addresses)) {
    const header = [0x60, 0, 0, 0, ...be16(payload.length), protocol, 64];
    return Uint8Array.from([...header, ...source, ...destination, ...payload]);
  }
  const length = 20 + payload.length;
  const header = [
    0x45,
    0,
    length >> 8,
    length & 255,
    0x51,
    0x3c,
    0x40,
    0,
    64,
    protocol,
    0,
    0,
    ...source,
    ...destination,
  ];
  const sum = checksum(header);
  header.splice(10, 2, ...be16(sum));
  return Uint8Array.from([...header, ...payload]);
}

/**
 * The fragments of a packet, in order, each with at most `bytes` (a multiple of 8) of its payload. In IPv6 everything
 * behind the IPv6 header is cut.
 */
export function fragments(packet: Uint8Array, identification: number, bytes: number): Uint8Array[] {
  const is4 = packet[0]! >> 4 === 4;
  const payload = packet.slice(is4 ? 20 : 40);
  const starts = Array.from({ length: Math.ceil(payload.length / bytes) }, (_, i) => i * bytes);
  return starts.map((start) => {
    const part = payload.slice(start, start + bytes);
    const isLast = start + bytes >= payload.length;
    const header = Array.from(packet.slice(0, is4 ? 20 : 40));
    if (is4) {
      header.splice(2, 2, ...be16(20 + part.length));
      header.splice(4, 4, ...be16(identification), ...be16((isLast ? 0 : 0x2000) | (start / 8)));
      header.splice(10, 2, 0, 0);
      header.splice(10, 2, ...be16(checksum(header)));
      return Uint8Array.from([...header, ...part]);
    }
    const fragmentHeader = [header[6]!, 0, ...be16(start | (isLast ? 0 : 1)), 0, 0, ...be16(identification)];
    header.splice(4, 3, ...be16(8 + part.length), 44);
    return Uint8Array.from([...header, ...fragmentHeader, ...part]);
  });
}

/** What the transport checksum covers besides the segment. */
function pseudoHeader(addresses: Addresses, protocol: number, length: number): number[] {
  const both = [...addressBytes(addresses.source), ...addressBytes(addresses.destination)];
  return [...both, 0, protocol, ...be16(length)];
}

function withChecksum(addresses: Addresses, protocol: number, at: number, segment: number[]): Uint8Array {
  const pseudo = protocol === ICMP ? [] : pseudoHeader(addresses, protocol, segment.length);
  const sum = checksum([...pseudo, ...segment]);
  segment.splice(at, 2, ...be16(sum));
  return ipPacket(addresses, protocol, Uint8Array.from(segment));
}

export type Ports = Addresses & { readonly sourcePort: number; readonly destinationPort: number };

const portBytes = ({ sourcePort, destinationPort }: Ports) => [...be16(sourcePort), ...be16(destinationPort)];

export function udp(ports: Ports, payload: ArrayLike<number> = []): Uint8Array {
  const length = 8 + payload.length;
  const header = [...portBytes(ports), ...be16(length), 0, 0];
  return withChecksum(ports, UDP, 6, [...header, ...Array.from(payload)]);
}

/** A TCP segment without payload. @param flags for example 2 = SYN, 16 = ACK */
export function tcp(ports: Ports, flags: number): Uint8Array {
  return withChecksum(ports, TCP, 16, [
    ...portBytes(ports),
    0,
    0,
    0,
    1,
    0,
    0,
    0,
    1,
    0x50,
    flags,
    0xff,
    0xff,
    0,
    0,
    0,
    0,
  ]);
}

export function echoRequest(addresses: Addresses, identifier: number, sequence: number): Uint8Array {
  const type = isV6(addresses) ? ICMP_ECHO[6] : ICMP_ECHO[4];
  const numbers = [...be16(identifier), ...be16(sequence)];
  return withChecksum(addresses, isV6(addresses) ? ICMPV6 : ICMP, 2, [type, 0, 0, 0, ...numbers, ...Array(16).fill(7)]);
}

/** An ICMP error from a router, quoting as much of a packet as may be quoted. @param word the second 4 bytes, e.g. the MTU */
export function icmpError(
  addresses: Addresses,
  type: number,
  code: number,
  word: number,
  quoted: Uint8Array,
): Uint8Array {
  const header = [type, code, 0, 0, ...be16(word >>> 16), ...be16(word & 0xffff)];
  return withChecksum(addresses, isV6(addresses) ? ICMPV6 : ICMP, 2, [...header, ...quoted.slice(0, 512)]);
}

/** An SCTP packet (RFC 9260) with one chunk: INIT, or whatever `type` says, with a body of `body` bytes. */
export function sctp(ports: Ports, { type = SCTP_INIT, tag = 0, body = 16 } = {}): Uint8Array {
  return ipPacket(ports, SCTP, sctpSegment(ports, { type, tag, body }));
}

/** The same in UDP (RFC 6951). */
export function sctpInUdp(ports: Ports, udpPorts: readonly [number, number], chunk = {}): Uint8Array {
  const [sourcePort, destinationPort] = udpPorts;
  return udp({ ...ports, sourcePort, destinationPort }, sctpSegment(ports, chunk));
}

function sctpSegment(ports: Ports, { type = SCTP_INIT, tag = 0, body = 16 }): Uint8Array {
  const chunk = [type, 0, 0, 4 + body, ...Array.from({ length: body }, (_, i) => i + 1)];
  const segment = Uint8Array.from([...portBytes(ports), 0, 0, tag >> 8, tag & 255, 0, 0, 0, 0, ...chunk]);
  new DataView(segment.buffer).setUint32(8, crc32c(segment), true);
  return segment;
}

/** CRC-32C (Castagnoli), RFC 9260 appendix A. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return ~crc >>> 0;
}

/** A packet as text, without what routers change: hop limit, and the IPv4 checksum that covers it. */
export function identity(bytes: Uint8Array): string {
  const copy = Uint8Array.from(bytes);
  if (copy[0]! >> 4 === 4) copy.fill(0, 10, 12);
  copy[copy[0]! >> 4 === 4 ? 8 : 7] = 0;
  return Buffer.from(copy).toString("hex");
}
