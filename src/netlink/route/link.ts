import { attr, attributes, i32, message, raw, struct, text, u8, u16, u32, u64 } from "#bytes";

export const RTM_NEWLINK = 16;
export const RTM_DELLINK = 17;
export const RTM_GETLINK = 18;

const AF_UNSPEC = 0;
const IFF_UP = 0x1;
const IFF_LOWER_UP = 0x10000;
const RTEXT_FILTER_SKIP_STATS = 8;

/** IF_OPER_*, RFC 2863 ifOperStatus; include/uapi/linux/if.h (v6.18). By number. */
const OPERATIONAL_STATES = ["unknown", "notPresent", "down", "lowerLayerDown", "testing", "dormant", "up"] as const;

/** `struct ifinfomsg`, include/uapi/linux/rtnetlink.h (v6.18). 16 bytes. */
const linkHeader = struct("ifinfomsg", { family: u8, pad: u8, type: u16, index: i32, flags: u32, change: u32 });

/** `IFLA_*`, include/uapi/linux/if_link.h (v6.18). */
const linkAttributes = attributes("IFLA", {
  address: attr(1, raw),
  name: attr(3, text),
  mtu: attr(4, u32),
  master: attr(10, u32),
  operationalState: attr(16, u8),
  extensionMask: attr(29, u32),
  groMaxSize: attr(58, u32),
});
export const linkMessage = message(linkHeader, linkAttributes);

/** Kept as an unknown attribute: 25 numbers in v6.18, of which others than the first eight have names by driver. */
const IFLA_STATS64 = 23;
/** The first fields of `struct rtnl_link_stats64`, same file; in all versions. */
const linkStatistics = struct("rtnl_link_stats64", {
  rxPackets: u64,
  txPackets: u64,
  rxBytes: u64,
  txBytes: u64,
  rxErrors: u64,
  txErrors: u64,
  rxDropped: u64,
  txDropped: u64,
});

/** What an interface has counted since it was made. */
export type LinkStatistics = { readonly [K in keyof ReturnType<typeof linkStatistics.decode>]: number };

/** A network interface. */
export type Link = {
  readonly index: number;
  readonly name: string;
  /** Set up by the administrator (IFF_UP). */
  readonly isUp: boolean;
  /** The layer below is there: cable, peer, lower device (IFF_LOWER_UP). */
  readonly hasCarrier: boolean;
  /** `unknown` also for devices that never tell, as loopback and tun. */
  readonly operationalState: (typeof OPERATIONAL_STATES)[number];
  /** Link-layer address, 6 bytes on Ethernet; empty where there is none. */
  readonly linkLayerAddress: Uint8Array;
  /** Largest packet in bytes. */
  readonly mtuBytes: number;
  /** Index of the bridge, bond or VRF it is a port of; 0 = none. */
  readonly masterIndex: number;
  /** Packets received may have been put together up to this; above 65536 there are IPv6 jumbograms. 0: not told. */
  readonly groMaxBytes: number;
};

/**
 * The link in a message's body, or null when the message is another family's view of it: a bridge that tells of a port
 * uses RTM_NEWLINK and RTM_DELLINK too, and the link lives on. @throws {DecodeError}
 */
export function decodeLink(body: Uint8Array): Link | null {
  const { header, attributes: found } = linkMessage.decode(body, "");
  if (header.family !== AF_UNSPEC) return null;
  return {
    index: header.index,
    name: found.name ?? "",
    isUp: (header.flags & IFF_UP) !== 0,
    hasCarrier: (header.flags & IFF_LOWER_UP) !== 0,
    operationalState: OPERATIONAL_STATES[found.operationalState ?? 0] ?? "unknown",
    linkLayerAddress: found.address ?? new Uint8Array(0),
    mtuBytes: found.mtu ?? 0,
    masterIndex: found.master ?? 0,
    groMaxBytes: found.groMaxSize ?? 0,
  };
}

/** A link and its counters, as {@link decodeLink}. @throws {DecodeError} */
export function decodeCountedLink(body: Uint8Array): (Link & { readonly statistics: LinkStatistics }) | null {
  const link = decodeLink(body);
  const bytes = linkMessage.decode(body, "").attributes.unknown?.find(({ type }) => type === IFLA_STATS64)?.payload;
  if (link === null || bytes === undefined) return null;
  const counters = Object.entries(linkStatistics.decode(bytes, "IFLA.stats64"));
  const statistics = Object.fromEntries(counters.map(([name, count]) => [name, Number(count)])) as LinkStatistics;
  return { ...link, statistics };
}

/** Body of RTM_GETLINK: all links, with or without their counters. */
export function linkQuery({ isCounting }: { readonly isCounting: boolean }): Uint8Array {
  return linkMessage.encode(
    {
      header: { family: AF_UNSPEC, pad: 0, type: 0, index: 0, flags: 0, change: 0 },
      attributes: isCounting ? {} : { extensionMask: RTEXT_FILTER_SKIP_STATS },
    },
    "",
  );
}

/** Body of RTM_NEWLINK: takes the link down, as `ip link set down`; nothing else of it changes. */
export function linkDownRequest(index: number): Uint8Array {
  const header = { family: AF_UNSPEC, pad: 0, type: 0, index, flags: 0, change: IFF_UP };
  return linkMessage.encode({ header, attributes: {} }, "");
}
