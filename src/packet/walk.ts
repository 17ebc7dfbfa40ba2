const HOP_BY_HOP = 0;
const ROUTING = 43;
const FRAGMENT = 44;
const DESTINATION_OPTIONS = 60;
const FRAGMENT_HEADER_BYTES = 8;

/** `walkIpv6` found bytes missing, or a second Fragment header. */
export const WALK_FAILED = -1;

/** Where a walk over IPv6 extension headers ended. One object per use, overwritten by the next walk. */
export class Walk {
  /** Protocol of the header at the offset returned. */
  protocol = 0;
  /** Index of the Fragment header, -1 without one. */
  fragmentHeader = -1;
}

/**
 * Walks the extension headers of the IPv6 packet at `start` to its L4 header (RFC 8200 section 4): Hop-by-Hop, Routing
 * and Destination Options are (length byte + 1) * 8 bytes, a Fragment header is 8. A Fragment header with an offset ends
 * the walk: what follows it is payload. AH, ESP and everything unknown end it too. At most one Fragment header.
 *
 * Every step advances by 8 bytes at least and stays inside the packet, so the walk ends, and the packet's length bounds
 * the number and the length of the headers.
 *
 * @param end index behind the packet's last byte; the caller has checked start + 40 <= end
 * @returns index of the L4 header (may equal `end`), or {@link WALK_FAILED}
 */
export function walkIpv6(bytes: Uint8Array, start: number, end: number, walk: Walk): number {
  let protocol = bytes[start + 6]!;
  let offset = start + 40;
  walk.fragmentHeader = -1;
  for (;;) {
    if (protocol === HOP_BY_HOP || protocol === ROUTING || protocol === DESTINATION_OPTIONS) {
      if (offset + 2 > end) return WALK_FAILED;
      protocol = bytes[offset]!;
      offset += (bytes[offset + 1]! + 1) * 8;
      if (offset > end) return WALK_FAILED;
    } else if (protocol === FRAGMENT) {
      if (walk.fragmentHeader >= 0 || offset + FRAGMENT_HEADER_BYTES > end) return WALK_FAILED;
      walk.fragmentHeader = offset;
      protocol = bytes[offset]!;
      if (fragmentOffset(bytes, offset) !== 0) break;
      offset += FRAGMENT_HEADER_BYTES;
    } else {
      break;
    }
  }
  walk.protocol = protocol;
  return offset;
}

/** Offset of an IPv6 fragment in bytes, from its Fragment header. */
export function fragmentOffset(bytes: Uint8Array, header: number): number {
  return ((bytes[header + 2]! << 8) | bytes[header + 3]!) & 0xfff8;
}
