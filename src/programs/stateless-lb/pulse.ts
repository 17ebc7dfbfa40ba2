import { readFileSync } from "node:fs";
import type { DataPlane } from "#tables";

/**
 * Tells a data plane that hangs: its main thread takes no samples (five a second otherwise) and no thread receives. One
 * that is busy and serves is none, and neither is one that stood still together with whoever looks.
 */
export class Pulse {
  #seen = "";
  #looks = 0;

  /**
   * Looks at what it said of itself; to be called once a second.
   * @param running null: there is none, or it is not ready
   * @returns looks in a row in which it did nothing
   */
  look(running: Pick<DataPlane, "pid" | "sampledMs" | "batches"> | null): number {
    const seen = running === null ? "" : `${running.pid} ${running.sampledMs} ${running.batches}`;
    this.#looks = seen !== "" && seen === this.#seen ? this.#looks + 1 : 0;
    this.#seen = seen;
    return this.#looks;
  }
}

/** Whether a debugger holds a process; proc(5), TracerPid. */
export function isTraced(pid: number): boolean {
  try {
    return !/^TracerPid:\s+0$/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false; // it has ended
  }
}
