import { FlagError } from "./go-flags.js";
import { SettingsError } from "./settings.js";

/** A start or a command that cannot succeed; the message is one line that says what to do. */
export class StartError extends Error {
  readonly code = "ERR_START";
}

/** What people are told of a failure, and the exit code: 2 for what cannot be read, 1 for everything else. */
export function explainFailure(error: unknown): { readonly text: string; readonly code: number } {
  const { code = "", message, stack, syscall } = error as NodeJS.ErrnoException;
  if (error instanceof SettingsError) return { text: message, code: error.isUnreadable ? 2 : 1 };
  if (error instanceof FlagError) return { text: message, code: 2 };
  if (code.startsWith("ERR_PARSE_ARGS")) return { text: `${message}; see --help`, code: 2 };
  if (/\bEPERM\b/.test(message)) {
    const advice =
      "CAP_NET_ADMIN is needed: run as root, grant it (ambient, or on the file of node), or see docs/deployment.md";
    return { text: `${message.split("\n")[0]}: ${advice}`, code: 1 };
  }
  // Our own errors and the system's say what is wrong with what; of a bug the place is wanted.
  const isExpected = (code.startsWith("ERR_") && !code.startsWith("ERR_INVALID")) || syscall !== undefined;
  return { text: isExpected ? message : (stack ?? message), code: 1 };
}
