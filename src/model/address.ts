import { ConfigError } from "./error.js";

/** Prefix of the 16 bytes of an IPv4 address, `::ffff:a.b.c.d`: ten zero bytes and two of ones. */
const MAPPED_BYTES = 12;

/** A range of addresses. `address` has 16 bytes, its host bits are zero; `bits` is 0…128, an IPv4 /n is 96 + n. */
export type Prefix = { readonly address: Uint8Array; readonly bits: number };

/** Whether the 16 bytes are an IPv4 address, mapped as `::ffff:a.b.c.d` (RFC 4291 section 2.5.5.2). */
export function isIpv4(address: Uint8Array): boolean {
  for (let i = 0; i < 10; i++) if (address[i] !== 0) return false;
  return address[10] === 0xff && address[11] === 0xff;
}

/**
 * Reads an address: dotted quad of exactly four decimal numbers without leading zeroes, or RFC 4291 text with at most
 * one `::`; no blanks, zones or brackets. IPv4 gives the mapped form.
 * @throws {ConfigError}
 */
export function parseAddress(text: string): Uint8Array {
  const bytes = text.includes(":") ? parseIpv6(text) : mapped(parseIpv4(text));
  if (bytes === null) throw new ConfigError("address", text, "not an IPv4 or IPv6 address");
  return bytes;
}

function mapped(quad: Uint8Array | null): Uint8Array | null {
  if (quad === null) return null;
  const bytes = new Uint8Array(16);
  bytes[10] = 0xff;
  bytes[11] = 0xff;
  bytes.set(quad, MAPPED_BYTES);
  return bytes;
}

function parseIpv4(text: string): Uint8Array | null {
  const parts = text.split(".");
  if (parts.length !== 4) return null;
  const quad = new Uint8Array(4);
  for (const [i, part] of parts.entries()) {
    if (!/^(?:0|[1-9][0-9]{0,2})$/.test(part) || Number(part) > 255) return null;
    quad[i] = Number(part);
  }
  return quad;
}

function parseIpv6(text: string): Uint8Array | null {
  const halves = text.split("::");
  if (halves.length > 2) return null;
  const head = groups(halves[0]!, halves.length === 1);
  const tail = halves.length === 2 ? groups(halves[1]!, true) : [];
  if (head === null || tail === null) return null;
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return null;
  const all = [...head, ...Array.from({ length: missing }, () => 0), ...tail];
  const bytes = new Uint8Array(16);
  for (const [i, group] of all.entries()) {
    bytes[i * 2] = group >> 8;
    bytes[i * 2 + 1] = group & 0xff;
  }
  return bytes;
}

/** The 16-bit groups of one side of `::`; the last may be a dotted quad where `mayEndInQuad`. */
function groups(text: string, mayEndInQuad: boolean): number[] | null {
  if (text === "") return [];
  const result: number[] = [];
  const parts = text.split(":");
  for (const [i, part] of parts.entries()) {
    if (part.includes(".")) {
      const quad = mayEndInQuad && i === parts.length - 1 ? parseIpv4(part) : null;
      if (quad === null) return null;
      result.push((quad[0]! << 8) | quad[1]!, (quad[2]! << 8) | quad[3]!);
    } else {
      if (!/^[0-9a-fA-F]{1,4}$/.test(part)) return null;
      result.push(Number.parseInt(part, 16));
    }
  }
  return result;
}

/** Text of a 16-byte address as RFC 5952 section 4 wants it; an IPv4 address as dotted quad. */
export function formatAddress(address: Uint8Array): string {
  if (isIpv4(address)) return address.subarray(MAPPED_BYTES).join(".");
  const words = Array.from({ length: 8 }, (_, i) => (address[i * 2]! << 8) | address[i * 2 + 1]!);
  let bestStart = -1;
  let bestLength = 1; // a single zero group is not shortened
  for (let i = 0; i < 8; i++) {
    let length = 0;
    while (i + length < 8 && words[i + length] === 0) length++;
    if (length > bestLength) {
      bestStart = i;
      bestLength = length;
    }
    i += length;
  }
  const hex = (part: readonly number[]) => part.map((word) => word.toString(16)).join(":");
  if (bestStart < 0) return hex(words);
  return `${hex(words.slice(0, bestStart))}::${hex(words.slice(bestStart + bestLength))}`;
}

/**
 * Reads `address/bits`; the mask is mandatory, decimal, without leading zeroes; host bits are cleared.
 * @throws {ConfigError}
 */
export function parsePrefix(text: string): Prefix {
  const slash = text.indexOf("/");
  const mask = text.slice(slash + 1);
  if (slash < 0 || !/^(?:0|[1-9][0-9]{0,2})$/.test(mask)) {
    throw new ConfigError("prefix", text, "not address/length, for example 10.0.0.1/32 or 2001:db8::1/128");
  }
  const addressText = text.slice(0, slash);
  const address = parseAddress(addressText);
  const isV4Text = !addressText.includes(":");
  const most = isV4Text ? 32 : 128;
  if (Number(mask) > most) throw new ConfigError("prefix", text, `length out of range, 0..${most}`);
  const bits = Number(mask) + (isV4Text ? 96 : 0);
  return { address: maskAddress(address, bits), bits };
}

function maskAddress(address: Uint8Array, bits: number): Uint8Array {
  const result = address.slice();
  for (let i = 0; i < 16; i++) {
    const kept = Math.min(8, Math.max(0, bits - i * 8));
    result[i] = result[i]! & (0xff00 >> kept);
  }
  return result;
}

/** Text of a prefix, `a.b.c.d/n` for a part of the IPv4 space, else `v6/n`. */
export function formatPrefix({ address, bits }: Prefix): string {
  return bits >= 96 && isIpv4(address) ? `${formatAddress(address)}/${bits - 96}` : `${formatAddress(address)}/${bits}`;
}

/** Whether the 16-byte address lies in the prefix. */
export function prefixContains({ address: base, bits }: Prefix, address: Uint8Array): boolean {
  const whole = bits >> 3;
  for (let i = 0; i < whole; i++) if (base[i] !== address[i]) return false;
  const rest = bits & 7;
  return rest === 0 || ((base[whole]! ^ address[whole]!) & (0xff00 >> rest) & 0xff) === 0;
}
