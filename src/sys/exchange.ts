import { resolve } from "node:path";
import { lastErrno, libc, SysError } from "./libc.js";

/** renameat2(2) by architecture; musl has no function for it. */
const SYS_RENAMEAT2 = process.arch === "x64" ? 316 : 276;
const RENAME_NOREPLACE = 1;
const RENAME_EXCHANGE = 2;

/**
 * Gives a file another name unless somebody has that name.
 * @returns false when somebody has it @throws {SysError} ENOENT; EINVAL: the file system cannot do it
 */
export function renameUnlessTaken(from: string, to: string): boolean {
  return rename(from, to, RENAME_NOREPLACE, "EEXIST");
}

/**
 * Two files of one file system take each other's name in one step.
 * @returns false when one of them is not there @throws {SysError} EINVAL: the file system cannot do it; EPERM
 */
export function exchangeNames(one: string, other: string): boolean {
  return rename(one, other, RENAME_EXCHANGE, "ENOENT");
}

function rename(from: string, to: string, flags: number, refusal: string): boolean {
  const [first, second] = [from, to].map((path) => Buffer.from(`${resolve(path)}\0`)); // absolute: no folder is asked for
  if (Number(libc.syscall(SYS_RENAMEAT2, 0, first, 0, second, flags, 0)) === 0) return true;
  const error = new SysError("rename", lastErrno(), `${from} to ${to}`);
  if (error.errno === refusal) return false;
  throw error;
}
