import {
  NETLINK_NO_ENOBUFS,
  NetlinkSocket,
  raiseReceiveBuffer,
  SOL_NETLINK,
  setReceiveTimeout,
  setSocketOption,
} from "#sys";
import { NetlinkConnection } from "../connection.js";
import { NetlinkError } from "../error.js";
import { encodeMessage } from "../message.js";
import { type ConfigMessage, configMessage } from "./codecs.js";
import { readQueueStates } from "./state.js";

const NETLINK_NETFILTER = 12;
/** NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_CONFIG. */
const CONFIG_MESSAGE = (3 << 8) | 2;
const NFQNL_CFG_CMD_BIND = 1;
const NFQNL_COPY_NONE = 0;
const NFQNL_COPY_PACKET = 2;
/** GSO packets come whole, not cut into segments; one verdict holds for all of them. */
const NFQA_CFG_F_GSO = 4;
/** Packets that find the queue or the socket's buffer full pass without a verdict instead of being dropped. */
const NFQA_CFG_F_FAIL_OPEN = 1;
const NLM_F_REQUEST = 1;
const CONFIG_TIMEOUT_MS = 2_000;
/** How long a receive blocks at most: a lost wake-up costs a stop that much. */
const IDLE_TIMEOUT_MS = 500;
/** What one queued packet takes of the socket's buffer: two slabs for headers and up to 256 bytes of payload. */
const BUFFER_BYTES_PER_PACKET = 2_048;
/** The largest buffer that can be asked for: the kernel doubles it into an int (__sock_set_rcvbuf, net/core/sock.c, v6.18). */
const MAX_BUFFER_BYTES = 2 ** 30 - 1;
/** Packets that wait while nobody serves the queue yet, or for a moment: some 100 ms of 80,000 packets per second. */
const BACKLOG_PACKETS = 8_192;

/** How a queue is to be served. */
export type QueueOptions = {
  /** 0…65535. */
  readonly queueNumber: number;
  /** Packets the kernel holds before it drops, while somebody serves the queue. */
  readonly maxPackets: number;
  /** Bytes of each packet that are copied out. */
  readonly copyBytes: number;
  /** What finds no room passes without a mark instead of being dropped. */
  readonly isFailOpen: boolean;
};

/**
 * A bound NFQUEUE on a socket of its own, which takes its packets and verdicts. Packets gather from now on, before anybody
 * receives. Closing it drops what is queued.
 */
export class QueueSocket implements Disposable {
  readonly queueNumber: number;
  readonly maxPackets: number;
  readonly receiveBufferAsked: number;
  readonly receiveBufferBytes: number;
  readonly #socket: NetlinkSocket;

  /** @throws {NetlinkError} EPERM: another process serves the queue, or CAP_NET_ADMIN is missing; the text says which */
  constructor({ queueNumber, maxPackets, copyBytes, isFailOpen }: QueueOptions) {
    this.queueNumber = queueNumber;
    this.maxPackets = maxPackets;
    const backlog = Math.max(maxPackets, BACKLOG_PACKETS);
    this.#socket = new NetlinkSocket(NETLINK_NETFILTER, { receiveTimeoutMs: CONFIG_TIMEOUT_MS });
    try {
      const connection = new NetlinkConnection(this.#socket);
      const configure = (what: string, attributes: ConfigMessage["attributes"]) =>
        connection.request(`NFQUEUE ${queueNumber} ${what}`, CONFIG_MESSAGE, 0, configBody(queueNumber, attributes));
      bind(queueNumber, () =>
        configure("bind", { command: { command: NFQNL_CFG_CMD_BIND, pad: 0, protocolFamily: 0 } }),
      );
      configure("parameters", {
        parameters: { copyRange: copyBytes, copyMode: NFQNL_COPY_NONE },
        maxPackets: backlog,
        mask: NFQA_CFG_F_GSO | NFQA_CFG_F_FAIL_OPEN,
        flags: NFQA_CFG_F_GSO | (isFailOpen ? NFQA_CFG_F_FAIL_OPEN : 0),
      });
      // Without this one full buffer makes the kernel refuse everything until it has been emptied; losses are told by the
      // queue's own counters (/proc/net/netfilter/nfnetlink_queue).
      setSocketOption(this.#socket.fd, SOL_NETLINK, NETLINK_NO_ENOBUFS, 1);
      this.receiveBufferAsked = Math.min(backlog * BUFFER_BYTES_PER_PACKET, MAX_BUFFER_BYTES);
      this.receiveBufferBytes = raiseReceiveBuffer(this.#socket.fd, this.receiveBufferAsked);
      setReceiveTimeout(this.#socket.fd, IDLE_TIMEOUT_MS);
      // Last and without an answer to wait for: from here on what is received are packets.
      this.#configure({ parameters: { copyRange: copyBytes, copyMode: NFQNL_COPY_PACKET } });
    } catch (error) {
      this.#socket[Symbol.dispose]();
      throw error;
    }
  }

  get fd(): number {
    return this.#socket.fd;
  }

  get portId(): number {
    return this.#socket.portId;
  }

  /** Nobody serves the queue for a moment: more than usual may wait. So it begins. */
  allowBacklog(): void {
    this.#configure({ maxPackets: Math.max(this.maxPackets, BACKLOG_PACKETS) });
  }

  /** The queue holds what was asked for. */
  endBacklog(): void {
    this.#configure({ maxPackets: this.maxPackets });
  }

  /**
   * From now on nothing is queued: what comes counts as dropped by a full queue, or passes if the queue is fail-open. So
   * what is queued can be answered to the last packet. No answer is asked for: another thread may be receiving.
   */
  stopFilling(): void {
    this.#configure({ maxPackets: 0 });
  }

  #configure(attributes: ConfigMessage["attributes"]): void {
    this.#socket.send(encodeMessage(CONFIG_MESSAGE, NLM_F_REQUEST, 0, configBody(this.queueNumber, attributes)));
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }
}

function configBody(queueNumber: number, attributes: ConfigMessage["attributes"]): Uint8Array {
  return configMessage.encode({ header: { family: 0, version: 0, resourceId: queueNumber }, attributes }, "");
}

/** The kernel says EPERM both without CAP_NET_ADMIN and when another socket has the queue; its list of queues tells which. */
function bind(queueNumber: number, work: () => void): void {
  try {
    work();
  } catch (error) {
    if (!(error instanceof NetlinkError) || !["EBUSY", "EPERM"].includes(error.errno)) throw error;
    const states = readQueueStates();
    const reason =
      states === null
        ? "another process serves this queue, or CAP_NET_ADMIN is missing"
        : states.has(queueNumber)
          ? "another process serves this queue"
          : "CAP_NET_ADMIN is missing";
    throw new NetlinkError(`NFQUEUE ${queueNumber} bind`, error.errno, reason);
  }
}
