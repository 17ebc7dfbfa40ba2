import {
  DatagramRing,
  NETLINK_EXT_ACK,
  NETLINK_GET_STRICT_CHK,
  NetlinkSocket,
  raiseReceiveBuffer,
  raiseSendBuffer,
  SO_RCVBUF,
  SOL_NETLINK,
  SOL_SOCKET,
  setSocketOption,
  watchReadable,
} from "#sys";
import type { Message } from "./message.js";
import { type DatagramTaker, Subscription } from "./subscription.js";

export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;
const ANSWER_TIMEOUT_MS = 5_000;
const SUBSCRIPTION_BYTES = 4 << 20;
/** Datagrams received in one call, and the longest: an event of nftables may have many elements. */
const DATAGRAMS = 16;
const DATAGRAM_BYTES = 64 * 1024;
/** A transaction is one message: 10,000 targets with their counters take some 5 MB. */
const BATCH_BYTES = 16 << 20;

/** A socket for requests, in the calling thread's network namespace; the caller closes it. @throws {SysError} */
export function openNetlink(protocol: number): NetlinkSocket {
  const socket = new NetlinkSocket(protocol, { receiveTimeoutMs: ANSWER_TIMEOUT_MS });
  try {
    setSocketOption(socket.fd, SOL_NETLINK, NETLINK_EXT_ACK, 1);
    if (protocol === NETLINK_ROUTE) setSocketOption(socket.fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1);
    raiseSendBuffer(socket.fd, BATCH_BYTES);
    raiseReceiveBuffer(socket.fd, BATCH_BYTES); // a batch's acknowledgements come all at once
    return socket;
  } catch (error) {
    socket[Symbol.dispose]();
    throw error;
  }
}

/** Multicast groups that are being listened to. */
export type Listening = {
  /** Hands on at once what is waiting: whoever calls it knows everything that happened before. */
  readonly drain: () => void;
  readonly stop: () => void;
};

/**
 * Listens to multicast groups on the main thread's event loop, without keeping the process alive.
 * @param onMessages messages of one datagram; valid during the call only
 * @param onOverrun messages were lost and the socket is empty again: read everything anew now. What happens from here on
 * is told by `onMessages`, some of it perhaps already seen by that reading
 * @param receiveBufferBytes what may wait while the event loop is busy. Default 4 MiB, some 5,000 messages
 * @param taker as that of {@link Subscription}
 */
export function listen(
  protocol: number,
  groups: readonly number[],
  onMessages: (messages: readonly Message[]) => void,
  onOverrun: () => void,
  receiveBufferBytes = SUBSCRIPTION_BYTES,
  taker?: DatagramTaker,
): Listening {
  const socket = new NetlinkSocket(protocol, { isNonBlocking: true });
  const batch = new DatagramRing(socket.fd, DATAGRAMS, DATAGRAM_BYTES);
  const subscription = new Subscription(batch, onMessages, onOverrun, taker);
  try {
    if (receiveBufferBytes < SUBSCRIPTION_BYTES) {
      setSocketOption(socket.fd, SOL_SOCKET, SO_RCVBUF, receiveBufferBytes);
    } else raiseReceiveBuffer(socket.fd, receiveBufferBytes);
    for (const group of groups) socket.joinGroup(group);
    const unwatch = watchReadable(socket.fd, () => subscription.drain(), rethrow, { isBackground: true });
    const stop = () => {
      unwatch();
      socket[Symbol.dispose]();
    };
    return { drain: () => subscription.drain(), stop };
  } catch (error) {
    socket[Symbol.dispose]();
    throw error;
  }
}

/** As {@link listen}, for those who wait for news only. @returns a function that ends the subscription */
export function subscribe(...args: Parameters<typeof listen>): () => void {
  return listen(...args).stop;
}

/** A listener's own error is not the socket's: it surfaces as an uncaught one, outside the poll callback. */
function rethrow(error: unknown): void {
  setImmediate(() => {
    throw error;
  });
}
