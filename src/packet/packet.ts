/** A packet that cannot be used: too short, malformed or not IP. */
export const UNUSABLE = -1;
/** Bits of {@link Packet.rc}, nfqlb's return code of the key builder. */
export const RC_FIRST_FRAGMENT = 1;
export const RC_LATER_FRAGMENT = 2;
export const RC_UDP_ENCAP = 4;
export const RC_ICMP_ERROR = 8;
export const RC_ICMP = 16;
export const RC_ADDRESSES_ONLY = 32;

/**
 * What `parse` learned of a packet. One object is used for all packets; every field is overwritten by the next parse.
 * After {@link UNUSABLE} only `rc` and `quotedFragment` mean something.
 */
export class Packet {
  /**
   * The 40 bytes that are hashed: source and destination address (16 bytes each in wire order, IPv4 as ::ffff:a.b.c.d),
   * then two bytes that are zero or an echo request's identifier, the protocol as u16 in host order, source and
   * destination port in wire order. In a later fragment bytes 32…35 hold its identification.
   */
  readonly key = new Uint8Array(40);
  /** The same 40 bytes; words are written whole, so that reading them whole needs not wait for four stores. */
  readonly keyWords = new DataView(this.key.buffer);
  /** {@link UNUSABLE} or a sum of RC_ bits. */
  rc = UNUSABLE;
  /** Whether the addresses are IPv4. */
  isV4 = false;
  /** Protocol in the key; 0 in a later fragment. */
  protocol = 0;
  /** Ports in the key, 0 where there are none. */
  sourcePort = 0;
  destinationPort = 0;
  /** ICMP type 8 or ICMPv6 type 128 as the packet's own type. */
  isEchoRequest = false;
  /** Identification of a fragment, also of one that an ICMP error quotes: 16 bits in IPv4, 32 in IPv6; else 0. */
  fragmentId = 0;
  /**
   * RC_FIRST_FRAGMENT or RC_LATER_FRAGMENT when the packet is an ICMP error that quotes such a one, else 0. A quoted
   * later fragment of TCP, UDP, SCTP or an unknown protocol makes its error UNUSABLE; the key's addresses, `fragmentId` and `l3Protocol` are
   * valid all the same, for who knows more of the quoted packet.
   */
  quotedFragment = 0;
  /** What a fragment's (or quoted packet's) identity has beside addresses and identification: IPv4 the protocol, IPv6 0. */
  l3Protocol = 0;
  /** Index of the packet's own (outer) L4 header in the bytes parsed, and its protocol; -1 in a later fragment. */
  l4Offset = -1;
  l4Protocol = -1;

  /** Which of the two forms bytes 0…11 and 16…27 of the key have; -1 = neither yet. */
  #form = -1;

  /** Copies two 4-byte addresses into the key. */
  setAddresses4(bytes: Uint8Array, source: number, destination: number): void {
    const key = this.key;
    if (this.#form !== 4) {
      key.fill(0, 0, 32);
      key[10] = 0xff;
      key[11] = 0xff;
      key[26] = 0xff;
      key[27] = 0xff;
      this.#form = 4;
    }
    this.keyWords.setInt32(12, be32(bytes, source));
    this.keyWords.setInt32(28, be32(bytes, destination));
    this.isV4 = true;
  }

  /** Copies two 16-byte addresses into the key. */
  setAddresses6(bytes: Uint8Array, source: number, destination: number): void {
    const { keyWords } = this;
    for (let i = 0; i < 16; i += 4) {
      keyWords.setInt32(i, be32(bytes, source + i));
      keyWords.setInt32(16 + i, be32(bytes, destination + i));
    }
    this.#form = 6;
    this.isV4 = false;
  }

  /** Writes the last 8 bytes of the key and the numbers that mirror them. `identifier` is an echo request's, else 0. */
  setTransport(protocol: number, sourcePort: number, destinationPort: number, identifier: number): void {
    this.keyWords.setInt32(32, (identifier << 16) | (protocol << 8));
    this.keyWords.setInt32(36, (sourcePort << 16) | destinationPort);
    this.protocol = protocol;
    this.sourcePort = sourcePort;
    this.destinationPort = destinationPort;
  }
}

function be32(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!;
}
