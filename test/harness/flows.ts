// The test traffic: which addresses and ports a packet has follows from its number, so that sender, receiver and the
// one who checks agree without talking.
import { parseAddress } from "#model";

export const VIPS = { 4: "10.0.0.1", 6: "2001:db8::1" } as const;
export const UDP_PORT = 5000;
export const TCP_PORT = 80;
export const CLIENT_PORT = 30_000;
/** Client addresses; each is one UDP flow per family. */
export const FLOWS = 800;
/** Payload bytes: an IPv4 packet has 46 bytes in all. */
export const PAYLOAD_BYTES = 18;

export type Family = 4 | 6;

export const flowOf = (id: number) => id % FLOWS;

/** Text of a flow's client address. */
export function clientAddress(flow: number, family: Family): string {
  return family === 4 ? `10.200.${flow >> 8}.${flow & 255}` : `fd99::${(flow + 1).toString(16)}`;
}

/** 4 or 16 bytes. */
export function addressBytes(text: string): Uint8Array {
  const bytes = parseAddress(text);
  return text.includes(":") ? bytes : bytes.slice(12);
}

/** A UDP packet from its IP header on, with number 0 and a right checksum, which holds for every number. */
export function udpPacket(flow: number, family: Family): Uint8Array {
  const header = family === 4 ? 20 : 40;
  const length = 8 + PAYLOAD_BYTES;
  const bytes = new Uint8Array(header + length);
  const view = new DataView(bytes.buffer);
  const source = addressBytes(clientAddress(flow, family));
  const destination = addressBytes(VIPS[family]);
  if (family === 4) {
    bytes.set([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17]);
    view.setUint16(2, bytes.length);
    bytes.set(source, 12);
    bytes.set(destination, 16);
  } else {
    bytes.set([0x60, 0, 0, 0, 0, 0, 17, 64]);
    view.setUint16(4, length);
    bytes.set(source, 8);
    bytes.set(destination, 24);
  }
  view.setUint16(header, CLIENT_PORT);
  view.setUint16(header + 2, UDP_PORT);
  view.setUint16(header + 4, length);
  setNumber(view, header + 8, 0);
  const pseudo = [...source, ...destination, 0, 17, 0, length];
  view.setUint16(header + 6, checksum([...pseudo, ...bytes.subarray(header)]) || 0xffff);
  return bytes;
}

/** Writes a packet's number and its complement: their sum, and so the checksum, is the same for every number. */
export function setNumber(view: DataView, at: number, id: number): void {
  view.setUint32(at, id);
  view.setUint32(at + 4, ~id >>> 0);
}

/** Internet checksum, RFC 1071. */
export function checksum(bytes: readonly number[]): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += (bytes[i]! << 8) | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
