import { setTimeout as delay } from "node:timers/promises";

/** Pause before a watch that ended is opened again. Meridio's. */
const RETRY_MS = 500;

export type ListWatchOptions = {
  readonly open: (signal: AbortSignal) => AsyncIterable<Uint8Array>;
  /** Whether an answer is an empty list. @throws when it is none */
  readonly isEmpty: (answer: Uint8Array) => boolean;
  /** Whether what is in force is an empty list, or nothing. */
  readonly isEmptyNow: () => boolean;
  /** A list to be put in force. */
  readonly take: (answer: Uint8Array) => void;
  /** How long an empty list that comes first is not believed, in ms; 0 believes at once. */
  readonly emptyGraceMs: number;
  /** Whether a second empty list on the same watch confirms the first before that time. */
  readonly isRepeatBelieved: boolean;
  /** A watch that lived shorter, in ms, did not end because of our pings; Infinity: there are none. */
  readonly leastCalmMs: number;
  /** How long a watch that is opened anew for fewer pings may be without an answer, in ms; then it is a broken one. */
  readonly firstAnswerMs: number;
  /** An answer came and was taken, or is doubted. */
  readonly onAnswer: () => void;
  /** The watch ended. It is opened again in any case. */
  readonly onBreak: (reason: string) => void;
};

/**
 * Keeps one watch open until `signal`, for ever again. An empty list that comes first while something is in force is
 * doubted: a server that has just started may know nothing yet. A list that is not empty ends the doubt, and so does a
 * watch that breaks; otherwise the empty list counts when the time is over. Later empty lists count at once.
 */
export async function watchList(options: ListWatchOptions, signal: AbortSignal): Promise<void> {
  let silence: NodeJS.Timeout | undefined;
  const onAnswer = () => {
    clearTimeout(silence);
    options.onAnswer();
  };
  while (!signal.aborted) {
    const isCalm = await follow({ ...options, onAnswer }, signal);
    clearTimeout(silence);
    if (isCalm) silence = setTimeout(() => options.onBreak("no answer since too many pings"), options.firstAnswerMs);
    if (!signal.aborted) await delay(RETRY_MS, undefined, { signal }).catch(() => {});
  }
  clearTimeout(silence);
}

/** @returns whether the end was a server's request for fewer pings, which is no fault */
async function follow(options: ListWatchOptions, signal: AbortSignal): Promise<boolean> {
  const startMs = performance.now();
  let isFirst = true;
  let doubt: NodeJS.Timeout | null = null;
  const endDoubt = () => {
    if (doubt !== null) clearTimeout(doubt);
    doubt = null;
  };
  try {
    for await (const answer of options.open(signal)) {
      if (signal.aborted) return false;
      const isDoubtful = options.isEmpty(answer) && !options.isEmptyNow() && options.emptyGraceMs > 0;
      if (isDoubtful && isFirst) {
        doubt = setTimeout(() => {
          doubt = null;
          options.take(answer);
        }, options.emptyGraceMs);
      } else if (!isDoubtful || doubt === null || options.isRepeatBelieved) {
        endDoubt();
        options.take(answer);
      }
      isFirst = false;
      options.onAnswer();
    }
    options.onBreak("the server ended a watch");
  } catch (error) {
    const isCallForCalm = (error as { isCallForCalm?: boolean }).isCallForCalm === true;
    if (isCallForCalm && performance.now() - startMs >= options.leastCalmMs) return true;
    options.onBreak((error as Error).message);
  } finally {
    endDoubt();
  }
  return false;
}
