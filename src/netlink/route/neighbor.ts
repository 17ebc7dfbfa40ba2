import { attr, attributes, be16, i32, message, raw, struct, u8, u16, u32 } from "#bytes";
import { afOf, describeAddress, type Family, familyOf } from "./family.js";

export const RTM_NEWNEIGH = 28;
export const RTM_DELNEIGH = 29;
export const RTM_GETNEIGH = 30;

/** `NUD_*`: what the kernel knows of a neighbor. A set with one member at most; 0 is `none`. */
export const NeighborState = {
  none: 0x00,
  incomplete: 0x01,
  reachable: 0x02,
  stale: 0x04,
  delay: 0x08,
  probe: 0x10,
  failed: 0x20,
  noarp: 0x40,
  permanent: 0x80,
} as const;
export type NeighborState = (typeof NeighborState)[keyof typeof NeighborState];

/**
 * Whether a change to this state, told as an event, says that the kernel has asked in vain. INCOMPLETE does, as FAILED:
 * that a question begins is never told. Where fwmark_reflect is set, the kernel's own "host unreachable" for the packets
 * that waited has their mark, is routed to the same neighbor and begins the next question before the failure is told
 * (neigh_invalidate in neigh_timer_handler, net/core/neighbour.c, v6.18). In a dump INCOMPLETE is any question.
 */
export function tellsFailure(state: number): boolean {
  return state === NeighborState.failed || state === NeighborState.incomplete;
}

/** `NTF_USE`: treat the entry as if a packet were to be sent to it. */
export const NTF_USE = 0x01;

/** `struct ndmsg`, include/uapi/linux/neighbour.h (v6.18). 12 bytes. */
const neighborHeader = struct("ndmsg", {
  family: u8,
  pad1: u8,
  pad2: u16,
  linkIndex: i32,
  state: u16,
  flags: u8,
  type: u8,
});

/** `struct nda_cacheinfo`: ages in ticks of 1/100 s, users of the entry. */
const cacheInfo = struct("nda_cacheinfo", { confirmed: u32, used: u32, updated: u32, references: u32 });

/** `NDA_*`, same file, in the order of the kernel's own dump (neigh_fill_info, net/core/neighbour.c, v6.18). */
const neighborAttributes = attributes("NDA", {
  destination: attr(1, raw),
  linkLayerAddress: attr(2, raw),
  probes: attr(4, u32),
  cacheInfo: attr(3, cacheInfo),
  vlan: attr(5, u16),
  port: attr(6, be16),
  linkIndex: attr(8, u32),
  protocol: attr(12, u8),
  extendedFlags: attr(15, u32),
});
export const neighborMessage = message(neighborHeader, neighborAttributes);

/** What names a neighbor entry. */
export type NeighborKey = {
  readonly family: Family;
  readonly linkIndex: number;
  /** 4 or 16 bytes. */
  readonly address: Uint8Array;
};

/** An entry of `ip neigh`. */
export type Neighbor = NeighborKey & {
  /** One of NeighborState; a number, since a later kernel may know more. */
  readonly state: number;
  /** null while the kernel does not know it. */
  readonly linkLayerAddress: Uint8Array | null;
  /** NTF_*: 0x80 router, 0x08 proxy, 0x10 learned by somebody else … */
  readonly flags: number;
  /** Routing protocol number: who made it; 0 = the kernel, or nobody said. */
  readonly protocol: number;
};

/** The neighbor in a message's body, or null when it is of another family (a bridge's forwarding entry). @throws {DecodeError} */
export function decodeNeighbor(body: Uint8Array): Neighbor | null {
  const { header, attributes: found } = neighborMessage.decode(body, "");
  const family = familyOf(header.family);
  if (family === null || found.destination === undefined) return null;
  return {
    family,
    linkIndex: header.linkIndex,
    address: found.destination,
    state: header.state,
    linkLayerAddress: found.linkLayerAddress ?? null,
    flags: header.flags,
    protocol: found.protocol ?? 0,
  };
}

/** Body of RTM_NEWNEIGH. */
export function encodeNeighbor(neighbor: Neighbor): Uint8Array {
  const { state, linkLayerAddress, flags, protocol, address } = neighbor;
  const header = { ...emptyHeader(neighbor.family), linkIndex: neighbor.linkIndex, state, flags };
  const attributes = {
    destination: address,
    linkLayerAddress: linkLayerAddress ?? undefined,
    protocol: protocol === 0 ? undefined : protocol,
  };
  return neighborMessage.encode({ header, attributes }, "");
}

/** Body of RTM_DELNEIGH. */
export function encodeNeighborDeletion({ family, linkIndex, address }: NeighborKey): Uint8Array {
  return neighborMessage.encode(
    { header: { ...emptyHeader(family), linkIndex }, attributes: { destination: address } },
    "",
  );
}

/** Body of RTM_GETNEIGH: the entries of a family; a link's index other than 0 lets the kernel filter. */
export function neighborQuery(family: Family, linkIndex: number): Uint8Array {
  const attributes = linkIndex === 0 ? {} : { linkIndex };
  return neighborMessage.encode({ header: emptyHeader(family), attributes }, "");
}

function emptyHeader(family: Family) {
  return { family: afOf(family), pad1: 0, pad2: 0, linkIndex: 0, state: 0, flags: 0, type: 0 };
}

/** The entry in a line, for messages. */
export function describeNeighbor({ address, linkIndex }: NeighborKey): string {
  return `${describeAddress(address)} link ${linkIndex}`;
}
