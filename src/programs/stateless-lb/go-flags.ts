import { parseBoolean } from "./values.js";

/** A flag of a program or command; `bool` flags need no value. */
export type FlagSpec = {
  readonly name: string;
  readonly kind: "bool" | "string";
  /** What the value is called in the usage list; FILE for example. */
  readonly value?: string;
  readonly help: string;
};

/** Values of the flags that were given; a bool's is "true" or "false". The rest of the command line is in `rest`. */
export type Flags = { readonly values: ReadonlyMap<string, string>; readonly rest: readonly string[] };

/** A command line that cannot be understood; message and usage list, if there is one, are for people. Exit code 2. */
export class FlagError extends Error {
  readonly code = "ERR_FLAG";
  readonly usage: string;

  constructor(message: string, usage = "") {
    super(message);
    this.usage = usage;
  }
}

/**
 * Reads flags as Go's flag package does: `-x` and `--x` are the same, `-x=v` and for strings `-x v`; the first word that
 * is no flag, or `--`, ends them. The last occurrence wins.
 * @param program for the usage list
 * @throws {FlagError} with the package's words
 */
export function parseFlags(program: string, specs: readonly FlagSpec[], args: readonly string[]): Flags {
  const refuse = (problem: string) => new FlagError(problem, formatUsage(program, specs));
  const values = new Map<string, string>();
  for (let i = 0; i < args.length; i++) {
    const word = args[i]!;
    if (word.length < 2 || !word.startsWith("-")) return { values, rest: args.slice(i) };
    if (word === "--") return { values, rest: args.slice(i + 1) };
    const body = word.slice(word.startsWith("--") ? 2 : 1);
    if (/^[-=]/.test(body)) throw refuse(`bad flag syntax: ${word}`);
    const equals = body.indexOf("=");
    const name = equals < 0 ? body : body.slice(0, equals);
    const spec = specs.find((one) => one.name === name);
    if (spec === undefined) throw refuse(`flag provided but not defined: -${name}`);
    const given = equals < 0 ? undefined : body.slice(equals + 1);
    if (spec.kind === "bool") {
      const value = readBoolean(given ?? "true");
      if (value === null) throw refuse(`invalid boolean value ${JSON.stringify(given)} for -${name}: parse error`);
      values.set(name, String(value));
    } else if (given !== undefined) values.set(name, given);
    else if (++i < args.length) values.set(name, args[i]!);
    else throw refuse(`flag needs an argument: -${name}`);
  }
  return { values, rest: [] };
}

/** null: the text is none. */
function readBoolean(text: string): boolean | null {
  try {
    return parseBoolean(text);
  } catch {
    return null;
  }
}

/** The usage list as the flag package prints it, in the order of names. */
export function formatUsage(program: string, specs: readonly FlagSpec[]): string {
  const lines = specs
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
    .map(({ name, value, help }) => `  -${name}${value === undefined ? "" : ` ${value}`}\n    \t${help}\n`);
  return `Usage of ${program}:\n${lines.join("")}`;
}
