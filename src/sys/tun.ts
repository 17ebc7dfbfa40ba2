import { closeSync, constants, openSync } from "node:fs";
import { constants as osConstants } from "node:os";
import { check, lastErrno, libc, SysError } from "./libc.js";
import { AF_INET, closeDescriptor, openSocket, SOCK_DGRAM } from "./socket.js";

const SIOCGIFMTU = 0x8921;
const SIOCGIFINDEX = 0x8933;
const TUNSETIFF = 0x400454ca;
const IFF_TUN = 0x0001;
const IFF_MULTI_QUEUE = 0x0100;
const IFF_NO_PI = 0x1000;
const IFNAMSIZ = 16;
/** `struct ifreq` (LP64): name char[16] @0, then a union of 24 bytes: ifr_flags i16, ifr_mtu and ifr_ifindex i32. */
const IFREQ_BYTES = 40;

function interfaceRequest(name: string): DataView {
  const bytes = new Uint8Array(IFREQ_BYTES);
  const text = new TextEncoder().encode(name);
  if (text.length === 0 || text.length >= IFNAMSIZ) throw new SysError("ioctl", osConstants.errno.ENODEV, name);
  bytes.set(text);
  return new DataView(bytes.buffer);
}

function askInterface(name: string, request: number): number {
  const fd = openSocket(AF_INET, SOCK_DGRAM, 0);
  try {
    const view = interfaceRequest(name);
    check("ioctl", libc.ioctl(fd, request, view), name);
    return view.getInt32(IFNAMSIZ, true);
  } finally {
    closeDescriptor(fd);
  }
}

/** Number of a network interface of the calling thread's namespace. @throws {SysError} ENODEV */
export function interfaceIndex(name: string): number {
  return askInterface(name, SIOCGIFINDEX);
}

/** MTU of a network interface in bytes. @throws {SysError} ENODEV */
export function interfaceMtu(name: string): number {
  return askInterface(name, SIOCGIFMTU);
}

/**
 * Attaches to the tun device `name` that is there already: what is written to the descriptor, one IP packet per write
 * without any header before it, arrives in the kernel as if the device had received it. Writes don't block.
 * drivers/net/tun.c (v6.18).
 * @returns the descriptor, which the caller closes
 * @throws {SysError} ENODEV no such device; EBUSY another program is attached; EINVAL it is no tun device; EPERM
 */
export function openTun(name: string): number {
  interfaceIndex(name); // TUNSETIFF would make a device that is not there
  const fd = openSync("/dev/net/tun", constants.O_RDWR | constants.O_NONBLOCK);
  let errno = attach(fd, name, IFF_TUN | IFF_NO_PI);
  if (errno === osConstants.errno.EINVAL) errno = attach(fd, name, IFF_TUN | IFF_NO_PI | IFF_MULTI_QUEUE);
  if (errno === 0) return fd;
  closeSync(fd);
  throw new SysError("ioctl", errno, `TUNSETIFF ${name}`);
}

/** @returns 0 or the errno */
function attach(fd: number, name: string, flags: number): number {
  const view = interfaceRequest(name);
  view.setInt16(IFNAMSIZ, flags, true);
  return libc.ioctl(fd, TUNSETIFF, view) === 0 ? 0 : lastErrno();
}
