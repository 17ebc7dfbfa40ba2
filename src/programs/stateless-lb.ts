// The control plane's program: reads the command line and the settings, and hands over. What serves is in
// stateless-lb/serve.ts, the other commands are in stateless-lb/subcommands.ts.
import { basename } from "node:path";
import { help, readRequest, type ServeRequest, usage } from "./stateless-lb/command-line.js";
import { printDebug } from "./stateless-lb/debug-command.js";
import { explainFailure } from "./stateless-lb/failure.js";
import { FlagError } from "./stateless-lb/go-flags.js";
import { PROBE_NAME } from "./stateless-lb/health-command.js";
import { createLog } from "./stateless-lb/log.js";
import { endWithReader, outliveReader } from "./stateless-lb/output.js";
import { serve } from "./stateless-lb/serve.js";
import { readSettings, readSettingsWithOrigins, type Settings, SettingsError } from "./stateless-lb/settings.js";
import { printSettings, settingsByName } from "./stateless-lb/settings-text.js";
import { Signals } from "./stateless-lb/signals.js";
import { describeSubcommands, findSubcommand } from "./stateless-lb/subcommands.js";

async function main(args: readonly string[], env: NodeJS.ProcessEnv, signals: Signals): Promise<number> {
  const [first] = args;
  if (first !== undefined && first !== "" && !first.startsWith("-")) {
    const subcommand = findSubcommand(first);
    if (subcommand === null)
      throw new FlagError(`there is no command ${first}; commands are:\n${describeSubcommands()}`);
    return await subcommand.run(args.slice(1), env, signals);
  }
  const request = readRequest(args);
  switch (request.kind) {
    case "version":
      process.stdout.write(`${process.env["BUILD_VERSION"] ?? "(unknown)"}\n`);
      return 0;
    case "debug":
      return printDebug(env);
    case "help":
      process.stdout.write(help());
      return 0;
    case "usage":
      process.stderr.write(usage());
      return 0;
    case "print-config": {
      const { settings, origins } = readSettingsWithOrigins(env);
      process.stdout.write(printSettings(settings, origins));
      return 0;
    }
    case "serve":
      return await serveWithLog(request, env, signals);
  }
}

/** The log is standard output; of a dry run that is the plan, and the log stands beside it. */
async function serveWithLog(
  { config, isDryRun }: ServeRequest,
  env: NodeJS.ProcessEnv,
  signals: Signals,
): Promise<number> {
  const destination = isDryRun ? process.stderr : process.stdout;
  if (!isDryRun) outliveReader();
  let settings: Settings;
  try {
    settings = readSettings(env);
  } catch (error) {
    if (error instanceof SettingsError && !error.isUnreadable)
      createLog("", destination).critical("invalid config", { error: error.message });
    throw error;
  }
  const log = createLog(isDryRun ? "" : settings.logLevel, destination);
  if (!isDryRun) {
    signals.serve(log);
    log.info("Configuration read", { config: settingsByName(settings) });
  }
  try {
    return await serve({ settings, config, isDryRun, log, signals });
  } catch (error) {
    log.critical("failed", { error: explainFailure(error).text });
    throw error;
  } finally {
    log.flush();
  }
}

/** Ends the program once what was printed is out: a pipe takes 64 KiB at a time. */
function exit(code: number): void {
  process.stdout.write("", () => process.exit(code));
}

endWithReader();
const [, program = "", ...args] = process.argv;
main(basename(program) === PROBE_NAME ? ["health", ...args] : args, process.env, new Signals()).then(
  exit,
  (error: unknown) => {
    const { text, code } = explainFailure(error);
    process.stderr.write(error instanceof FlagError ? `${text}\n${error.usage}` : `stateless-lb: ${text}\n`);
    exit(code);
  },
);
