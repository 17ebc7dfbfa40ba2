import { SendBlock } from "#sys";

const NFNL_SUBSYS_QUEUE = 3;
const NFQNL_MSG_VERDICT = 1;
const NFQNL_MSG_VERDICT_BATCH = 3;
const NLM_F_REQUEST = 1;
const NFQA_VERDICT_HDR = 2;
const NFQA_MARK = 3;

/** nlmsghdr 16 + nfgenmsg 4 + NFQA_VERDICT_HDR (4 + 8) + NFQA_MARK (4 + 4). */
const VERDICT_BYTES = 40;
const BATCH_VERDICT_BYTES = 32;
const TYPE_AND_FLAGS = 4; // nlmsghdr.nlmsg_type and .nlmsg_flags
const VERDICT = 24; // nfqnl_msg_verdict_hdr.verdict
const PACKET_ID = 28; // nfqnl_msg_verdict_hdr.id
const MARK = 36; // payload of NFQA_MARK; be32 although uapi says __u32: nfnetlink_queue.c applies ntohl

const WORDS = VERDICT_BYTES / 4;
/** The word at TYPE_AND_FLAGS of a message that answers one packet, and of one that answers several. */
const ONE = (NLM_F_REQUEST << 16) | (NFNL_SUBSYS_QUEUE << 8) | NFQNL_MSG_VERDICT;
const UP_TO = (NLM_F_REQUEST << 16) | (NFNL_SUBSYS_QUEUE << 8) | NFQNL_MSG_VERDICT_BATCH;
/** NF_ACCEPT = 1 and NF_DROP = 0 in network order, as host words of a little-endian machine. */
const ACCEPT = 0x01000000;
const DROP = 0;

/**
 * Verdicts of one batch, sent to the kernel in a single call. A verdict is NF_ACCEPT with a fwmark, or NF_DROP. Packets in
 * a row that get the same are answered by one message: NFQNL_MSG_VERDICT_BATCH answers every packet up to an id that is
 * still without a verdict, and those before the row have theirs by then. Each message costs the kernel some 0.6 us, so that
 * is much where packets come in trains. The constant parts are written once; `put` writes four words, or two.
 *
 * `struct nfqnl_msg_verdict_hdr`, include/uapi/linux/netfilter/nfnetlink_queue.h; nfqnl_recv_verdict_batch,
 * net/netfilter/nfnetlink_queue.c (v6.18).
 */
export class VerdictBuffer {
  /** Messages waiting to be sent. */
  #count = 0;
  readonly #block: SendBlock;
  /** Signed, as the operators give them: a mark is compared with what stands there. */
  readonly #words: Int32Array;
  /** Drops what a send that failed left without a verdict; its id is that of the last such packet. */
  readonly #drop: SendBlock;
  #isLeft = false;

  constructor(queueNumber: number, slots: number) {
    this.#drop = dropBlock(queueNumber);
    this.#block = new SendBlock(slots * VERDICT_BYTES);
    this.#words = new Int32Array(this.#block.u8.buffer);
    const { view } = this.#block;
    for (let base = 0; base < slots * VERDICT_BYTES; base += VERDICT_BYTES) {
      view.setUint32(base, VERDICT_BYTES, true);
      view.setUint16(base + 18, queueNumber, false); // nfgenmsg.res_id
      view.setUint16(base + 20, 12, true);
      view.setUint16(base + 22, NFQA_VERDICT_HDR, true);
      view.setUint16(base + 32, 8, true);
      view.setUint16(base + 34, NFQA_MARK, true);
    }
  }

  /**
   * Adds a verdict. All packets of the queue have to be answered in the order of their ids.
   * @param packetId as PacketBatch gives it
   * @param fwmark 0…2³²−1 accepts with that mark, negative drops
   */
  put(packetId: number, fwmark: number): void {
    const words = this.#words;
    const verdict = fwmark < 0 ? DROP : ACCEPT;
    const number = fwmark < 0 ? 0 : fwmark;
    const mark = (number << 24) | ((number << 8) & 0x00ff0000) | ((number >>> 8) & 0x0000ff00) | (number >>> 24);
    const last = (this.#count - 1) * WORDS;
    if (last >= 0 && words[last + MARK / 4] === mark && words[last + VERDICT / 4] === verdict) {
      words[last + TYPE_AND_FLAGS / 4] = UP_TO;
      words[last + PACKET_ID / 4] = packetId;
      return;
    }
    const base = this.#count++ * WORDS;
    words[base + TYPE_AND_FLAGS / 4] = ONE;
    words[base + VERDICT / 4] = verdict;
    words[base + PACKET_ID / 4] = packetId;
    words[base + MARK / 4] = mark;
  }

  /**
   * Sends the verdicts put since the last call, in order, and forgets them. While the kernel works them off the
   * packets travel on: most of a packet's cost is spent inside this call. Allocates nothing.
   *
   * After a send that failed for good its packets are still queued, and a message that answers all up to an id would give
   * them another packet's mark: they are dropped before anything else is answered.
   * @returns 0, or the errno of a send that failed for good
   */
  send(fd: number): number {
    const length = this.#count * VERDICT_BYTES;
    this.#count = 0;
    if (length === 0) return 0;
    let errno = this.#isLeft ? sendAll(this.#drop, fd, BATCH_VERDICT_BYTES) : 0;
    if (errno === 0) errno = sendAll(this.#block, fd, length);
    this.#isLeft = errno !== 0;
    if (errno !== 0)
      this.#drop.view.setUint32(PACKET_ID, this.#block.view.getUint32(length - VERDICT_BYTES + PACKET_ID, true), true);
    return errno;
  }

  /** The messages put so far; copies. For tests, which compare them with the declared codec. */
  bytes(): Uint8Array {
    return this.#block.u8.slice(0, this.#count * VERDICT_BYTES);
  }
}

/**
 * Drops every packet of a queue up to and including `packetId` (as PacketBatch gives it) that has no verdict yet: what a
 * thread that ended had received and not answered. The kernel tells ENOENT on the socket when there was none.
 * @returns 0 or an errno
 * @see nfqnl_recv_verdict_batch, net/netfilter/nfnetlink_queue.c (v6.18)
 */
export function dropUpTo(fd: number, queueNumber: number, packetId: number): number {
  const block = dropBlock(queueNumber);
  block.view.setUint32(PACKET_ID, packetId, true);
  const sent = block.send(fd, BATCH_VERDICT_BYTES);
  return sent === BATCH_VERDICT_BYTES ? 0 : sent < 0 ? -sent : EIO;
}

/** The message that drops all packets up to one; its id is still missing. */
function dropBlock(queueNumber: number): SendBlock {
  const block = new SendBlock(BATCH_VERDICT_BYTES);
  block.view.setUint32(0, BATCH_VERDICT_BYTES, true);
  block.view.setUint16(4, (NFNL_SUBSYS_QUEUE << 8) | NFQNL_MSG_VERDICT_BATCH, true);
  block.view.setUint16(6, NLM_F_REQUEST, true);
  block.view.setUint16(18, queueNumber, false);
  block.view.setUint16(20, 12, true);
  block.view.setUint16(22, NFQA_VERDICT_HDR, true);
  block.view.setUint32(VERDICT, DROP, true);
  return block;
}

/** A send fails only for want of memory or by a signal; both pass. */
const MAX_ATTEMPTS = 100;
const EIO = 5;

/** Sends, again and again if need be; the kernel takes all of it or nothing. @returns 0 or the errno */
function sendAll(block: SendBlock, fd: number, length: number): number {
  for (let attempt = 0; ; attempt++) {
    const sent = block.send(fd, length);
    if (sent === length) return 0;
    if (attempt === MAX_ATTEMPTS) return sent < 0 ? -sent : EIO;
  }
}
