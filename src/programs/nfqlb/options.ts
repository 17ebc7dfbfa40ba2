/** One option of a command: `value` options take an argument, `switch` options none. */
export type OptionSpec = {
  readonly name: string;
  readonly kind: "value" | "switch";
  /** What `--help` says. */
  readonly help: string;
  /** Shown by `--help`; applying it is the command's business. */
  readonly default?: string;
  readonly isRequired?: boolean;
  /** nfqlb 1.2.0 does not have it: where an abbreviation fits one of upstream's as well, that one is meant. */
  readonly isOwn?: boolean;
};

/** What stood on a command line. A switch that was given has the value "". */
export type ParsedOptions = {
  readonly values: ReadonlyMap<string, string>;
  readonly positionals: readonly string[];
};

/** A command line that cannot be understood; the message is what getopt_long_only(3) would print. */
class UsageError extends Error {
  readonly code = "ERR_USAGE";
}

/**
 * Reads options as getopt_long_only(3) does: `--opt=v`, `--opt v`, one or two dashes, unique prefixes, positionals
 * anywhere, `--` ends the options, the last occurrence wins. `-` and negative numbers behind `--` are positionals.
 * @param command name of the command, for messages
 * @throws {UsageError} unknown, ambiguous, or missing or superfluous argument
 */
export function parseOptions(command: string, specs: readonly OptionSpec[], args: readonly string[]): ParsedOptions {
  const values = new Map<string, string>();
  const positionals: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const word = args[i]!;
    if (word === "--") {
      positionals.push(...args.slice(i + 1));
      break;
    }
    if (!word.startsWith("-") || word === "-") {
      positionals.push(word);
      continue;
    }
    const dashes = word.startsWith("--") ? "--" : "-";
    const body = word.slice(dashes.length);
    const equals = body.indexOf("=");
    const given = equals < 0 ? body : body.slice(0, equals);
    const spec = findOption(command, specs, given, `${dashes}${given}`);
    if (spec.kind === "switch") {
      if (equals >= 0) throw new UsageError(`${command}: option '--${spec.name}' doesn't allow an argument`);
      values.set(spec.name, "");
    } else if (equals >= 0) {
      values.set(spec.name, body.slice(equals + 1));
    } else {
      i++;
      const value = args[i];
      if (value === undefined) throw new UsageError(`${command}: option '--${spec.name}' requires an argument`);
      values.set(spec.name, value);
    }
  }
  return { values, positionals };
}

function findOption(command: string, specs: readonly OptionSpec[], given: string, shown: string): OptionSpec {
  const exact = specs.find((spec) => spec.name === given);
  if (exact !== undefined) return exact;
  const fitting = given === "" ? [] : specs.filter((spec) => spec.name.startsWith(given));
  const upstream = fitting.filter((spec) => spec.isOwn !== true);
  const candidates = upstream.length === 1 ? upstream : fitting;
  if (candidates.length === 1) return candidates[0]!;
  if (candidates.length === 0) throw new UsageError(`${command}: unrecognized option '${shown}'`);
  const names = candidates.map((spec) => `'--${spec.name}'`).join(" ");
  throw new UsageError(`${command}: option '${shown}' is ambiguous; possibilities: ${names}`);
}

/** The required options that are missing, in upstream's words, or null. */
export function missingOption(specs: readonly OptionSpec[], { values }: ParsedOptions): string | null {
  const missing = specs.find((spec) => spec.isRequired === true && !values.has(spec.name));
  return missing === undefined ? null : `Missing option [--${missing.name}]`;
}
