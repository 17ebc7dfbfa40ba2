import { OUTCOME } from "#dataplane";
import { COUNTER_OUTCOMES, type CounterFile, flowsGeneration, type TraceFile } from "#tables";
import type { PlaneLog } from "./plane-log.js";

const INTERVAL_MS = 1_000;

/**
 * What the data plane's main thread looks after once a second: watchers that died, and what the log says in sum because
 * it is never said per packet.
 * @param parts.flowsName region of the flow rules; null in `lb` mode
 * @returns ends it
 */
export function keepHouse(parts: {
  readonly folder: string;
  readonly flowsName: string | null;
  readonly trace: TraceFile;
  readonly counters: CounterFile;
  readonly log: PlaneLog;
}): () => void {
  const { folder, flowsName, trace, counters, log } = parts;
  const readUnusable = () => counters.sum(COUNTER_OUTCOMES + OUTCOME.unusable);
  const readGeneration = () => (flowsName === null ? 0 : generationOrZero(folder, flowsName));
  let mask = 0;
  let unusable = readUnusable();
  let generation = readGeneration();
  const timer = setInterval(() => {
    const maskNow = trace.settleMask();
    if (maskNow !== mask) log.log("info", `trace: mask=0x${maskNow.toString(16).padStart(8, "0")}`);
    mask = maskNow;
    const unusableNow = readUnusable();
    if (unusableNow > unusable)
      log.log("info", `${unusableNow - unusable} unusable packets: short, malformed or not IP`);
    unusable = unusableNow;
    const generationNow = readGeneration();
    if (generationNow !== generation) log.flowsChanged(`flow rules: generation ${generationNow} is in force`);
    generation = generationNow;
  }, INTERVAL_MS);
  timer.unref();
  return () => clearInterval(timer);
}

function generationOrZero(folder: string, name: string): number {
  try {
    return flowsGeneration(folder, name);
  } catch {
    return 0; // deleted by somebody; the data plane goes on with the last ones
  }
}
