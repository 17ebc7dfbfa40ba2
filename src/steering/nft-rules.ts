import {
  bitAnd,
  compare,
  type Expression,
  inSet,
  meta,
  networkHeader,
  notInSet,
  outsideRange,
  transportHeader,
} from "#netlink/nftables";
import type { Family } from "#netlink/route";

/** What IPv4 and IPv6 differ in, as far as our rules look at it. Offsets are those of the IP header's fields. */
export const IP = {
  4: {
    name: "ip",
    nfproto: 2,
    addressBytes: 4,
    source: 12,
    destination: 16,
    protocol: 9,
    headerBytes: 20,
    icmp: 1,
    icmpName: "icmp",
    setType: "ipv4Interval",
  },
  6: {
    name: "ip6",
    nfproto: 10,
    addressBytes: 16,
    source: 8,
    destination: 24,
    protocol: 6,
    headerBytes: 40,
    icmp: 58,
    icmpName: "ipv6-icmp",
    setType: "ipv6Interval",
  },
} as const satisfies Record<Family, object>;

export const FAMILIES = [4, 6] as const;
/** In an ICMP error the packet that it is about begins here. */
export const QUOTED = 8;

export const byte = (value: number) => new Uint8Array([value]);
export const be16 = (value: number) => new Uint8Array([value >> 8, value & 0xff]);

/** A part of a rule: what nft calls it, and the expressions that it is made of. */
export type Part = { readonly text: string; readonly expressions: readonly Expression[] };

/** Goes on with packets of one IP version. */
export const ofFamily = (family: Family): readonly Expression[] => [
  meta("nfproto"),
  compare("==", byte(IP[family].nfproto)),
];

/** Goes on with packets of one protocol. */
export const ofProtocol = (protocol: number): readonly Expression[] => [meta("l4proto"), compare("==", byte(protocol))];

/** Goes on if the packet's address is in the set, or is not. The IP version is tested elsewhere. */
export function addressIn(family: Family, end: "source" | "destination", set: string, isInside = true): Part {
  const { name, addressBytes } = IP[family];
  const lookup = isInside ? inSet(set) : notInSet(set);
  return {
    text: `${name} ${end === "source" ? "saddr" : "daddr"} ${isInside ? "" : "!= "}@${set}`,
    expressions: [networkHeader(IP[family][end], addressBytes), lookup],
  };
}

/** Goes on if an address of the packet that an ICMP error quotes is in the set. */
export function quotedAddressIn(family: Family, end: "source" | "destination", set: string): Part {
  const { addressBytes } = IP[family];
  const at = QUOTED + IP[family][end];
  return {
    text: `@th,${at * 8},${addressBytes * 8} @${set}`,
    expressions: [transportHeader(at, addressBytes), inSet(set)],
  };
}

/** Goes on if `length` bytes at `offset` of what follows the IP header are `value`. */
export function transportIs(offset: number, value: Uint8Array): Part {
  return {
    text: `@th,${offset * 8},${value.length * 8} 0x${Buffer.from(value).toString("hex")}`,
    expressions: [transportHeader(offset, value.length), compare("==", value)],
  };
}

/**
 * Goes on with ICMP errors about a packet of `protocol` whose ports stand where we look for them: its IP header has no
 * options, it is no fragment but perhaps the first. IPv4 errors are types 3-5, 11 and 12, IPv6 ones 1-4.
 */
export function icmpErrorAbout(family: Family, protocol: number): Part {
  const { icmp, icmpName } = IP[family];
  const quotes = transportIs(QUOTED + IP[family].protocol, byte(protocol));
  const type = transportHeader(0, 1);
  if (family === 6) {
    const isError = [type, compare("<=", byte(4))];
    return {
      text: `icmpv6 type <= 4 ${quotes.text}`,
      expressions: [...ofFamily(6), ...ofProtocol(icmp), ...isError, ...quotes.expressions],
    };
  }
  const isError = [type, compare(">=", byte(3)), type, outsideRange(byte(8), byte(10)), type, compare("<=", byte(12))];
  const hasPlainHeader = transportIs(QUOTED, byte(0x45));
  const fragment = transportHeader(QUOTED + 6, 2);
  const isFirst = [fragment, bitAnd(be16(0x1fff)), compare("==", be16(0))];
  return {
    text: `${icmpName} type >= 3 ${icmpName} type != 8-10 ${icmpName} type <= 12 ${hasPlainHeader.text} @th,${(QUOTED + 6) * 8},16 & 0x1fff == 0 ${quotes.text}`,
    expressions: [
      ...ofFamily(4),
      ...ofProtocol(icmp),
      ...isError,
      ...hasPlainHeader.expressions,
      ...isFirst,
      ...quotes.expressions,
    ],
  };
}
