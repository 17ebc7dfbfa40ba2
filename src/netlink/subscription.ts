import { DecodeError } from "#bytes";
import { type DatagramSocket, SysError } from "#sys";
import { type Message, splitMessages } from "./message.js";

const RECEIVE_BYTES = 64 * 1024;
/** Datagrams taken in one go, so that a storm of changes leaves room for the rest of the program. */
const MOST_PER_DRAIN = 10_000;

const NOTHING = -1;
const LOST = -2;

/** See {@link Subscription}. */
export type DatagramTaker = (buffer: Uint8Array) => (length: number) => boolean;

/**
 * What comes from multicast groups, and the news that something was lost.
 *
 * A full receive buffer makes the kernel drop messages, tell ENOBUFS once, and go on dropping, silently, until the
 * socket has been read empty (netlink_overrun, netlink_rcv_wake; net/netlink/af_netlink.c, v6.18). So the loss is told
 * only then: whoever reads everything anew at that moment misses nothing. What stood in the buffer behind the loss is
 * older than that reading and is thrown away.
 */
export class Subscription {
  readonly #socket: DatagramSocket;
  readonly #onMessages: (messages: readonly Message[]) => void;
  readonly #onOverrun: () => void;
  readonly #take: (length: number) => boolean;
  readonly #buffer = new Uint8Array(RECEIVE_BYTES);
  #isLost = false;

  /**
   * @param socket does not block
   * @param onMessages messages of one datagram; valid during the call only
   * @param onOverrun messages were lost, and nothing is waiting any more
   * @param taker given the receive buffer; makes what is told first of a datagram in it, by its length in bytes: true if it has
   * taken it, and nothing is made of it then
   */
  constructor(
    socket: DatagramSocket,
    onMessages: (messages: readonly Message[]) => void,
    onOverrun: () => void,
    taker: DatagramTaker = () => () => false,
  ) {
    this.#socket = socket;
    this.#onMessages = onMessages;
    this.#onOverrun = onOverrun;
    this.#take = taker(this.#buffer);
  }

  /** Takes what is waiting; to be called again as long as the socket is readable. @throws {SysError} other than ENOBUFS */
  drain(): void {
    for (let count = 0; count < MOST_PER_DRAIN; count++) {
      const length = this.#receive();
      if (length === NOTHING) {
        const isLost = this.#isLost;
        this.#isLost = false;
        if (isLost) this.#onOverrun();
        return;
      }
      if (length < 0 || length > this.#buffer.length) this.#isLost = true;
      else if (!this.#isLost && !this.#take(length)) this.#tell(length);
    }
  }

  /** @returns the length of a datagram in bytes, NOTHING or LOST */
  #receive(): number {
    try {
      const length = this.#socket.receive(this.#buffer);
      return length < 0 ? NOTHING : length;
    } catch (error) {
      if (error instanceof SysError && error.errno === "ENOBUFS") return LOST;
      throw error;
    }
  }

  /** A datagram that is too long or not understood is as good as lost. */
  #tell(length: number): void {
    const messages = split(this.#buffer.subarray(0, length));
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
