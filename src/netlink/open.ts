import {
  NETLINK_EXT_ACK,
  NETLINK_GET_STRICT_CHK,
  NetlinkSocket,
  raiseReceiveBuffer,
  raiseSendBuffer,
  SOL_NETLINK,
  setSocketOption,
  watchReadable,
} from "#sys";
import { NetlinkConnection } from "./connection.js";
import { type Message, splitMessages } from "./message.js";

export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;
const ANSWER_TIMEOUT_MS = 5_000;
const SUBSCRIPTION_BYTES = 4 << 20;
/** A transaction is one message: 10,000 targets with their counters take some 5 MB. */
const BATCH_BYTES = 16 << 20;

/** A connection with a socket of its own in the calling thread's network namespace; the caller closes the socket. */
export function openConnection(protocol: number): {
  readonly connection: NetlinkConnection;
  readonly socket: NetlinkSocket;
} {
  const socket = new NetlinkSocket(protocol, { receiveTimeoutMs: ANSWER_TIMEOUT_MS });
  setSocketOption(socket.fd, SOL_NETLINK, NETLINK_EXT_ACK, 1);
  if (protocol === NETLINK_ROUTE) setSocketOption(socket.fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1);
  raiseSendBuffer(socket.fd, BATCH_BYTES);
  raiseReceiveBuffer(socket.fd, BATCH_BYTES); // a batch's acknowledgements come all at once
  return { connection: new NetlinkConnection(socket), socket };
}

/**
 * Listens to multicast groups on the main thread's event loop.
 * @param onMessages messages of one datagram; valid during the call only
 * @param onOverrun messages were lost: everything has to be read again
 * @returns a function that ends the subscription
 */
export function subscribe(
  protocol: number,
  groups: readonly number[],
  onMessages: (messages: readonly Message[]) => void,
  onOverrun: () => void,
): () => void {
  const socket = new NetlinkSocket(protocol, { isNonBlocking: true });
  raiseReceiveBuffer(socket.fd, SUBSCRIPTION_BYTES);
  for (const group of groups) socket.joinGroup(group);
  const buffer = new Uint8Array(64 * 1024);
  const drain = () => {
    for (;;) {
      const length = socket.receive(buffer);
      if (length < 0) return;
      if (length > buffer.length) onOverrun();
      else onMessages(splitMessages(buffer.subarray(0, length)));
    }
  };
  const unwatch = watchReadable(socket.fd, drain, onOverrun, { isBackground: true });
  return () => {
    unwatch();
    socket[Symbol.dispose]();
  };
}
