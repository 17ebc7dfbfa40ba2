import { check, lastErrno, libc } from "./libc.js";
import { AF_INET, AF_INET6 } from "./socket.js";

/**
 * `struct sockaddr_in` (16 bytes: family u16, port be16, address 4 bytes) or `struct sockaddr_in6` (28 bytes: family u16,
 * port be16, flow info u32, address 16 bytes, scope u32).
 */
function inetAddress(address: Uint8Array, port: number): Uint8Array {
  const is4 = address.length === 4;
  const bytes = new Uint8Array(is4 ? 16 : 28);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, is4 ? AF_INET : AF_INET6, true);
  view.setUint16(2, port);
  bytes.set(address, is4 ? 4 : 8);
  return bytes;
}

/** Binds to an address of 4 or 16 bytes. @throws {SysError} */
export function bindInet(fd: number, address: Uint8Array, port: number): void {
  const bytes = inetAddress(address, port);
  check("bind", libc.bind(fd, bytes, bytes.length), `port ${port}`);
}

/** Connects a datagram or raw socket: from now on it sends there. @throws {SysError} */
export function connectInet(fd: number, address: Uint8Array, port: number): void {
  const bytes = inetAddress(address, port);
  check("connect", libc.connect(fd, bytes, bytes.length), `port ${port}`);
}

/** Sends one datagram. @returns 0 or the errno */
export function sendInet(fd: number, data: Uint8Array, address: Uint8Array, port: number): number {
  const to = inetAddress(address, port);
  return Number(libc.sendto(fd, data, data.length, 0, to, to.length)) < 0 ? lastErrno() : 0;
}
