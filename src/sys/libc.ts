import { constants } from "node:os";
import { getSystemErrorName } from "node:util";
import koffi from "koffi";

/**
 * The one place where C functions are declared and called. Symbols come from the running node process, so the same
 * code works on glibc and musl. Every pointer is `void *`: views hand over the address of their own bytes, nothing is
 * copied. Structs are laid out by hand beside their use (LP64, little endian).
 */
const library = koffi.load(null);

export const libc = {
  socket: library.func("int socket(int, int, int)"),
  bind: library.func("int bind(int, void *, unsigned int)"),
  connect: library.func("int connect(int, void *, unsigned int)"),
  listen: library.func("int listen(int, int)"),
  getsockname: library.func("int getsockname(int, void *, void *)"),
  setsockopt: library.func("int setsockopt(int, int, int, void *, unsigned int)"),
  getsockopt: library.func("int getsockopt(int, int, int, void *, void *)"),
  sendto: library.func("intptr_t sendto(int, void *, size_t, int, void *, unsigned int)"),
  recv: library.func("intptr_t recv(int, void *, size_t, int)"),
  recvmmsg: library.func("int recvmmsg(int, void *, unsigned int, int, void *)"),
  sendmmsg: library.func("int sendmmsg(int, void *, unsigned int, int)"),
  read: library.func("intptr_t read(int, void *, size_t)"),
  write: library.func("intptr_t write(int, void *, size_t)"),
  close: library.func("int close(int)"),
  usleep: library.func("int usleep(unsigned int)"),
  fallocate: library.func("int fallocate(int, int, int64, int64)"),
  eventfd: library.func("int eventfd(unsigned int, int)"),
  poll: library.func("int poll(void *, unsigned long, int)"),
  fcntl: library.func("int fcntl(int, int, void *)"),
  flock: library.func("int flock(int, int)"),
  mmap: library.func("intptr_t mmap(void *, size_t, int, int, int, int64_t)"),
  madvise: library.func("int madvise(void *, size_t, int)"),
  munmap: library.func("int munmap(void *, size_t)"),
  unshare: library.func("int unshare(int)"),
  setns: library.func("int setns(int, int)"),
  mount: library.func("int mount(const char *, const char *, const char *, unsigned long, void *)"),
  syscall: library.func("long syscall(long, void *, void *, void *, void *, void *, void *)"),
  _exit: library.func("void _exit(int)"),
  clock_gettime: library.func("int clock_gettime(int, void *)"),
  ioctl: library.func("int ioctl(int, unsigned long, void *)"),
} as const;

/** A system call failed. `code` is always `ERR_SYS`; `errno` is the symbolic name, for example `ENOBUFS`. */
export class SysError extends Error {
  readonly code = "ERR_SYS";
  readonly syscall: string;
  readonly errno: string;

  constructor(syscall: string, errnoNumber: number, detail = "") {
    const name = errnoName(errnoNumber);
    super(`${syscall}${detail === "" ? "" : ` ${detail}`}: ${name}`);
    this.name = "SysError";
    this.syscall = syscall;
    this.errno = name;
  }
}

/** The first of several names for one number. */
const ERRNO_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(constants.errno)
    .map(([name, value]) => [value, name] as const)
    .toReversed(),
);

/** Symbolic name of an errno value, for example 17 → `EEXIST`; `errno 9999` for one that the platform does not name. */
export function errnoName(errnoNumber: number): string {
  const byOs = ERRNO_NAMES.get(errnoNumber);
  if (byOs !== undefined) return byOs;
  try {
    return getSystemErrorName(-errnoNumber);
  } catch {
    return `errno ${errnoNumber}`;
  }
}

/** Returns `result` if it is not negative; else reads errno at once and throws {@link SysError}. */
export function check(syscall: string, result: number, detail?: string): number {
  if (result >= 0) return result;
  throw new SysError(syscall, koffi.errno(), detail);
}

/** errno of the call that has just failed, as a positive number. Call it before anything else. */
export function lastErrno(): number {
  return koffi.errno();
}

/** Address of the first byte of `view`. It does not keep the memory alive: hold the view as long as the address is used. */
export function addressOf(view: ArrayBufferView): number {
  return Number(koffi.address(view));
}

/** The `length` bytes at `address` as an ArrayBuffer; the owner of the address must outlive it. */
export function viewAt(address: number, length: number): ArrayBuffer {
  return koffi.view(BigInt(address), length);
}

/**
 * Calls `onReadable` on the main thread's event loop whenever `fd` can be read or has an error to tell, until the result
 * is called. What the callback throws goes to `onError`: an exception must never leave a poll callback (it would abort
 * the process later). The watch keeps the process alive unless `isBackground`. Never use it in a worker thread.
 *
 * libuv ends a watch when the descriptor has an error, such as ENOBUFS of a netlink socket (uv__poll_io,
 * src/unix/poll.c, v1.46). `onReadable` takes the error by receiving, and the watch goes on; if it throws then, the
 * watch is over.
 */
export function watchReadable(
  fd: number,
  onReadable: () => void,
  onError: (error: unknown) => void,
  { isBackground = false } = {},
): () => void {
  const events = { readable: true };
  let isOpen = true;
  // koffi declares the callback as (events); it calls it as (status, events), with a negative errno as status.
  const callback = (status: unknown) => {
    try {
      onReadable();
      if (isOpen && typeof status === "number" && status < 0) handle.start(events, callback);
    } catch (error) {
      onError(error);
    }
  };
  const handle = koffi.node.poll(fd, events, callback);
  if (isBackground) handle.unref();
  return () => {
    isOpen = false;
    handle.close();
  };
}

/** Lets the thread sleep for about `us` microseconds (plus its timer slack, 50 us by default); usleep(3). Allocates nothing. */
export function sleepMicroseconds(us: number): void {
  libc.usleep(us);
}
