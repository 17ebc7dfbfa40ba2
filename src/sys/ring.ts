import { constants } from "node:os";
import { addressOf, lastErrno, libc, SysError } from "./libc.js";
import type { Memory } from "./memory.js";
import { AF_NETLINK, MSG_DONTWAIT, MSG_TRUNC } from "./socket.js";

const MMSGHDR_BYTES = 64;
const IOVEC_BYTES = 16;
const MSG_LENGTH_WORD = 56 / 4; // mmsghdr.msg_len, in u32 words

/** Nothing came: the receive time-out ran out or the socket is non-blocking and empty. */
export const RING_EMPTY = 0;
/** A receive failed with ENOBUFS: the kernel dropped messages because the socket's buffer was full. */
export const RING_OVERRUN = -1;

/**
 * Memory for many messages in one system call (recvmmsg(2), sendmmsg(2)), laid out once: `slots` times
 * `struct mmsghdr` (64 bytes), `slots` times `struct iovec` (16 bytes), then `slots` slots of `slotBytes` for the data.
 * Slot i begins at byte `dataOffset + i * slotBytes` of `u8`. No name and no control buffers, so nothing has to be reset
 * between calls. The object owns the memory; keep it referenced while a call runs.
 */
class MessageRing implements Memory {
  readonly u8: Uint8Array;
  readonly view: DataView;
  readonly slots: number;
  readonly slotBytes: number;
  readonly dataOffset: number;
  protected readonly words: Uint32Array;
  protected readonly address: number;

  constructor(slots: number, slotBytes: number) {
    if (slotBytes % 8 !== 0) throw new RangeError(`slotBytes ${slotBytes}: must be a multiple of 8`);
    this.slots = slots;
    this.slotBytes = slotBytes;
    this.dataOffset = Math.ceil((slots * (MMSGHDR_BYTES + IOVEC_BYTES)) / 64) * 64;
    this.u8 = new Uint8Array(this.dataOffset + slots * slotBytes);
    this.view = new DataView(this.u8.buffer);
    this.words = new Uint32Array(this.u8.buffer);
    this.address = addressOf(this.u8);
    for (let slot = 0; slot < slots; slot++) {
      const iovec = slots * MMSGHDR_BYTES + slot * IOVEC_BYTES;
      this.view.setBigUint64(slot * MMSGHDR_BYTES + 16, BigInt(this.address + iovec), true); // msg_iov
      this.view.setBigUint64(slot * MMSGHDR_BYTES + 24, 1n, true); // msg_iovlen
      this.view.setBigUint64(iovec, BigInt(this.address + this.dataOffset + slot * slotBytes), true); // iov_base
      this.setSlotLength(slot, slotBytes);
    }
  }

  /** Sets how many bytes of a slot the next call uses (0…slotBytes); iovec.iov_len. */
  setSlotLength(slot: number, length: number): void {
    this.words[(this.slots * MMSGHDR_BYTES + slot * IOVEC_BYTES + 8) >> 2] = length;
  }
}

/** Receives up to `slots` messages with one recvmmsg(2). A message is valid until the next `receive`. */
export class ReceiveRing extends MessageRing {
  /** Length in bytes of the message in `slot` after the last receive (never more than `slotBytes`). */
  length(slot: number): number {
    return this.words[slot * (MMSGHDR_BYTES >> 2) + MSG_LENGTH_WORD]!;
  }

  /**
   * Blocks until at least one message is there (MSG_WAITFORONE) unless the socket says otherwise, and takes what is
   * there, up to `slots`. Allocates nothing unless it throws.
   * @returns the number of messages, {@link RING_EMPTY} or {@link RING_OVERRUN}
   * @throws {SysError} for anything else, for example EBADF
   */
  receive(fd: number, flags: number): number {
    const count = libc.recvmmsg(fd, this.address, this.slots, flags, null);
    if (count >= 0) return count;
    const errno = lastErrno();
    if (errno === constants.errno.EAGAIN || errno === constants.errno.EINTR) return RING_EMPTY;
    if (errno === constants.errno.ENOBUFS) return RING_OVERRUN;
    throw new SysError("recvmmsg", errno);
  }
}

/** Datagrams taken several at a time: the seam of those who follow what a socket tells. Slot i begins at `start(i)` of `u8`. */
export interface DatagramBatch {
  readonly u8: Uint8Array;
  readonly slotBytes: number;
  /**
   * Takes what is waiting, as far as there are slots; does not block. What was there before is overwritten.
   * @returns how many, {@link RING_EMPTY} or {@link RING_OVERRUN}. @throws {SysError} anything else
   */
  receive(): number;
  start(slot: number): number;
  /** Full length of a datagram in bytes: one that is longer than a slot was cut off. */
  length(slot: number): number;
}

/** The datagrams of a socket, which stays the caller's. */
export class DatagramRing implements DatagramBatch {
  readonly #fd: number;
  readonly #ring: ReceiveRing;

  /** Memory that no datagram has come to is not touched. */
  constructor(fd: number, slots: number, slotBytes: number) {
    this.#fd = fd;
    this.#ring = new ReceiveRing(slots, slotBytes);
  }

  get u8(): Uint8Array {
    return this.#ring.u8;
  }

  get slotBytes(): number {
    return this.#ring.slotBytes;
  }

  receive(): number {
    return this.#ring.receive(this.#fd, MSG_DONTWAIT | MSG_TRUNC);
  }

  start(slot: number): number {
    return this.#ring.dataOffset + slot * this.#ring.slotBytes;
  }

  length(slot: number): number {
    return this.#ring.length(slot);
  }
}

/** Sends up to `slots` messages with one sendmmsg(2) on a connected socket. */
export class SendRing extends MessageRing {
  /**
   * Sends the first `count` slots. @returns how many were taken, or minus the errno if none was
   * (for example -11 EAGAIN, -105 ENOBUFS). Allocates nothing.
   */
  send(fd: number, count: number, flags = 0): number {
    const sent = libc.sendmmsg(fd, this.address, count, flags);
    return sent >= 0 ? sent : -lastErrno();
  }
}

/**
 * One block of bytes that is filled and sent or written, again and again: to a netlink socket's kernel side, to another
 * netlink socket, to a device. Its address is taken once, so that a send allocates nothing.
 */
export class SendBlock implements Memory {
  readonly u8: Uint8Array;
  readonly view: DataView;
  readonly #address: number;
  /** `struct sockaddr_nl`, 12 bytes: family u16 @0, pid u32 @4, groups u32 @8. */
  readonly #port = new Uint32Array([AF_NETLINK, 0, 0]);
  readonly #portAddress = addressOf(this.#port);

  /** @param bytes its size, or memory of the caller's */
  constructor(bytes: number | Uint8Array) {
    this.u8 = typeof bytes === "number" ? new Uint8Array(bytes) : bytes;
    this.view = new DataView(this.u8.buffer);
    this.#address = addressOf(this.u8);
  }

  /** sendto(2) of the first `length` bytes. @returns the bytes taken, or minus the errno. Allocates nothing. */
  send(fd: number, length: number): number {
    const sent = libc.sendto(fd, this.#address, length, 0, null, 0) as number;
    return sent >= 0 ? sent : -lastErrno();
  }

  /** The same to another socket's netlink port, without waiting for room there. @returns 0 or the errno. Allocates nothing. */
  sendToPort(fd: number, length: number, portId: number): number {
    this.#port[1] = portId;
    return (libc.sendto(fd, this.#address, length, MSG_DONTWAIT, this.#portAddress, 12) as number) < 0
      ? lastErrno()
      : 0;
  }

  /** write(2) of the bytes [start, start + length). @returns 0 or the errno. Allocates nothing. */
  write(fd: number, start: number, length: number): number {
    return (libc.write(fd, this.#address + start, length) as number) < 0 ? lastErrno() : 0;
  }
}
