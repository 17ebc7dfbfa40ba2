import { readFileSync } from "node:fs";

/** How many files this process may have open; Infinity without a limit. @param limits its /proc/PID/limits */
export function mostOpenFiles(limits = readFileSync("/proc/self/limits", "utf8")): number {
  const most = /Max open files +(\S+)/.exec(limits)?.[1];
  return most === "unlimited" ? Number.POSITIVE_INFINITY : Number(most);
}
