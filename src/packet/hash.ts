import type { Packet } from "./packet.js";

const SCTP = 132;
const BASIS = 5381;

/** One step of djb2: h * 33 + byte (mod 2³²), nfqlb 1.2.0 src/lib/hash.c. */
function step(hash: number, byte: number): number {
  return (Math.imul(hash, 33) + byte) | 0;
}

/** djb2 of a run of known bytes is h * 33^n + c: the two numbers of the 12 bytes before an IPv4 address in the key. */
const MAPPED_FACTOR = power33(12);
const MAPPED_SUM = 0xff * 33 + 0xff;

function power33(exponent: number): number {
  let result = 1;
  for (let i = 0; i < exponent; i++) result = Math.imul(result, 33);
  return result;
}

/** djb2 of `bytes[start, end)`, u32. */
export function djb2(bytes: Uint8Array, start: number, end: number): number {
  let hash = BASIS;
  for (let i = start; i < end; i++) hash = step(hash, bytes[i]!);
  return hash >>> 0;
}

/** Hash of the packet's two addresses, u32; the tier agrees on it. */
export function hashAddresses(packet: Packet): number {
  return addresses(packet) >>> 0;
}

/** Hash of the packet's key, u32. `hashMode` 1: SCTP by its ports alone; anything else: the whole key. */
export function hashKey(packet: Packet, hashMode: number): number {
  const key = packet.key;
  if (hashMode === 1 && packet.protocol === SCTP) return djb2(key, 36, 40);
  let hash = addresses(packet);
  for (let i = 32; i < 40; i++) hash = step(hash, key[i]!);
  return hash >>> 0;
}

function addresses({ key, isV4 }: Packet): number {
  let hash = BASIS;
  if (!isV4) {
    for (let i = 0; i < 32; i++) hash = step(hash, key[i]!);
    return hash;
  }
  hash = (Math.imul(hash, MAPPED_FACTOR) + MAPPED_SUM) | 0;
  hash = step(step(step(step(hash, key[12]!), key[13]!), key[14]!), key[15]!);
  hash = (Math.imul(hash, MAPPED_FACTOR) + MAPPED_SUM) | 0;
  return step(step(step(step(hash, key[28]!), key[29]!), key[30]!), key[31]!);
}
