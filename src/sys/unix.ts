import { check, libc } from "./libc.js";
import { AF_UNIX, closeDescriptor, openSocket, SOCK_NONBLOCK, SOCK_STREAM, SOL_SOCKET } from "./socket.js";

const SO_PEERCRED = 17;
const BACKLOG = 1024;

/**
 * `struct sockaddr_un` of an abstract name: family u16, a zero byte, the name; its length ends with the name. node 20
 * pads such names to the full 108 bytes and so never meets a peer that uses the exact length.
 */
function abstractAddress(name: string): Uint8Array {
  const bytes = new TextEncoder().encode(name);
  if (bytes.length === 0 || bytes.length > 107) throw new RangeError(`abstract socket "${name}": 1..107 bytes`);
  const address = new Uint8Array(3 + bytes.length);
  address[0] = AF_UNIX;
  address.set(bytes, 3);
  return address;
}

/** A stream socket that listens on an abstract unix name; the caller closes the descriptor. @throws {SysError} EADDRINUSE … */
export function listenAbstract(name: string): number {
  const address = abstractAddress(name);
  return withSocket((fd) => {
    check("bind", libc.bind(fd, address, address.length), `@${name}`);
    check("listen", libc.listen(fd, BACKLOG), `@${name}`);
  });
}

/** A stream socket connected to an abstract unix name; the caller closes the descriptor. @throws {SysError} ECONNREFUSED … */
export function connectAbstract(name: string): number {
  const address = abstractAddress(name);
  return withSocket((fd) => check("connect", libc.connect(fd, address, address.length), `@${name}`));
}

/**
 * The process that listens on an abstract unix name, when it is seen from here; null: it is not, or nobody does, or too
 * many wait for it to be heard. Asks without waiting.
 */
export function listenerOf(name: string): number | null {
  const address = abstractAddress(name);
  const fd = openSocket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
  try {
    if (libc.connect(fd, address, address.length) < 0) return null;
    return peerCredentials(fd).pid || null; // 0: of another pid namespace
  } finally {
    closeDescriptor(fd);
  }
}

/** The process at the other end of a unix stream socket, when it connected; `struct ucred` { pid, uid, gid }. @throws {SysError} */
export function peerCredentials(fd: number): { readonly pid: number; readonly userId: number } {
  const credentials = new Uint32Array(3);
  check("getsockopt", libc.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, credentials, new Uint32Array([12])), "SO_PEERCRED");
  return { pid: credentials[0]!, userId: credentials[1]! };
}

function withSocket(prepare: (fd: number) => void): number {
  const fd = openSocket(AF_UNIX, SOCK_STREAM, 0);
  try {
    prepare(fd);
    return fd;
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}
