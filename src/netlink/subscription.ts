import { DecodeError } from "#bytes";
import { type DatagramSocket, SysError } from "#sys";
import { type Message, splitMessages } from "./message.js";

const RECEIVE_BYTES = 64 * 1024;
/** Datagrams taken in one go, so that a storm of changes leaves room for the rest of the program. */
const MOST_PER_DRAIN = 10_000;

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
  readonly #buffer = new Uint8Array(RECEIVE_BYTES);
  #isLost = false;

  /**
   * @param socket does not block
   * @param onMessages messages of one datagram; valid during the call only
   * @param onOverrun messages were lost, and nothing is waiting any more
   */
  constructor(socket: DatagramSocket, onMessages: (messages: readonly Message[]) => void, onOverrun: () => void) {
    this.#socket = socket;
    this.#onMessages = onMessages;
    this.#onOverrun = onOverrun;
  }

  /** Takes what is waiting; to be called again as long as the socket is readable. @throws {SysError} other than ENOBUFS */
  drain(): void {
    for (let count = 0; count < MOST_PER_DRAIN; count++) {
      const messages = this.#receive();
      if (messages === "nothing") {
        const isLost = this.#isLost;
        this.#isLost = false;
        if (isLost) this.#onOverrun();
        return;
      }
      if (messages === "lost") this.#isLost = true;
      else if (!this.#isLost) this.#onMessages(messages);
    }
  }

  /** A datagram that is too long or not understood is as good as lost. */
  #receive(): readonly Message[] | "nothing" | "lost" {
    try {
      const length = this.#socket.receive(this.#buffer);
      if (length < 0) return "nothing";
      return length > this.#buffer.length ? "lost" : splitMessages(this.#buffer.subarray(0, length));
    } catch (error) {
      if (error instanceof DecodeError || (error instanceof SysError && error.errno === "ENOBUFS")) return "lost";
      throw error;
    }
  }
}
