import { type FlagSpec, formatUsage, parseFlags } from "./go-flags.js";
import { describeVariables } from "./settings-text.js";
import { describeSubcommands } from "./subcommands.js";

const PROGRAM = "stateless-lb";

/** Flags of the program itself; the first three are the reference's. */
const FLAGS: readonly FlagSpec[] = [
  { name: "version", kind: "bool", help: "print the version" },
  { name: "debug", kind: "bool", help: "print the state of this host and of the load balancer as one line of JSON" },
  { name: "help", kind: "bool", help: "print what the program is, its commands and its variables" },
  {
    name: "config",
    kind: "string",
    value: "FILE",
    help: "run alone: serve the configuration of FILE (YAML) from an embedded NSP",
  },
  { name: "dry-run", kind: "bool", help: "print what would be done, as ip and nft commands, and change nothing" },
  { name: "print-config", kind: "bool", help: "print the settings in force and the origin of each" },
  { name: "h", kind: "bool", help: "print this list" },
];

/** What the program is to do. */
export type Request = { readonly kind: "version" | "debug" | "help" | "usage" | "print-config" } | ServeRequest;

/** The control plane, or with `isDryRun` what it would do. */
export type ServeRequest = {
  readonly kind: "serve";
  /** Configuration file of an embedded NSP. */
  readonly config: string | undefined;
  readonly isDryRun: boolean;
};

/** Of several requests the first in the reference's order counts. @throws {FlagError} */
export function readRequest(args: readonly string[]): Request {
  const { values } = parseFlags(PROGRAM, FLAGS, args);
  if (values.has("h")) return { kind: "usage" };
  const first = (["version", "debug", "help", "print-config"] as const).find((name) => values.get(name) === "true");
  if (first !== undefined) return { kind: first };
  return { kind: "serve", config: values.get("config"), isDryRun: values.get("dry-run") === "true" };
}

/** Answer to `-h`, on standard error. */
export const usage = () => formatUsage(PROGRAM, FLAGS);

/** Answer to `--help`; it begins as the reference's. */
export const help = () => `
stateless-lb --
  The control plane of a stateless layer-4 load balancer.
  It drives the data plane (nfqlb), learns its configuration from an NSP, and programs rules, routes and nftables.
  It belongs in a container of a Kubernetes pod, or runs alone from one file.

Usage: stateless-lb [flags]
       stateless-lb COMMAND [arguments]

Commands:
${describeSubcommands()}
Flags:
${FLAGS.filter(({ name }) => name !== "h")
  .map(
    ({ name, value, help: text }) => `  ${`--${name}${value === undefined ? "" : ` ${value}`}`.padEnd(16)}  ${text}\n`,
  )
  .join("")}
Exit codes: 0 orderly end, 1 failed start or internal failure, 2 a variable or flag that cannot be read.
Signals: SIGTERM, SIGINT, SIGQUIT end it in order, a second one without waiting for
NSM_DRAIN_TIME, a third one at once; SIGHUP reads the file of --config again (without
one it ends the program, as in the reference). SIGUSR2 logs at TRACE, SIGUSR1 at NSM_LOG_LEVEL again.

Environment variables (name, type, default, meaning):
${describeVariables()}`;
