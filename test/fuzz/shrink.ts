import type { FuzzCase } from "./target.js";

/** Tries at most. */
const MOST_TRIES = 20_000;

/**
 * A smaller case that still fails: without parts, without runs of bytes, with zeros for bytes, each for as long as that
 * helps. Ends after `deadlineMs` of work.
 */
export function shrink(given: FuzzCase, isFailing: (candidate: FuzzCase) => boolean, deadlineMs = 10_000): FuzzCase {
  const endMs = performance.now() + deadlineMs;
  let tries = 0;
  let best = given;
  const attempt = (parts: readonly Uint8Array[]): boolean => {
    if (++tries > MOST_TRIES || performance.now() > endMs) return false;
    const candidate = { ...best, parts };
    if (!isFailing(candidate)) return false;
    best = candidate;
    return true;
  };
  for (let size = 0; size !== sizeOf(best); ) {
    size = sizeOf(best);
    for (let run = best.parts.length >> 1 || 1; run > 0; run >>= 1)
      for (let at = best.parts.length - run; at >= 0; at -= run) attempt(best.parts.toSpliced(at, run));
    for (let part = 0; part < best.parts.length; part++) {
      const use = (bytes: Uint8Array) => attempt(best.parts.with(part, bytes));
      for (let run = best.parts[part]!.length >> 1 || 1; run > 0; run >>= 1)
        for (let at = best.parts[part]!.length - run; at >= 0; at -= run) use(without(best.parts[part]!, at, run));
      for (let at = 0; at < best.parts[part]!.length; at++)
        if (best.parts[part]![at] !== 0) use(best.parts[part]!.with(at, 0));
    }
  }
  return best;
}

function without(bytes: Uint8Array, at: number, length: number): Uint8Array {
  const rest = new Uint8Array(bytes.length - length);
  rest.set(bytes.subarray(0, at));
  rest.set(bytes.subarray(at + length), at);
  return rest;
}

/** Parts, bytes and bytes that are not zero: each step makes it less. */
function sizeOf({ parts }: FuzzCase): number {
  return parts.reduce((sum, part) => sum + 2 + part.length + part.filter((byte) => byte !== 0).length, 0);
}
