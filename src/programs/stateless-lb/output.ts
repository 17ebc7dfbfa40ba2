import { closeSync, fstatSync, openSync } from "node:fs";
import { watchReadable } from "#sys";

/** What is printed has no reader any more: a command has no use then, and nobody is told. */
const leave = () => process.exit(0);

/** A command: ends as soon as it prints something that nobody reads. */
export function endWithReader(): void {
  process.stdout.on("error", leave);
  process.stderr.on("error", () => {});
}

/** A service: goes on when the reader of its log went away. */
export function outliveReader(): void {
  process.stdout.off("error", leave).on("error", () => {});
}

/** A command that may have nothing to print for hours: ends when the reader at the other end of a pipe goes. */
export function endWhenReaderGoes(): void {
  if (!fstatSync(1).isFIFO()) return;
  let pipe: number;
  try {
    pipe = openSync("/proc/self/fd/1", "w"); // node may watch its own descriptor, and only one can
  } catch {
    return; // of another user; the next print will tell
  }
  const unwatch = watchReadable(pipe, leave, () => {}, { isBackground: true });
  process.once("exit", () => {
    unwatch();
    closeSync(pipe);
  });
}
