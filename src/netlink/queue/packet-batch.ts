import { MSG_WAITFORONE, ReceiveRing } from "#sys";

const NFNL_SUBSYS_QUEUE = 3;
/** NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET. */
const PACKET_MESSAGE = (NFNL_SUBSYS_QUEUE << 8) | 0;
const NLMSG_NOOP = 1;
const NLMSG_ERROR = 2;

const NLMSGHDR_BYTES = 16;
/** nlmsghdr 16 + nfgenmsg 4: where the attributes begin. */
const ATTRIBUTES = 20;
/** nlmsghdr 16 + nfgenmsg 4 + nlattr 4: nfqnl_msg_packet_hdr { be32 packet_id, be16 hw_protocol, u8 hook }. */
const PACKET_ID = 24;
const HW_PROTOCOL = 28;
/** NFQA_PACKET_HDR is always the first attribute: nlattr 4 + 7, padded to 12. */
const AFTER_PACKET_HEADER = 32;
const NFQA_PACKET_HDR = 1;
const NFQA_IFINDEX_INDEV = 5;
const NFQA_PAYLOAD = 10;
/** be32: bytes of the packet, told when the copy range cut it. */
const NFQA_CAP_LEN = 13;
/** The upper bits of nla_type are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER). */
const TYPE_MASK = 0x3fff;

/** Bytes of a packet message besides the payload, rounded up: headers and all attributes that a kernel may add. */
const OVERHEAD_BYTES = 384;

/**
 * The packets of one receive from an NFQUEUE, as offsets into the memory they were received into. Everything is
 * allocated once; what a packet's offsets point at is valid until the next `receive`.
 *
 * The layout of a message is that of `nfqnl_build_packet_message`, net/netfilter/nfnetlink_queue.c (v6.18).
 */
export class PacketBatch {
  /** The memory that `start` and `end` index. */
  readonly bytes: Uint8Array;
  /** Packet ids as the 4 bytes stand in the message (network order, read as a host word): only good to be sent back. */
  readonly packetId: Uint32Array;
  /** L3 protocol as an EtherType: 0x0800 IPv4, 0x86dd IPv6, other values pass through. */
  readonly etherType: Uint16Array;
  /** First byte of the payload (the IP header) and the byte behind its last. Equal when there is no payload. */
  readonly start: Int32Array;
  readonly end: Int32Array;
  /** Error replies of the kernel seen so far, for example a verdict for an unknown packet. */
  errors = 0;
  /** Messages that were cut or not understood so far; never a packet without a verdict: those have their id. */
  malformed = 0;

  readonly #ring: ReceiveRing;
  readonly #halves: Uint16Array;
  readonly #words: Uint32Array;

  /**
   * @param slots most packets per receive
   * @param copyBytes copy range of the queue: most payload bytes per packet
   */
  constructor(slots: number, copyBytes: number) {
    this.#ring = new ReceiveRing(slots, Math.ceil((copyBytes + OVERHEAD_BYTES) / 64) * 64);
    this.bytes = this.#ring.u8;
    this.#halves = new Uint16Array(this.bytes.buffer);
    this.#words = new Uint32Array(this.bytes.buffer);
    this.packetId = new Uint32Array(slots);
    this.etherType = new Uint16Array(slots);
    this.start = new Int32Array(slots);
    this.end = new Int32Array(slots);
  }

  /**
   * Takes what is queued, up to `slots` packets, and blocks while there is nothing (unless `flags` says
   * MSG_DONTWAIT). Allocates nothing.
   * @returns the number of packets, 0 when the wait was interrupted, RING_OVERRUN (-1) after a loss in the socket
   * @throws {SysError} when the socket cannot be used at all
   */
  receive(fd: number, flags = MSG_WAITFORONE): number {
    const messages = this.#ring.receive(fd, flags);
    if (messages < 0) return messages;
    let packets = 0;
    for (let slot = 0; slot < messages; slot++) packets += this.#read(slot, packets);
    return packets;
  }

  /** Bytes of a packet as the kernel has it, also where the copy range cut it. For the few packets that somebody watches. */
  originalLength(packet: number): number {
    const start = this.start[packet]!;
    const ring = this.#ring;
    if (start <= ring.dataOffset) return 0; // no payload
    const base = ring.dataOffset + Math.floor((start - ring.dataOffset) / ring.slotBytes) * ring.slotBytes;
    let attribute = base + AFTER_PACKET_HEADER;
    while (attribute + 4 < start) {
      const attributeLength = this.#halves[attribute >> 1]!;
      if (attributeLength < 4) break;
      if ((this.#halves[(attribute + 2) >> 1]! & TYPE_MASK) === NFQA_CAP_LEN) return this.#be32(attribute + 4);
      attribute += (attributeLength + 3) & ~3;
    }
    return this.end[packet]! - start;
  }

  #be32(at: number): number {
    const { bytes } = this;
    return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
  }

  /**
   * Number of the interface that the packet whose payload begins at `start` came in through, 0 when it is not told
   * (a packet of this host). Looked for only when asked: few packets need it.
   */
  inputInterface(start: number): number {
    const ring = this.#ring;
    const slot = Math.floor((start - ring.dataOffset) / ring.slotBytes);
    let attribute = ring.dataOffset + slot * ring.slotBytes + AFTER_PACKET_HEADER;
    while (attribute + 8 <= start) {
      const attributeLength = this.#halves[attribute >> 1]!;
      if (attributeLength < 4) return 0;
      if ((this.#halves[(attribute + 2) >> 1]! & TYPE_MASK) === NFQA_IFINDEX_INDEV)
        return ring.view.getUint32(attribute + 4, false);
      attribute += (attributeLength + 3) & ~3;
    }
    return 0;
  }

  /** Notes the packet of a slot at index `packet`. @returns 1, or 0 if the message holds no packet. */
  #read(slot: number, packet: number): number {
    const ring = this.#ring;
    const base = ring.dataOffset + slot * ring.slotBytes;
    const length = ring.length(slot);
    const type = this.#halves[(base + 4) >> 1]!;
    if (type !== PACKET_MESSAGE || length < AFTER_PACKET_HEADER) {
      if (length < NLMSGHDR_BYTES)
        this.malformed++; // what stands there as its type is left from an earlier message
      else if (type === NLMSG_ERROR) this.errors++;
      else if (type !== NLMSG_NOOP) this.malformed++; // a NOOP is the wake-up call of our own program
      return 0;
    }
    if ((this.#halves[(base + ATTRIBUTES + 2) >> 1]! & TYPE_MASK) !== NFQA_PACKET_HDR) {
      this.malformed++;
      return 0;
    }
    this.packetId[packet] = this.#words[(base + PACKET_ID) >> 2]!;
    this.etherType[packet] = (this.bytes[base + HW_PROTOCOL]! << 8) | this.bytes[base + HW_PROTOCOL + 1]!;
    this.start[packet] = 0;
    this.end[packet] = 0;
    const end = base + length;
    let attribute = base + AFTER_PACKET_HEADER;
    while (attribute + 4 <= end) {
      const attributeLength = this.#halves[attribute >> 1]!;
      if (attributeLength < 4) break;
      if ((this.#halves[(attribute + 2) >> 1]! & TYPE_MASK) === NFQA_PAYLOAD) {
        this.start[packet] = attribute + 4;
        this.end[packet] = Math.min(attribute + attributeLength, end);
        break;
      }
      attribute += (attributeLength + 3) & ~3;
    }
    return 1;
  }
}
