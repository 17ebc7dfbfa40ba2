const HOP_BY_HOP = 0;
const ROUTING = 43;
const FRAGMENT = 44;
const DESTINATION_OPTIONS = 60;
const FRAGMENT_HEADER_BYTES = 8;

/** Extension headers that a packet may have. RFC 8200 section 4.1 has a use for seven. */
export const MAX_EXTENSION_HEADERS = 16;
/**
 * Their bytes in all; in an ICMPv6 error its own and those of the packet that it quotes together. Of the 256 bytes that the kernel copies out an ICMPv6 error needs 40 + 8 for itself, 40 for the
 * header it quotes and 12 for the ports (of SCTP behind UDP): 156 are left, and headers come in steps of 8.
 */
export const MAX_EXTENSION_BYTES = 152;

/** `walkIpv6` found bytes missing, a second Fragment header, or more headers than the bounds allow. */
export const WALK_FAILED = -1;

/** Where a walk over IPv6 extension headers ended. One object per use, overwritten by the next walk. */
export class Walk {
  /** Protocol of the header at the offset returned. */
  protocol = 0;
  /** Index of the Fragment header, -1 without one. */
  fragmentHeader = -1;
  /** Bytes of extension headers that another walk in the same packet may still take. */
  roomLeft = 0;
}

/**
 * Walks the extension headers of the IPv6 packet at `start` to its L4 header (RFC 8200 section 4): Hop-by-Hop, Routing
 * and Destination Options are (length byte + 1) * 8 bytes, a Fragment header is 8. A Fragment header with an offset ends
 * the walk: what follows it is payload. AH, ESP and everything unknown end it too; AH is the protocol of its packet, as
 * in IPv4 and in nfqlb (docs/decisions/0026). At most one Fragment header, {@link MAX_EXTENSION_HEADERS} headers and
 * `room` bytes of them.
 *
 * @param end index behind the packet's last byte; the caller has checked start + 40 <= end
 * @param room most bytes of extension headers
 * @returns index of the L4 header (may equal `end`), or {@link WALK_FAILED}
 */
export function walkIpv6(
  bytes: Uint8Array,
  start: number,
  end: number,
  walk: Walk,
  room = MAX_EXTENSION_BYTES,
): number {
  let protocol = bytes[start + 6]!;
  let offset = start + 40;
  const limit = Math.min(end, offset + room);
  walk.fragmentHeader = -1;
  for (let headers = 0; ; headers++) {
    if (protocol === HOP_BY_HOP || protocol === ROUTING || protocol === DESTINATION_OPTIONS) {
      if (headers === MAX_EXTENSION_HEADERS || offset + 2 > limit) return WALK_FAILED;
      protocol = bytes[offset]!;
      offset += (bytes[offset + 1]! + 1) * 8;
      if (offset > limit) return WALK_FAILED;
    } else if (protocol === FRAGMENT) {
      if (headers === MAX_EXTENSION_HEADERS || offset + FRAGMENT_HEADER_BYTES > limit) return WALK_FAILED;
      if (walk.fragmentHeader >= 0) return WALK_FAILED;
      walk.fragmentHeader = offset;
      protocol = bytes[offset]!;
      if (fragmentOffset(bytes, offset) !== 0) break;
      offset += FRAGMENT_HEADER_BYTES;
    } else {
      break;
    }
  }
  walk.protocol = protocol;
  walk.roomLeft = room - (offset - start - 40);
  return offset;
}

/** Whether a header of this type is walked; in a later fragment such a type hides what the packet's protocol is. */
export function isExtensionHeader(protocol: number): boolean {
  return protocol === HOP_BY_HOP || protocol === ROUTING || protocol === DESTINATION_OPTIONS || protocol === FRAGMENT;
}

/** Offset of an IPv6 fragment in bytes, from its Fragment header. */
export function fragmentOffset(bytes: Uint8Array, header: number): number {
  return ((bytes[header + 2]! << 8) | bytes[header + 3]!) & 0xfff8;
}
