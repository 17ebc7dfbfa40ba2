import { runDoctor } from "./doctor-command.js";
import { runHealth } from "./health-command.js";
import { runNsp } from "./nsp-command.js";
import { readSettings } from "./settings.js";
import type { Signals } from "./signals.js";
import { runStatus } from "./status-command.js";
import { runSysctl } from "./sysctl-command.js";

/** A command of its own beside the control plane: `stateless-lb NAME …`. `run` returns the exit code. */
type Subcommand = {
  readonly name: string;
  readonly summary: string;
  readonly run: (args: readonly string[], env: NodeJS.ProcessEnv, signals: Signals) => number | Promise<number>;
};

const SUBCOMMANDS: readonly Subcommand[] = [
  {
    name: "nsp",
    summary: "an NSP server, or a client of one: see stateless-lb nsp --help",
    run: (args, env, signals) => runNsp(args, readSettings(env), signals),
  },
  { name: "status", summary: "what works, what does not, and why; one screen", run: runStatus },
  {
    name: "doctor",
    summary: "check kernel, sysctls, rights, limits and every target; how to mend what is wrong",
    run: runDoctor,
  },
  { name: "health", summary: "ask the health socket once, for probes: see stateless-lb health -help", run: runHealth },
  { name: "sysctl", summary: "set the sysctls that are needed (for an init container)", run: runSysctl },
];

export function findSubcommand(name: string): Subcommand | null {
  return SUBCOMMANDS.find((one) => one.name === name) ?? null;
}

/** The commands as text, for `--help` and for a name that is none. */
export function describeSubcommands(): string {
  return SUBCOMMANDS.map(({ name, summary }) => `  ${name.padEnd(8)}  ${summary}\n`).join("");
}
