import { type FlagSpec, formatUsage, parseFlags } from "./go-flags.js";
import { readSysctl, type Sysctl, wantedSysctls, writeSysctl } from "./sysctls.js";

const PROGRAM = "stateless-lb sysctl";
const FLAGS: readonly FlagSpec[] = [
  { name: "dry-run", kind: "bool", help: "print what would be set, as sysctl commands, and change nothing" },
  { name: "help", kind: "bool", help: "this text" },
];

/**
 * `stateless-lb sysctl`: sets what is needed in this network namespace, for a privileged init container. Exit code 0:
 * everything is as it has to be, 1: something could not be set.
 */
export function runSysctl(args: readonly string[]): number {
  const { values } = parseFlags(PROGRAM, FLAGS, args);
  if (values.get("help") === "true") {
    process.stdout.write(formatUsage(PROGRAM, FLAGS));
    return 0;
  }
  const isDryRun = values.get("dry-run") === "true";
  let failures = 0;
  for (const sysctl of wantedSysctls()) {
    const before = readSysctl(sysctl.path);
    if (before === sysctl.value) continue;
    if (isDryRun) process.stdout.write(`sysctl -w ${sysctl.name}='${sysctl.value}'\n`);
    else if (!set(sysctl, before)) failures++;
  }
  return failures === 0 ? 0 : 1;
}

function set(sysctl: Sysctl, before: string | null): boolean {
  const { name, value, need } = sysctl;
  try {
    writeSysctl(sysctl);
    process.stdout.write(`${name} = ${value} (was ${before})\n`);
    return true;
  } catch (error) {
    const { code } = error as { code?: string };
    process.stderr.write(
      `${name} is ${before}, ${need} is ${value}: ${code}; run this in a privileged init container\n`,
    );
    return false;
  }
}
