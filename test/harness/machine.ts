import { spawnSync } from "node:child_process";

/** What a node takes to start and end on the machine that the limits were set on, at rest; ms. */
const REFERENCE_MS = 50;
const STARTS = 9;

/**
 * How many times slower this machine is at this moment than that one, 1 at least, by what a process takes to start: a virtual
 * machine whose host is busy takes twice as long for everything that wakes threads and touches memory, within minutes.
 * For limits in ms or percent that hold for a machine of that class.
 */
export function slowness(): number {
  const times = Array.from({ length: STARTS }, () => {
    const startMs = performance.now();
    spawnSync(process.execPath, ["-e", "0"]);
    return performance.now() - startMs;
  });
  const factor = Math.max(1, times.toSorted((a, b) => a - b)[STARTS >> 1]! / REFERENCE_MS);
  if (factor > 1) console.log(`this machine is ${factor.toFixed(2)} times slower than the one that limits are for`);
  return factor;
}
