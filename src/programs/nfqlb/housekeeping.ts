import { watch } from "node:fs";
import { OUTCOME, RuleView } from "#dataplane";
import { COUNTER_OUTCOMES, type CounterFile, mendRemovedRegions, type TraceFile } from "#tables";
import type { Beat } from "./beat.js";
import type { PlaneLog } from "./plane-log.js";

/** Once a second. */
const BEATS = 5;
/** After a file of the folder was deleted: who replaces it by hand does so within this. */
const MEND_AFTER_MS = 50;

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
  readonly beat: Beat;
  readonly log: PlaneLog;
}): () => void {
  const { folder, flowsName, trace, counters, beat, log } = parts;
  const readUnusable = () => counters.sum(COUNTER_OUTCOMES + OUTCOME.unusable);
  // Held open here as well, so that rules in force are never lost with their file's name: threads look again with packets.
  const rules = flowsName === null ? null : new RuleView(folder, flowsName);
  const readGeneration = () => {
    rules?.enter();
    rules?.leave();
    return (rules?.generation ?? 0) >>> 0;
  };
  let mask = 0;
  let unusable = readUnusable();
  let generation = readGeneration();
  const endLooking = beat.every(BEATS, () => {
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
  });
  const endMending = mendWhenRemoved(folder, log, readGeneration);
  return () => {
    endLooking();
    endMending();
    rules?.[Symbol.dispose]();
  };
}

/** Regions in use whose files were deleted by hand come back, which is told. */
export function mendRemoved(folder: string, log: PlaneLog): void {
  for (const { name, outcome } of mendRemovedRegions(folder))
    log.log("warning", `${name} was deleted by hand while in use: ${outcome}`);
}

/** Looks at the folder whenever a name in it comes or goes; without inotify nobody does, which is told. */
function mendWhenRemoved(folder: string, log: PlaneLog, onMended: () => void): () => void {
  let timer: NodeJS.Timeout | undefined;
  const mend = () => {
    timer = undefined;
    mendRemoved(folder, log);
    onMended();
  };
  try {
    const watcher = watch(folder, { persistent: false }, (event) => {
      if (event === "rename") timer ??= setTimeout(mend, MEND_AFTER_MS).unref();
    });
    watcher.on("error", (error) => log.log("warning", `${folder} is not watched any more: ${error.message}`));
    return () => {
      watcher.close();
      clearTimeout(timer);
    };
  } catch (error) {
    log.log("warning", `${folder} cannot be watched: ${(error as Error).message}`);
    return () => {};
  }
}
