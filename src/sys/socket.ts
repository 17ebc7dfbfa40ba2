import { constants } from "node:os";
import { addressOf, check, lastErrno, libc, SysError } from "./libc.js";

export const AF_UNIX = 1;
export const AF_INET = 2;
export const AF_INET6 = 10;
export const AF_NETLINK = 16;
export const AF_PACKET = 17;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
export const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
export const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
export const SO_RCVBUF = 8;
const SO_RCVTIMEO = 20;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
export const SOL_NETLINK = 270;
const NETLINK_ADD_MEMBERSHIP = 1;
export const NETLINK_NO_ENOBUFS = 5;
export const NETLINK_EXT_ACK = 11;
export const NETLINK_GET_STRICT_CHK = 12;
export const MSG_TRUNC = 0x20;
export const MSG_DONTWAIT = 0x40;
export const MSG_WAITFORONE = 0x10000;

/**
 * A socket that carries whole messages as bytes: the seam on which `netlink` stands and that the fakes implement.
 * Neither side keeps the other's buffer.
 */
export interface DatagramSocket extends Disposable {
  /** Sends one message. @throws {SysError} */
  send(bytes: Uint8Array): void;
  /**
   * Receives one message into `into` and returns its full length in bytes, which is larger than `into.length` when it
   * did not fit (the rest is lost), or -1 when nothing came within the socket's receive time-out.
   * @throws {SysError} among them ENOBUFS: messages were lost before this one.
   */
  receive(into: Uint8Array): number;
}

/** Opens a socket (close-on-exec); the result is a file descriptor that the caller closes. @throws {SysError} */
export function openSocket(family: number, type: number, protocol: number): number {
  return check("socket", libc.socket(family, type | SOCK_CLOEXEC, protocol), `family ${family}`);
}

/** Closes a descriptor; close(2). @throws {SysError} EBADF: it was closed before, a bug of the caller. */
export function closeDescriptor(fd: number): void {
  check("close", libc.close(fd), `fd ${fd}`);
}

/** Sets an integer socket option. @throws {SysError}; {RangeError} the value is no int, which would become another one */
export function setSocketOption(fd: number, level: number, option: number, value: number): void {
  const bytes = intBytes(value);
  check("setsockopt", libc.setsockopt(fd, level, option, bytes, 4), `level ${level} option ${option}`);
}

/** Reads an integer socket option. @throws {SysError} */
export function getSocketOption(fd: number, level: number, option: number): number {
  const bytes = new Int32Array(1);
  check(
    "getsockopt",
    libc.getsockopt(fd, level, option, bytes, new Uint32Array([4])),
    `level ${level} option ${option}`,
  );
  return bytes[0]!;
}

/** Limits blocking receives to `ms` milliseconds, 0 = for ever; `struct timeval` of two i64. @throws {SysError} */
export function setReceiveTimeout(fd: number, ms: number): void {
  const timeval = new BigInt64Array([BigInt(Math.floor(ms / 1000)), BigInt((ms % 1000) * 1000)]);
  check("setsockopt", libc.setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, timeval, 16), "SO_RCVTIMEO");
}

/**
 * Raises a socket's receive buffer to `bytes`, beyond net.core.rmem_max where CAP_NET_ADMIN permits it, and returns
 * the size in force as the kernel tells it (twice the usable size). Never lowers it below what it was.
 * @throws {SysError}; {RangeError} `bytes` is no int
 */
export function raiseReceiveBuffer(fd: number, bytes: number): number {
  return raiseBuffer(fd, bytes, SO_RCVBUF, SO_RCVBUFFORCE);
}

/** The same for the send buffer, which bounds the size of one netlink message. */
export function raiseSendBuffer(fd: number, bytes: number): number {
  return raiseBuffer(fd, bytes, SO_SNDBUF, SO_SNDBUFFORCE);
}

function raiseBuffer(fd: number, bytes: number, option: number, force: number): number {
  const before = getSocketOption(fd, SOL_SOCKET, option);
  if (before >= bytes) return before;
  if (libc.setsockopt(fd, SOL_SOCKET, force, intBytes(bytes), 4) < 0) setSocketOption(fd, SOL_SOCKET, option, bytes);
  return getSocketOption(fd, SOL_SOCKET, option);
}

/** A C int as setsockopt(2) takes it. @throws {RangeError} */
function intBytes(value: number): Int32Array {
  if (value !== (value | 0)) throw new RangeError(`socket option: ${value} is no int`);
  return new Int32Array([value]);
}

/** `struct sockaddr_nl`, 12 bytes: family u16 @0, pid u32 @4, groups u32 @8. */
function netlinkAddress(portId: number): Uint32Array {
  return new Uint32Array([AF_NETLINK, portId, 0]);
}

/** A netlink socket with a port id chosen by the kernel. It lives in the network namespace it was opened in. */
export class NetlinkSocket implements DatagramSocket {
  readonly fd: number;
  /** Our address on netlink; replies carry it as nlmsg_pid. */
  readonly portId: number;
  /** What was received into last, and where it begins: asking for that takes as long as the rest of the call. */
  #into: Uint8Array | null = null;
  #intoAddress = 0;
  #isOpen = true;

  /**
   * @param protocol NETLINK_ROUTE = 0, NETLINK_NETFILTER = 12
   * @param receiveTimeoutMs how long `receive` waits; 0 = for ever
   * @throws {SysError}
   */
  constructor(protocol: number, { receiveTimeoutMs = 0, isNonBlocking = false } = {}) {
    this.fd = openSocket(AF_NETLINK, SOCK_RAW | (isNonBlocking ? SOCK_NONBLOCK : 0), protocol);
    try {
      check("bind", libc.bind(this.fd, netlinkAddress(0), 12), "AF_NETLINK");
      const own = netlinkAddress(0);
      check("getsockname", libc.getsockname(this.fd, own, new Uint32Array([12])));
      this.portId = own[1]!;
      if (receiveTimeoutMs > 0) setReceiveTimeout(this.fd, receiveTimeoutMs);
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  send(bytes: Uint8Array): void {
    for (;;) {
      if (libc.sendto(this.fd, bytes, bytes.length, 0, null, 0) >= 0) return;
      const errno = lastErrno();
      if (errno !== constants.errno.EINTR) throw new SysError("sendto", errno, "AF_NETLINK");
    }
  }

  /** Sends to another netlink socket (needs CAP_NET_ADMIN); wakes a thread that blocks in a receive on it. */
  sendTo(portId: number, bytes: Uint8Array): void {
    check("sendto", Number(libc.sendto(this.fd, bytes, bytes.length, 0, netlinkAddress(portId), 12)), "AF_NETLINK");
  }

  receive(into: Uint8Array): number {
    if (into !== this.#into) {
      this.#into = into;
      this.#intoAddress = addressOf(into);
    }
    for (;;) {
      const length = Number(libc.recv(this.fd, this.#intoAddress, into.length, MSG_TRUNC));
      if (length >= 0) return length;
      const errno = lastErrno();
      if (errno === constants.errno.EAGAIN) return -1;
      if (errno !== constants.errno.EINTR) throw new SysError("recv", errno, "AF_NETLINK");
    }
  }

  /** Joins a multicast group by number (RTNLGRP_…). @throws {SysError} */
  joinGroup(group: number): void {
    setSocketOption(this.fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group);
  }

  [Symbol.dispose](): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    closeDescriptor(this.fd);
  }
}
