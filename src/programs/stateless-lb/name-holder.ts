import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { listenerOf } from "#sys";
import { printable } from "./printable.js";
import { maskText } from "./secrets.js";

/** A process that holds an abstract unix name, and its command line; empty where it is hidden. */
export type Holder = { readonly pid: number; readonly command: string };

const MAX_SHOWN = 80;

/**
 * Who holds an abstract unix name in this network namespace. null: nobody that is seen from here; it may live in another pid
 * namespace, or belong to another user and not listen.
 */
export function holderOfName(name: string): Holder | null {
  const pid = listenerOf(name) ?? ownerOfSocket(name);
  return pid === null ? null : { pid, command: commandOf(pid) };
}

/** Whether anybody holds an abstract unix name in this network namespace. */
export function isNameTaken(name: string): boolean {
  return inodeOf(name) !== null;
}

/** For who holds the name and doesn't listen, or has too many waiting: the process with a descriptor of that socket. */
function ownerOfSocket(name: string): number | null {
  const inode = inodeOf(name);
  if (inode === null) return null;
  for (const pid of readdirSync("/proc").filter((entry) => /^[0-9]+$/.test(entry))) {
    const folder = `/proc/${pid}/fd`;
    const links = readOr([], () => readdirSync(folder)).map((fd) => readOr("", () => readlinkSync(`${folder}/${fd}`)));
    if (links.includes(`socket:[${inode}]`)) return Number(pid);
  }
  return null;
}

/**
 * From the kernel's list, whose columns are: Num RefCount Protocol Flags Type St Inode Path (net/unix/af_unix.c, v6.18).
 * Connections that nobody has accepted have the name, too, and inode 0.
 */
function inodeOf(name: string): string | null {
  const lines = readFileSync("/proc/self/net/unix", "utf8").split("\n");
  const sockets = lines.map((line) => line.trim().split(/ +/));
  return sockets.find(([, , , , , , inode, path]) => path === `@${name}` && inode !== "0")?.[6] ?? null;
}

function commandOf(pid: number): string {
  const text = readOr("", () => readFileSync(`/proc/${pid}/cmdline`, "utf8"));
  const words = maskText(printable(text.replaceAll("\0", " ").trim()));
  return words.length > MAX_SHOWN ? `${words.slice(0, MAX_SHOWN)}…` : words;
}

/** Of a process that may have ended, or is another user's. */
function readOr<T>(otherwise: T, read: () => T): T {
  try {
    return read();
  } catch {
    return otherwise;
  }
}
