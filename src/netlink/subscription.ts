import { DecodeError } from "#bytes";
import { type DatagramBatch, RING_EMPTY, RING_OVERRUN } from "#sys";
import { type Message, splitMessages } from "./message.js";

/** Datagrams taken in one go, so that a storm of changes leaves room for the rest of the program. */
const MOST_PER_DRAIN = 10_000;

/** See {@link Subscription}. */
export type DatagramTaker = (buffer: Uint8Array) => (at: number, length: number) => boolean;

/**
 * What comes from multicast groups, and the news that something was lost.
 *
 * A full receive buffer makes the kernel drop messages, tell ENOBUFS once, and go on dropping, silently, until the
 * socket has been read empty (netlink_overrun, netlink_rcv_wake; net/netlink/af_netlink.c, v6.18). So the loss is told
 * only then: whoever reads everything anew at that moment misses nothing. What stood in the buffer behind the loss is
 * older than that reading and is thrown away.
 */
export class Subscription {
  readonly #batch: DatagramBatch;
  readonly #onMessages: (messages: readonly Message[]) => void;
  readonly #onOverrun: () => void;
  readonly #take: (at: number, length: number) => boolean;
  /** Datagrams that were received and are told from the next one on: a listener may drain, or throw. */
  #next = 0;
  #count = 0;
  #isLost = false;

  /**
   * @param batch of a socket
   * @param onMessages messages of one datagram; valid during the call only
   * @param onOverrun messages were lost, and nothing is waiting any more
   * @param taker given the memory that is received into; makes what is told first of a datagram in it, by its place and its length
   * in bytes: true if it has taken it, and nothing is made of it then
   */
  constructor(
    batch: DatagramBatch,
    onMessages: (messages: readonly Message[]) => void,
    onOverrun: () => void,
    taker: DatagramTaker = () => () => false,
  ) {
    this.#batch = batch;
    this.#onMessages = onMessages;
    this.#onOverrun = onOverrun;
    this.#take = taker(batch.u8);
  }

  /** Takes what is waiting; to be called again as long as the socket is readable. @throws {SysError} other than ENOBUFS */
  drain(): void {
    for (let taken = 0; ; ) {
      while (this.#next < this.#count) this.#tell(this.#next++);
      if (taken >= MOST_PER_DRAIN) return;
      const count = this.#batch.receive();
      if (count === RING_EMPTY) {
        this.#emptied();
        return;
      }
      if (count === RING_OVERRUN) {
        this.#isLost = true;
        continue;
      }
      this.#next = 0;
      this.#count = count;
      taken += count;
    }
  }

  #emptied(): void {
    const isLost = this.#isLost;
    this.#isLost = false;
    if (isLost) this.#onOverrun();
  }

  /** A datagram that is too long or not understood is as good as lost. */
  #tell(slot: number): void {
    const length = this.#batch.length(slot);
    if (length > this.#batch.slotBytes) this.#isLost = true;
    if (this.#isLost) return;
    const at = this.#batch.start(slot);
    if (this.#take(at, length)) return;
    const messages = split(this.#batch.u8.subarray(at, at + length));
    if (messages === null) this.#isLost = true;
    else this.#onMessages(messages);
  }
}

function split(datagram: Uint8Array): readonly Message[] | null {
  try {
    return splitMessages(datagram);
  } catch (error) {
    if (error instanceof DecodeError) return null;
    throw error;
  }
}
