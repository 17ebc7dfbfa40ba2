// Whole IP packets of all kinds that a trace or an explanation tells apart, and a socket that sends them as they are.
import { AF_INET, AF_INET6, closeDescriptor, openSocket, SOCK_RAW, sendInet } from "#sys";
import { addressBytes, checksum } from "./flows.js";

const IPPROTO_RAW = 255;
const TCP = 6;
const UDP = 17;
const SCTP = 132;

/** An IPv4 packet; `fragment` is the word of flags and offset. Identification is never 0: a kernel would choose one. */
export function ipv4(
  source: string,
  destination: string,
  protocol: number,
  payload: Uint8Array,
  { identification = 1, fragment = 0 } = {},
): Uint8Array {
  const bytes = new Uint8Array(20 + payload.length);
  const view = new DataView(bytes.buffer);
  bytes.set([0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol]);
  view.setUint16(2, bytes.length);
  view.setUint16(4, identification);
  view.setUint16(6, fragment);
  bytes.set(addressBytes(source), 12);
  bytes.set(addressBytes(destination), 16);
  view.setUint16(10, checksum([...bytes.subarray(0, 20)]));
  bytes.set(payload, 20);
  return bytes;
}

export function ipv6(source: string, destination: string, protocol: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(40 + payload.length);
  bytes.set([0x60, 0, 0, 0, 0, 0, protocol, 64]);
  new DataView(bytes.buffer).setUint16(4, payload.length);
  bytes.set(addressBytes(source), 8);
  bytes.set(addressBytes(destination), 24);
  bytes.set(payload, 40);
  return bytes;
}

/** A UDP header without checksum, and `length` bytes behind it. */
export function udp(sourcePort: number, destinationPort: number, length: number): Uint8Array {
  const bytes = ports(8 + length, sourcePort, destinationPort);
  new DataView(bytes.buffer).setUint16(4, 8 + length);
  return bytes;
}

/** A TCP header of 20 bytes with these flags. */
export function tcp(sourcePort: number, destinationPort: number, flags: number): Uint8Array {
  const bytes = ports(20, sourcePort, destinationPort);
  bytes.set([0x50, flags], 12);
  return bytes;
}

/** An SCTP common header. */
export function sctp(sourcePort: number, destinationPort: number): Uint8Array {
  return ports(12, sourcePort, destinationPort);
}

/** ICMP echo request. */
export function echoRequest(identifier: number): Uint8Array {
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  bytes[0] = 8;
  view.setUint16(4, identifier);
  view.setUint16(2, checksum([...bytes]));
  return bytes;
}

/** ICMP "fragmentation needed" about a packet, of which 28 bytes are quoted. */
export function fragmentationNeeded(mtu: number, about: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(8 + 28);
  const view = new DataView(bytes.buffer);
  bytes.set([3, 4]);
  view.setUint16(6, mtu);
  bytes.set(about.subarray(0, 28), 8);
  view.setUint16(2, checksum([...bytes]));
  return bytes;
}

function ports(length: number, source: number, destination: number): Uint8Array {
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, source);
  view.setUint16(2, destination);
  return bytes;
}

/** Sends IP packets as they are. */
export class RawSender implements Disposable {
  readonly #fd4 = openSocket(AF_INET, SOCK_RAW, IPPROTO_RAW);
  readonly #fd6 = openSocket(AF_INET6, SOCK_RAW, IPPROTO_RAW);

  send(packet: Uint8Array): void {
    const is4 = packet[0]! >> 4 === 4;
    const destination = is4 ? packet.slice(16, 20) : packet.slice(24, 40);
    const errno = sendInet(is4 ? this.#fd4 : this.#fd6, packet, destination, 0);
    if (errno !== 0) throw new Error(`send: errno ${errno}`);
  }

  [Symbol.dispose](): void {
    closeDescriptor(this.#fd4);
    closeDescriptor(this.#fd6);
  }
}

export const PROTOCOL = { tcp: TCP, udp: UDP, sctp: SCTP, icmp: 1, gre: 47 } as const;
