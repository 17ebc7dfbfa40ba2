import { AF_INET, AF_INET6 } from "#sys";

/** IP version. */
export type Family = 4 | 6;

/** The family as messages carry it: AF_INET or AF_INET6. */
export function afOf(family: Family): number {
  return family === 4 ? AF_INET : AF_INET6;
}

/** IP version of a message's family, or null for one that is neither (bridge, MPLS, multicast routing …). */
export function familyOf(af: number): Family | null {
  return af === AF_INET ? 4 : af === AF_INET6 ? 6 : null;
}

/** Bytes of an address of that family. */
export function addressBytes(family: Family): number {
  return family === 4 ? 4 : 16;
}

/** An address for messages: dotted, or 32 hexadecimal digits. Rooms above have the proper text. */
export function describeAddress(address: Uint8Array): string {
  return address.length === 4 ? address.join(".") : Buffer.from(address).toString("hex");
}
