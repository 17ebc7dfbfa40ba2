import { isIpv4, parseAddress } from "#model";
import { CommandError } from "./command.js";

/** Protocols that a command line may name, and whether they have ports. */
const PROTOCOL_NUMBERS: ReadonlyMap<string, { readonly number: number; readonly hasPorts: boolean }> = new Map([
  ["tcp", { number: 6, hasPorts: true }],
  ["udp", { number: 17, hasPorts: true }],
  ["sctp", { number: 132, hasPorts: true }],
  ["icmp", { number: 1, hasPorts: false }],
  ["icmpv6", { number: 58, hasPorts: false }],
]);

export type Endpoint = { readonly address: Uint8Array; readonly port: number };

/**
 * Reads `a.b.c.d:port` or `[v6]:port`, in upstream's words when it is wrong.
 * @throws {CommandError}
 */
export function parseEndpoint(text: string): Endpoint {
  const match = /^(?:\[([^\]]*)\]|([^:]*)):([0-9]{1,5})$/.exec(text);
  if (match === null) {
    throw new CommandError(/\]:|^[^:]*:/.test(text) ? `Parse address failed [${text}]` : `No port in [${text}]`);
  }
  const port = Number(match[3]);
  const isBracketed = match[1] !== undefined;
  try {
    const address = parseAddress(match[1] ?? match[2]!);
    if (port > 65_535 || isIpv4(address) === isBracketed) throw new CommandError("");
    return { address, port };
  } catch {
    throw new CommandError(`Parse address failed [${text}]`);
  }
}

/** Number of `tcp`, `udp` or `sctp` in any case. @throws {CommandError} in upstream's words */
export function parsePortProtocol(text: string): number {
  const protocol = PROTOCOL_NUMBERS.get(text.toLowerCase());
  if (protocol?.hasPorts === true) return protocol.number;
  throw new CommandError(`Failed to parse protocol [${text}]`);
}

/** Name of an IP protocol as people know it, else its number as text. */
export function protocolName(number: number): string {
  for (const [name, protocol] of PROTOCOL_NUMBERS) if (protocol.number === number) return name;
  return String(number);
}

/**
 * The smallest IP packet with these addresses, protocol and ports, so that a tuple goes through the very code that
 * packets go through: an IP header without options and 20 bytes behind it that begin with the ports.
 * @throws {CommandError} the addresses are of different IP versions
 */
export function tuplePacket(
  protocol: number,
  source: Endpoint,
  destination: Endpoint,
): { readonly etherType: number; readonly bytes: Uint8Array } {
  const is4 = isIpv4(source.address);
  if (is4 !== isIpv4(destination.address))
    throw new CommandError("source and destination are of different IP versions");
  const header = is4 ? 20 : 40;
  const bytes = new Uint8Array(header + 20);
  const view = new DataView(bytes.buffer);
  if (is4) {
    view.setUint8(0, 0x45);
    view.setUint16(2, bytes.length);
    view.setUint8(8, 64);
    view.setUint8(9, protocol);
    bytes.set(source.address.subarray(12), 12);
    bytes.set(destination.address.subarray(12), 16);
  } else {
    view.setUint8(0, 0x60);
    view.setUint16(4, 20);
    view.setUint8(6, protocol);
    view.setUint8(7, 64);
    bytes.set(source.address, 8);
    bytes.set(destination.address, 24);
  }
  view.setUint16(header, source.port);
  view.setUint16(header + 2, destination.port);
  return { etherType: is4 ? 0x0800 : 0x86dd, bytes };
}
