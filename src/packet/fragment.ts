import { fragmentOffset, Walk, walkIpv6 } from "./walk.js";

const ETHERTYPE_IPV4 = 0x0800;
const IPV4_MORE_FRAGMENTS = 0x20;
const FRAGMENT_HEADER_BYTES = 8;
/** Scratch of the one thread that this module is loaded in. */
const walk = new Walk();

/**
 * Which part of its packet a fragment carries, in units of 8 bytes. One object is used for all fragments; `read`
 * overwrites every field.
 */
export class FragmentSpan {
  /**
   * Bytes of the IP packet by its own header, without padding behind it; may be more than was captured. 0 when the header
   * claims less than the headers' own length.
   */
  packetBytes = 0;
  /** First unit that the fragment carries, 0…8191. */
  from = 0;
  /** The unit behind its last. A part of a unit counts in a last fragment alone; receivers cut it off any other. */
  to = 0;
  /** No fragment comes behind this one: `to` is the packet's length. */
  isLast = false;

  /**
   * Reads the span from the headers of a fragment that {@link parse} took for one. The header's length decides, not the
   * bytes captured. Reads nothing outside [start, end), allocates nothing.
   */
  read(bytes: Uint8Array, start: number, end: number, etherType: number): void {
    if (etherType === ETHERTYPE_IPV4) {
      this.packetBytes = be16(bytes, start + 2);
      const offset = (be16(bytes, start + 6) & 0x1fff) * 8;
      this.#set(offset, this.packetBytes - (bytes[start]! & 0x0f) * 4, (bytes[start + 6]! & IPV4_MORE_FRAGMENTS) === 0);
      return;
    }
    this.packetBytes = 40 + be16(bytes, start + 4);
    walkIpv6(bytes, start, end, walk);
    const header = walk.fragmentHeader;
    const payload = this.packetBytes - (header + FRAGMENT_HEADER_BYTES - start);
    this.#set(fragmentOffset(bytes, header), payload, (bytes[header + 3]! & 1) === 0);
  }

  #set(offset: number, payload: number, isLast: boolean): void {
    if (payload < 0) this.packetBytes = 0;
    const bytes = Math.max(0, payload) + (isLast ? 7 : 0);
    this.isLast = isLast;
    this.from = offset >> 3;
    this.to = this.from + (bytes >> 3);
  }
}

function be16(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!;
}
