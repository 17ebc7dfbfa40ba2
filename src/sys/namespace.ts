import { closeSync, openSync } from "node:fs";
import { check, libc } from "./libc.js";

export const CLONE_NEWNS = 0x00020000;
export const CLONE_NEWNET = 0x40000000;

/**
 * Moves the calling thread (and the children and workers it starts from now on) into fresh namespaces; unshare(2).
 * node's pool threads stay behind: use only synchronous file calls afterwards.
 */
export function unshare(flags: number): void {
  check("unshare", libc.unshare(flags));
}

/** Moves the calling thread into the namespace that `path` (`/proc/PID/ns/net`) names; setns(2). */
export function enterNamespace(path: string, flags: number): void {
  const fd = openSync(path, "r");
  try {
    check("setns", libc.setns(fd, flags), path);
  } finally {
    closeSync(fd);
  }
}

/**
 * Runs `work` with the calling thread in the network namespace of `pid` and comes back, whatever happens. Sockets
 * opened by `work` stay in that namespace. `work` must be synchronous.
 */
export function inNetworkNamespaceOf<T>(pid: number, work: () => T): T {
  const own = openSync("/proc/thread-self/ns/net", "r");
  try {
    enterNamespace(`/proc/${pid}/ns/net`, CLONE_NEWNET);
    try {
      return work();
    } finally {
      check("setns", libc.setns(own, CLONE_NEWNET), "back");
    }
  } finally {
    closeSync(own);
  }
}
