import type { OptionSpec, ParsedOptions } from "./options.js";

/** The outside of a command, so that it can be run in a test. */
export type Io = {
  readonly out: (text: string | Uint8Array) => void;
  readonly error: (text: string) => void;
  /** Whether nobody reads what `out` prints any more. */
  readonly isOutClosed: () => boolean;
  readonly env: NodeJS.ProcessEnv;
};

/** One command of the program. `run` returns the exit code. */
export type Command = {
  readonly name: string;
  /** One line of the command list. */
  readonly summary: string;
  /** Positional arguments as `--help` shows them, for example `[fwmark...]`. */
  readonly positionals?: string;
  readonly options: readonly OptionSpec[];
  readonly run: (options: ParsedOptions, io: Io) => number | Promise<number>;
};

/** A wish that cannot be fulfilled; the message goes to standard error as it is, the exit code is 1. */
export class CommandError extends Error {
  readonly code = "ERR_COMMAND";
}

/** Folder of the table images: NFQLB_SHM_DIR, default `/dev/shm`. */
export function shmFolder(env: NodeJS.ProcessEnv): string {
  return env["NFQLB_SHM_DIR"] || "/dev/shm";
}

/**
 * Value of a numeric option: a whole decimal number in `min`…`max`. Upstream takes garbage as 0; we refuse it.
 * @throws {CommandError}
 */
export function numberOption(options: ParsedOptions, name: string, fallback: number, min: number, max: number): number {
  const text = options.values.get(name);
  return text === undefined ? fallback : wholeNumber(`--${name}`, text, min, max);
}

/** @throws {CommandError} `text` is not a whole decimal number in `min`…`max` */
export function wholeNumber(what: string, text: string, min: number, max: number): number {
  const value = /^-?[0-9]{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw new CommandError(`Invalid ${what} [${text}]; a whole number ${min}..${max}`);
}

/** Name of a region from an option: a file name without a folder. @throws {CommandError} */
export function regionName(options: ParsedOptions, name: string, fallback: string): string {
  const text = options.values.get(name) ?? fallback;
  if (/^[^/\0]{1,255}$/.test(text) && text !== "." && text !== "..") return text;
  throw new CommandError(`Invalid --${name} [${text}]; a file name of 1..255 characters without "/"`);
}
