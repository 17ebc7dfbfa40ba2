// Fragments by hand: IP packets from their header on.
import { addressBytes, type Family } from "./flows.js";

export type FragmentParts = {
  readonly family: Family;
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
  readonly protocol: number;
  readonly identification: number;
  /** Where the payload begins in the whole packet's, in bytes; a multiple of 8. */
  readonly offset: number;
  readonly isLast: boolean;
  readonly payload: Uint8Array;
  /** IPv6: 8 bytes of destination options before the Fragment header. */
  readonly hasOptions?: boolean;
};

const UDP = 17;
const FRAGMENT = 44;
const DESTINATION_OPTIONS = 60;

/** One fragment, or with offset 0 and `isLast` a packet that is none. */
export function fragmentPacket(parts: FragmentParts): Uint8Array {
  return parts.family === 4 ? fragmentIpv4(parts) : fragmentIpv6(parts);
}

function fragmentIpv4({ source, destination, protocol, identification, offset, isLast, payload }: FragmentParts) {
  const bytes = new Uint8Array(20 + payload.length);
  const view = new DataView(bytes.buffer);
  bytes.set([0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol]);
  view.setUint16(2, bytes.length);
  view.setUint16(4, identification);
  view.setUint16(6, (offset >> 3) | (isLast ? 0 : 0x2000));
  bytes.set(source, 12);
  bytes.set(destination, 16);
  view.setUint16(10, checksum(bytes.subarray(0, 20)));
  bytes.set(payload, 20);
  return bytes;
}

function fragmentIpv6(parts: FragmentParts) {
  const { source, destination, protocol, identification, offset, isLast, payload, hasOptions = false } = parts;
  const header = hasOptions ? 48 : 40;
  const bytes = new Uint8Array(header + 8 + payload.length);
  const view = new DataView(bytes.buffer);
  bytes.set([0x60, 0, 0, 0, 0, 0, hasOptions ? DESTINATION_OPTIONS : FRAGMENT, 64]);
  view.setUint16(4, bytes.length - 40);
  bytes.set(source, 8);
  bytes.set(destination, 24);
  if (hasOptions) bytes.set([FRAGMENT, 0, 1, 4, 0, 0, 0, 0], 40); // PadN
  bytes[header] = protocol;
  view.setUint16(header + 2, offset | (isLast ? 0 : 1));
  view.setUint32(header + 4, identification);
  bytes.set(payload, header + 8);
  return bytes;
}

export type Ends = {
  readonly family: Family;
  readonly source: string;
  readonly destination: string;
  readonly sourcePort: number;
  readonly destinationPort: number;
};

/** A UDP header with a right checksum, and the payload. */
export function udpBytes({ source, destination, sourcePort, destinationPort }: Ends, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(8 + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, sourcePort);
  view.setUint16(2, destinationPort);
  view.setUint16(4, bytes.length);
  bytes.set(payload, 8);
  const pseudo = [...addressBytes(source), ...addressBytes(destination), 0, UDP, bytes.length >> 8, bytes.length & 255];
  view.setUint16(6, checksum(Uint8Array.from(pseudo), bytes) || 0xffff);
  return bytes;
}

/** All fragments of a UDP packet, in order; each is `mtu` bytes long at most. */
export function udpFragments(ends: Ends, identification: number, payload: Uint8Array, mtu: number): Uint8Array[] {
  const whole = udpBytes(ends, payload);
  const room = Math.floor((mtu - (ends.family === 4 ? 20 : 48)) / 8) * 8;
  const starts = Array.from({ length: Math.ceil(whole.length / room) }, (_, i) => i * room);
  return starts.map((offset) =>
    fragmentPacket({
      family: ends.family,
      source: addressBytes(ends.source),
      destination: addressBytes(ends.destination),
      protocol: UDP,
      identification,
      offset,
      isLast: offset + room >= whole.length,
      payload: whole.subarray(offset, offset + room),
    }),
  );
}

/** Internet checksum (RFC 1071) of byte runs, each but the last of even length. */
function checksum(...runs: readonly Uint8Array[]): number {
  let sum = 0;
  for (const bytes of runs)
    for (let i = 0; i < bytes.length; i += 2) sum += (bytes[i]! << 8) | (i + 1 < bytes.length ? bytes[i + 1]! : 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
}
