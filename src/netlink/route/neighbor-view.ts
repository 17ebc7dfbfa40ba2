// Questions to neighbors and what becomes of them, by hand: with 1,000 targets 200 questions and 400 changes a second are
// what the program does while nothing happens. The declared codecs (neighbor.ts) are the oracle. Offsets: struct ndmsg and NDA_DST,
// include/uapi/linux/neighbour.h (v6.18).
import type { Room } from "../connection.js";
import { addressBytes, afOf, type Family, familyOf } from "./family.js";
import { decodeNeighbor, type Neighbor, type NeighborKey, RTM_DELNEIGH, RTM_NEWNEIGH } from "./neighbor.js";

const MESSAGE_HEADER_BYTES = 16;
/** nlmsghdr, ndmsg, and the header of the first attribute. */
const ADDRESS_AT = MESSAGE_HEADER_BYTES + 12 + 4;
const NDA_DST = 1;
const NDA_LLADDR = 2;

/** What decides about an entry. `key`: see {@link addressKey}. */
export type NeighborEntry = { readonly linkIndex: number; readonly key: string; readonly state: number };

/** Bytes of an address as a key of maps; no text for people. */
export function addressKey(address: Uint8Array): string {
  return Buffer.from(address.buffer, address.byteOffset, address.length).toString("latin1");
}

/**
 * One neighbor entry, or a change of one, in the buffer that it was received into. It says nothing any more once something
 * else is received.
 */
export class NeighborView {
  readonly #bytes: Uint8Array;
  readonly #texts: Buffer;
  readonly #words: DataView;
  #at = 0;
  #length = 0;
  family: Family = 4;
  change: "new" | "deleted" = "new";
  linkIndex = 0;
  /** One of NeighborState; a number, since a later kernel may know more. */
  state = 0;

  /** @param buffer into which datagrams are received */
  constructor(buffer: Uint8Array) {
    this.#bytes = buffer;
    this.#texts = Buffer.from(buffer.buffer, buffer.byteOffset, buffer.length);
    this.#words = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
  }

  /**
   * Looks at a message as the kernel writes them: its first attribute is the address. Allocates nothing.
   * @param at where it begins
   * @param length in bytes, its header included
   * @returns false: it is something else, or of another form, and is to be decoded
   */
  read(at: number, length: number): boolean {
    const words = this.#words;
    if (length < ADDRESS_AT || words.getUint32(at, true) !== length) return false;
    const type = words.getUint16(at + 4, true);
    if (type !== RTM_NEWNEIGH && type !== RTM_DELNEIGH) return false;
    const family = familyOf(words.getUint8(at + MESSAGE_HEADER_BYTES));
    if (family === null || words.getUint16(at + ADDRESS_AT - 2, true) !== NDA_DST) return false;
    const end = ADDRESS_AT + addressBytes(family);
    if (words.getUint16(at + ADDRESS_AT - 4, true) !== end - ADDRESS_AT + 4 || end > length) return false;
    this.#at = at;
    this.#length = length;
    this.family = family;
    this.change = type === RTM_NEWNEIGH ? "new" : "deleted";
    this.linkIndex = words.getInt32(at + MESSAGE_HEADER_BYTES + 4, true);
    this.state = words.getUint16(at + MESSAGE_HEADER_BYTES + 8, true);
    return true;
  }

  /** As {@link addressKey}. */
  get key(): string {
    const from = this.#at + ADDRESS_AT;
    return this.#texts.toString("latin1", from, from + addressBytes(this.family));
  }

  /** Its MAC address as a number of 48 bits, or 0: it has none, or one of another kind. */
  get mac(): number {
    const from = this.#at + ADDRESS_AT + addressBytes(this.family);
    if (from + 10 > this.#at + this.#length || this.#words.getUint32(from, true) !== ((NDA_LLADDR << 16) | 10))
      return 0;
    return this.#words.getUint16(from + 4, false) * 2 ** 32 + this.#words.getUint32(from + 6, false);
  }

  /** All of it; copies. @throws {DecodeError} */
  decode(): Neighbor {
    return decodeNeighbor(this.#bytes.subarray(this.#at + MESSAGE_HEADER_BYTES, this.#at + this.#length))!;
  }
}

/** Bytes of {@link writeNeighborRequest} at most. */
export const MOST_REQUEST_BYTES = ADDRESS_AT + 16;

/** What is asked of a neighbor's entry: its state or flags become these. */
export type NeighborRequest = { readonly netlinkFlags: number; readonly state: number; readonly entryFlags: number };

/**
 * Writes a whole RTM_NEWNEIGH that names an entry by its address and nothing else of it, as `encodeNeighbor` does.
 * @param at where it begins
 * @returns where the next message begins
 */
export function writeNeighborRequest(
  { bytes, words }: Room,
  at: number,
  { address, linkIndex, family }: NeighborKey,
  { netlinkFlags, state, entryFlags }: NeighborRequest,
  sequence: number,
  flags: number,
): number {
  const end = at + ADDRESS_AT + address.length; // 4 and 16 bytes need no padding
  bytes.fill(0, at, end);
  words.setUint32(at, end - at, true);
  words.setUint16(at + 4, RTM_NEWNEIGH, true);
  words.setUint16(at + 6, netlinkFlags | flags, true);
  words.setUint32(at + 8, sequence, true);
  words.setUint8(at + MESSAGE_HEADER_BYTES, afOf(family));
  words.setInt32(at + MESSAGE_HEADER_BYTES + 4, linkIndex, true);
  words.setUint16(at + MESSAGE_HEADER_BYTES + 8, state, true);
  words.setUint8(at + MESSAGE_HEADER_BYTES + 10, entryFlags);
  words.setUint16(at + ADDRESS_AT - 4, 4 + address.length, true);
  words.setUint16(at + ADDRESS_AT - 2, NDA_DST, true);
  bytes.set(address, at + ADDRESS_AT);
  return end;
}
