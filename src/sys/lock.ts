import { constants } from "node:os";
import { check, lastErrno, libc, SysError } from "./libc.js";

const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_WRLCK = 1;
const F_UNLCK = 2;

/**
 * `struct flock` (LP64, 32 bytes): l_type i16 @0, l_whence i16 @2, l_start i64 @8, l_len i64 @16, l_pid i32 @24
 * (must be 0 for open-file-description locks, fcntl(2)).
 */
function flockBytes(type: number, start: number, length: number): DataView {
  const view = new DataView(new ArrayBuffer(32));
  view.setInt16(0, type, true);
  view.setInt16(2, 0, true);
  view.setBigInt64(8, BigInt(start), true);
  view.setBigInt64(16, BigInt(length), true);
  return view;
}

/**
 * Exclusive lock on the byte range [start, start + length) of an open file description (F_OFD_SETLK, fcntl(2)). The
 * kernel gives it back when the descriptor closes, so also when its process dies. Two descriptors opened apart exclude
 * each other even inside one process or thread.
 * @returns false when somebody else holds a part of the range.
 */
export function tryLockRange(fd: number, start: number, length: number): boolean {
  const request = flockBytes(F_WRLCK, start, length);
  if (libc.fcntl(fd, F_OFD_SETLK, request) === 0) return true;
  const errno = lastErrno();
  if (errno === constants.errno.EAGAIN || errno === constants.errno.EACCES) return false;
  throw new SysError("fcntl", errno, "F_OFD_SETLK");
}

/** Gives back the caller's lock on the range; no error when there is none. */
export function unlockRange(fd: number, start: number, length: number): void {
  check("fcntl", libc.fcntl(fd, F_OFD_SETLK, flockBytes(F_UNLCK, start, length)), "F_OFD_SETLK unlock");
}

/** Whether somebody other than `fd` holds a lock on a part of the range. */
export function isRangeLocked(fd: number, start: number, length: number): boolean {
  const request = flockBytes(F_WRLCK, start, length);
  check("fcntl", libc.fcntl(fd, F_OFD_GETLK, request), "F_OFD_GETLK");
  return request.getInt16(0, true) !== F_UNLCK;
}
