import { attr, attributes, message, raw, struct, text, u8, u32 } from "#bytes";
import { type Family, familyOf } from "./family.js";

export const RTM_NEWADDR = 20;
export const RTM_DELADDR = 21;
export const RTM_GETADDR = 22;

/** IFA_F_DADFAILED, IFA_F_TENTATIVE: duplicate address detection failed, or still runs. */
const IFA_F_NOT_USABLE = 0x08 | 0x40;

/** `struct ifaddrmsg`, include/uapi/linux/if_addr.h (v6.18). 8 bytes. */
const addressHeader = struct("ifaddrmsg", { family: u8, prefixLength: u8, flags: u8, scope: u8, index: u32 });

/** `IFA_*`, same file. IFA_LOCAL is the own address where there is one; IFA_ADDRESS is then the peer's or the same. */
const addressAttributes = attributes("IFA", {
  address: attr(1, raw),
  local: attr(2, raw),
  label: attr(3, text),
  flags: attr(8, u32),
});
export const addressMessage = message(addressHeader, addressAttributes);

/** One of the host's own addresses. */
export type LocalAddress = {
  readonly family: Family;
  readonly linkIndex: number;
  /** 4 or 16 bytes. */
  readonly address: Uint8Array;
  /** 0…32 or 0…128: what is on the link. */
  readonly prefixLength: number;
  /** Not while its uniqueness is being checked, nor when that failed. */
  readonly isUsable: boolean;
};

/** The address in a message's body, or null when it is of another family. @throws {DecodeError} */
export function decodeAddress(body: Uint8Array): LocalAddress | null {
  const { header, attributes: found } = addressMessage.decode(body, "");
  const family = familyOf(header.family);
  const address = found.local ?? found.address;
  if (family === null || address === undefined) return null;
  const isUsable = ((found.flags ?? header.flags) & IFA_F_NOT_USABLE) === 0;
  return { family, linkIndex: header.index, address, prefixLength: header.prefixLength, isUsable };
}

/** Body of RTM_GETADDR: all addresses. */
export function addressQuery(): Uint8Array {
  const header = { family: 0, prefixLength: 0, flags: 0, scope: 0, index: 0 };
  return addressMessage.encode({ header, attributes: {} }, "");
}
