import { lastErrno, libc, SysError, watchReadable } from "./libc.js";
import { closeDescriptor } from "./socket.js";

const SYS_PIDFD_OPEN = 434; // the same number on every architecture since 5.3

/**
 * Ends this process and all its threads, whatever they do, without any of node's work at the end: `process.exit()` waits for
 * each worker thread to return to JavaScript, and one that blocks in a system call never does. _exit(2)
 */
export function exitAtOnce(code: number): never {
  libc._exit(code);
  throw new Error("unreachable"); // it does not return
}

/**
 * Calls `onExit` once when the process `pid` ends, whether it is our child or not (pidfd_open(2), kernel 5.3).
 * @returns a function that ends the watch, or null when there is no such process.
 * @throws {SysError} EPERM, ENOSYS …
 */
export function watchProcess(pid: number, onExit: () => void): (() => void) | null {
  const fd = Number(libc.syscall(SYS_PIDFD_OPEN, pid, 0, 0, 0, 0, 0));
  if (fd < 0) {
    const error = new SysError("pidfd_open", lastErrno(), `pid ${pid}`);
    if (error.errno === "ESRCH") return null;
    throw error;
  }
  let isOpen = true;
  const stop = () => {
    if (!isOpen) return;
    isOpen = false;
    unwatch();
    closeDescriptor(fd);
  };
  const unwatch = watchReadable(
    fd,
    () => {
      stop();
      onExit();
    },
    stop,
    { isBackground: true },
  );
  return stop;
}
