// The data plane and its command line.
import { BALANCER_COMMANDS } from "./nfqlb/balancer-commands.js";
import { type Command, CommandError, type Io } from "./nfqlb/command.js";
import { EXPLAIN_COMMAND } from "./nfqlb/explain-command.js";
import { FLOW_COMMANDS } from "./nfqlb/flow-commands.js";
import { FWMARK_COMMAND } from "./nfqlb/fwmark-command.js";
import { LOGLEVEL_COMMAND } from "./nfqlb/loglevel-command.js";
import { missingOption, parseOptions } from "./nfqlb/options.js";
import { STATS_COMMAND } from "./nfqlb/stats-command.js";
import { TABLE_COMMANDS } from "./nfqlb/table-commands.js";
import { TOP_COMMAND } from "./nfqlb/top-command.js";
import { TRACE_COMMAND } from "./nfqlb/trace-command.js";

const COMPATIBLE_VERSION = "1.2.0";

const VERSION_COMMAND: Command = {
  name: "version",
  summary: "Print the version of nfqlb that this one is compatible with; --own for its own",
  options: [{ name: "own", kind: "switch", isOwn: true, help: "Print the version of this program" }],
  run({ values }, io) {
    io.out(`${values.has("own") ? process.env["BUILD_VERSION"] : COMPATIBLE_VERSION}\n`);
    return 0;
  },
};

const COMMANDS: readonly Command[] = [
  ...TABLE_COMMANDS,
  FWMARK_COMMAND,
  EXPLAIN_COMMAND,
  ...BALANCER_COMMANDS,
  ...FLOW_COMMANDS,
  TRACE_COMMAND,
  LOGLEVEL_COMMAND,
  STATS_COMMAND,
  TOP_COMMAND,
  VERSION_COMMAND,
];

function usage(): string {
  const width = Math.max(...COMMANDS.map(({ name }) => name.length));
  const lines = COMMANDS.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}\n`).join("");
  return `nfqlb: load balancer behind NFQUEUE\n\nUsage: nfqlb <command> [options]\n       nfqlb <command> --help\n\nCommands:\n${lines}`;
}

function commandHelp({ name, summary, positionals, options }: Command): string {
  const left = options.map((option) => `--${option.name}${option.kind === "value" ? "=<value>" : ""}`);
  const width = Math.max(0, ...left.map((text) => text.length));
  const lines = options.map((option, index) => {
    const notes =
      option.isRequired === true ? " (required)" : option.default === undefined ? "" : ` (${option.default})`;
    return `  ${left[index]!.padEnd(width)}  ${option.help}${notes}\n`;
  });
  const arguments_ = `${options.length > 0 ? " [options]" : ""}${positionals === undefined ? "" : ` ${positionals}`}`;
  return `Usage: nfqlb ${name}${arguments_}\n${summary}\n${lines.length > 0 ? "\nOptions:\n" : ""}${lines.join("")}`;
}

async function main(args: readonly string[], io: Io): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined || name === "-h" || name === "--help" || name === "help") {
    io.out(usage());
    return 0;
  }
  const command = COMMANDS.find((candidate) => candidate.name === name);
  if (command === undefined) {
    io.error(`Unknown command [${name}]\n`);
    return 1;
  }
  const specs = [...command.options, { name: "help", kind: "switch", help: "This text" } as const];
  const options = parseOptions(command.name, specs, rest);
  if (options.values.has("help")) {
    io.out(commandHelp(command));
    return 0;
  }
  const missing = missingOption(command.options, options);
  if (missing !== null) throw new CommandError(missing);
  return await command.run(options, io);
}

let isOutClosed = false;
const io: Io = {
  out: (text) => process.stdout.write(text),
  error: (text) => process.stderr.write(text),
  isOutClosed: () => isOutClosed,
  env: process.env,
};
process.stdout.on("error", () => {
  isOutClosed = true;
}); // a reader that went away (EPIPE) must never end a data plane
process.stderr.on("error", () => {});
main(process.argv.slice(2), io).then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    const isExpected = error instanceof Error && "code" in error;
    io.error(`${isExpected ? error.message : error instanceof Error ? error.stack : String(error)}\n`);
    process.exitCode = 1;
  },
);
