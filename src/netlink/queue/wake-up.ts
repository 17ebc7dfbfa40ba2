import { SendBlock } from "#sys";

const NLMSG_NOOP = 1;
const MESSAGE_BYTES = 16;

/**
 * Ends the blocking receive of another queue's thread: an empty message (nlmsghdr alone, NLMSG_NOOP) to its netlink
 * port, which needs CAP_NET_ADMIN. Allocates nothing after construction.
 */
export class WakeUp {
  readonly #block = new SendBlock(MESSAGE_BYTES);

  constructor() {
    this.#block.view.setUint32(0, MESSAGE_BYTES, true);
    this.#block.view.setUint16(4, NLMSG_NOOP, true);
  }

  /**
   * @param fd a netlink socket of the caller
   * @returns 0 or the errno: ECONNREFUSED there is no such port, EAGAIN or ENOBUFS its owner has a full buffer to read
   */
  send(fd: number, portId: number): number {
    return this.#block.sendToPort(fd, MESSAGE_BYTES, portId);
  }
}
