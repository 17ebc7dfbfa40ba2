import {
  type Packet,
  RC_ADDRESSES_ONLY,
  RC_FIRST_FRAGMENT,
  RC_ICMP,
  RC_ICMP_ERROR,
  RC_LATER_FRAGMENT,
  RC_UDP_ENCAP,
  UNUSABLE,
} from "./packet.js";
import { fragmentOffset, isExtensionHeader, WALK_FAILED, Walk, walkIpv6 } from "./walk.js";

const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_IPV6 = 0x86dd;
const ICMP = 1;
const TCP = 6;
const UDP = 17;
const ICMPV6 = 58;
const SCTP = 132;
const UDP_HEADER_BYTES = 8;
const ICMP_HEADER_BYTES = 8;
const ICMP_ECHO_REQUEST = 8;
const ICMPV6_ECHO_REQUEST = 128;
/** MF and the offset of the IPv4 fragment field; DF and the reserved bit are ignored. */
const FRAGMENT_MASK = 0x3fff;
const OFFSET_MASK = 0x1fff;

/** Scratch of the one thread that this module is loaded in. Two, because an ICMPv6 error holds a second IPv6 packet. */
const outer = new Walk();
const inner = new Walk();

/**
 * Learns the key, the kind and the outer L4 header of the IP packet in `bytes[start, end)`. The end of the packet is
 * `end`, whatever its length fields say; version nibble and checksums are not looked at (the kernel has). Reads nothing
 * outside [start, end), allocates nothing, throws nothing, ends after at most (end - start) / 8 steps.
 *
 * Equal to nfqlb 1.2.0 (src/lib/iputils.c) but for its defects: bounds are inclusive, extension headers are walked as
 * RFC 8200 says, first fragments have their real ports, an atomic fragment (RFC 6946) is no fragment, ICMP errors are
 * types 3, 4, 5, 11, 12 and ICMPv6 1…4, and a quoted later fragment has no ports. IPv6 extension headers are bounded in
 * number and length, in quoted packets too.
 *
 * @param etherType ETHERTYPE_IPV4 or ETHERTYPE_IPV6, anything else is unusable
 * @param udpEncapPort UDP destination port whose payload is SCTP, 0 = none
 * @returns `out.rc`
 */
export function parse(
  bytes: Uint8Array,
  start: number,
  end: number,
  etherType: number,
  udpEncapPort: number,
  out: Packet,
): number {
  out.isEchoRequest = false;
  out.fragmentId = 0;
  out.quotedFragment = 0;
  const rc =
    etherType === ETHERTYPE_IPV4
      ? parseIpv4(bytes, start, end, udpEncapPort, out)
      : etherType === ETHERTYPE_IPV6
        ? parseIpv6(bytes, start, end, udpEncapPort, out)
        : UNUSABLE;
  out.rc = rc;
  return rc;
}

function parseIpv4(bytes: Uint8Array, start: number, end: number, udpEncapPort: number, out: Packet): number {
  if (start + 20 > end) return UNUSABLE;
  const words = bytes[start]! & 0x0f;
  if (words < 5) return UNUSABLE;
  const protocol = bytes[start + 9]!;
  out.setAddresses4(bytes, start + 12, start + 16);
  out.l3Protocol = protocol;
  const fragment = be16(bytes, start + 6) & FRAGMENT_MASK;
  let fragmentBit = 0;
  if (fragment !== 0) {
    const id = be16(bytes, start + 4);
    out.fragmentId = id;
    if ((fragment & OFFSET_MASK) !== 0) return laterFragment(id >> 8, id & 0xff, 0, 0, out);
    fragmentBit = RC_FIRST_FRAGMENT;
  }
  const l4 = start + words * 4;
  out.l4Offset = l4;
  out.l4Protocol = protocol;
  return parseTransport(bytes, l4, end, protocol, fragmentBit, udpEncapPort, out);
}

function parseIpv6(bytes: Uint8Array, start: number, end: number, udpEncapPort: number, out: Packet): number {
  if (start + 40 > end) return UNUSABLE;
  out.setAddresses6(bytes, start + 8, start + 24);
  out.l3Protocol = 0;
  let l4 = start + 40;
  let protocol = bytes[start + 6]!;
  let fragmentBit = 0;
  if (protocol !== TCP && protocol !== UDP) {
    l4 = walkIpv6(bytes, start, end, outer);
    if (l4 === WALK_FAILED) return UNUSABLE;
    protocol = outer.protocol;
    const header = outer.fragmentHeader;
    if (header >= 0) {
      const isLater = fragmentOffset(bytes, header) !== 0;
      if (isLater || (bytes[header + 3]! & 1) !== 0) {
        out.fragmentId = ((be16(bytes, header + 4) << 16) | be16(bytes, header + 6)) >>> 0;
        if (isLater) {
          return laterFragment(bytes[header + 4]!, bytes[header + 5]!, bytes[header + 6]!, bytes[header + 7]!, out);
        }
        fragmentBit = RC_FIRST_FRAGMENT;
      }
    }
  }
  out.l4Offset = l4;
  out.l4Protocol = protocol;
  return parseTransport(bytes, l4, end, protocol, fragmentBit, udpEncapPort, out);
}

/** The key of a later fragment: no transport header, but its identification in bytes 32…35. */
function laterFragment(id0: number, id1: number, id2: number, id3: number, out: Packet): number {
  out.setTransport(0, 0, 0, 0);
  const key = out.key;
  key[32] = id0;
  key[33] = id1;
  key[34] = id2;
  key[35] = id3;
  out.l4Offset = -1;
  out.l4Protocol = -1;
  return RC_LATER_FRAGMENT;
}

function parseTransport(
  bytes: Uint8Array,
  l4: number,
  end: number,
  protocol: number,
  fragmentBit: number,
  udpEncapPort: number,
  out: Packet,
): number {
  if (protocol === TCP || protocol === UDP || protocol === SCTP) {
    if (l4 + 4 > end) return UNUSABLE;
    const destinationPort = be16(bytes, l4 + 2);
    if (udpEncapPort !== 0 && protocol === UDP && destinationPort === udpEncapPort) {
      const sctp = l4 + UDP_HEADER_BYTES;
      if (sctp + 4 > end) return UNUSABLE;
      out.setTransport(SCTP, be16(bytes, sctp), be16(bytes, sctp + 2), 0);
      return fragmentBit | RC_UDP_ENCAP;
    }
    out.setTransport(protocol, be16(bytes, l4), destinationPort, 0);
    return fragmentBit;
  }
  // An ICMPv6 message in IPv4, or the other way round, is none: it is keyed like any other protocol.
  if (protocol === (out.isV4 ? ICMP : ICMPV6)) return parseIcmp(bytes, l4, end, fragmentBit, udpEncapPort, out);
  out.setTransport(protocol, 0, 0, 0);
  return fragmentBit | RC_ADDRESSES_ONLY;
}

function parseIcmp(
  bytes: Uint8Array,
  l4: number,
  end: number,
  fragmentBit: number,
  udpEncapPort: number,
  out: Packet,
): number {
  if (l4 + 1 > end) return UNUSABLE;
  const type = bytes[l4]!;
  if (out.isV4) {
    if (type === 3 || type === 4 || type === 5 || type === 11 || type === 12) {
      return fragmentBit !== 0 ? UNUSABLE : parseQuotedIpv4(bytes, l4 + ICMP_HEADER_BYTES, end, udpEncapPort, out);
    }
  } else if (type >= 1 && type <= 4) {
    return fragmentBit !== 0 ? UNUSABLE : parseQuotedIpv6(bytes, l4 + ICMP_HEADER_BYTES, end, udpEncapPort, out);
  }
  let identifier = 0;
  if (type === (out.isV4 ? ICMP_ECHO_REQUEST : ICMPV6_ECHO_REQUEST)) {
    if (l4 + 6 > end) return UNUSABLE;
    identifier = be16(bytes, l4 + 4);
    out.isEchoRequest = true;
  }
  out.setTransport(out.isV4 ? ICMP : ICMPV6, 0, 0, identifier);
  return fragmentBit | RC_ICMP;
}

/** The key of the flow that an ICMP error is about: that of the quoted packet, turned round. */
function parseQuotedIpv4(bytes: Uint8Array, quoted: number, end: number, udpEncapPort: number, out: Packet): number {
  if (quoted + 20 > end) return UNUSABLE;
  const words = bytes[quoted]! & 0x0f;
  if (words < 5) return UNUSABLE;
  const protocol = bytes[quoted + 9]!;
  out.setAddresses4(bytes, quoted + 16, quoted + 12);
  out.l3Protocol = protocol;
  const fragment = be16(bytes, quoted + 6) & FRAGMENT_MASK;
  if (fragment !== 0) {
    out.fragmentId = be16(bytes, quoted + 4);
    out.quotedFragment = (fragment & OFFSET_MASK) !== 0 ? RC_LATER_FRAGMENT : RC_FIRST_FRAGMENT;
  }
  return parseQuotedTransport(bytes, quoted + words * 4, end, protocol, udpEncapPort, out);
}

function parseQuotedIpv6(bytes: Uint8Array, quoted: number, end: number, udpEncapPort: number, out: Packet): number {
  if (quoted + 40 > end) return UNUSABLE;
  const l4 = walkIpv6(bytes, quoted, end, inner, outer.roomLeft); // an ICMPv6 message has always been walked to
  if (l4 === WALK_FAILED) return UNUSABLE;
  out.setAddresses6(bytes, quoted + 24, quoted + 8);
  const header = inner.fragmentHeader;
  if (header >= 0) {
    const isLater = fragmentOffset(bytes, header) !== 0;
    if (isLater || (bytes[header + 3]! & 1) !== 0) {
      out.fragmentId = ((be16(bytes, header + 4) << 16) | be16(bytes, header + 6)) >>> 0;
      out.quotedFragment = isLater ? RC_LATER_FRAGMENT : RC_FIRST_FRAGMENT;
      if (isLater && isExtensionHeader(inner.protocol)) return UNUSABLE;
    }
  }
  return parseQuotedTransport(bytes, l4, end, inner.protocol, udpEncapPort, out);
}

function parseQuotedTransport(
  bytes: Uint8Array,
  l4: number,
  end: number,
  protocol: number,
  udpEncapPort: number,
  out: Packet,
): number {
  if (protocol !== TCP && protocol !== UDP && protocol !== SCTP) {
    out.setTransport(protocol, 0, 0, 0);
    return RC_ICMP_ERROR | RC_ADDRESSES_ONLY;
  }
  if (out.quotedFragment === RC_LATER_FRAGMENT || l4 + 4 > end) return UNUSABLE;
  const sourcePort = be16(bytes, l4);
  if (udpEncapPort !== 0 && protocol === UDP && sourcePort === udpEncapPort) {
    const sctp = l4 + UDP_HEADER_BYTES;
    if (sctp + 4 > end) return UNUSABLE;
    out.setTransport(SCTP, be16(bytes, sctp + 2), be16(bytes, sctp), 0);
    return RC_ICMP_ERROR | RC_UDP_ENCAP;
  }
  out.setTransport(protocol, be16(bytes, l4 + 2), sourcePort, 0);
  return RC_ICMP_ERROR;
}

function be16(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!;
}
