import { shmFolder } from "../nfqlb/command.js";
import type { Check } from "./doctor-check.js";
import { checkHost } from "./doctor-host.js";
import { checkKernel } from "./doctor-kernel.js";
import { checkService } from "./doctor-service.js";
import { type FlagSpec, formatUsage, parseFlags } from "./go-flags.js";
import { printable } from "./printable.js";
import { readSituation } from "./situation.js";

const PROGRAM = "stateless-lb doctor";
const FLAGS: readonly FlagSpec[] = [
  { name: "json", kind: "bool", help: "a list of { what, verdict, found, mend } as JSON" },
  { name: "help", kind: "bool", help: "this text" },
];

/** `stateless-lb doctor`. Exit code 0: no fault was found, 1: there are some. */
export async function runDoctor(args: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const { values } = parseFlags(PROGRAM, FLAGS, args);
  if (values.get("help") === "true") {
    process.stdout.write(formatUsage(PROGRAM, FLAGS));
    return 0;
  }
  const folder = shmFolder(env);
  const checks = [...checkHost(folder, env), ...checkKernel(), ...(await checkService(readSituation(folder)))];
  process.stdout.write(values.get("json") === "true" ? `${JSON.stringify(checks)}\n` : printable(formatChecks(checks)));
  return checks.some(({ verdict }) => verdict === "fault") ? 1 : 0;
}

/** A line per check, behind what is wrong how it can be mended, and the sum. */
function formatChecks(checks: readonly Check[]): string {
  const lines = checks.map(({ what, verdict, found, mend }) => {
    const head = `${verdict === "fault" ? "FAULT" : verdict}`.padEnd(8);
    return `${head}${what}: ${found}\n${mend === "" ? "" : `        mend: ${mend}\n`}`;
  });
  const count = (wanted: Check["verdict"]) => checks.filter(({ verdict }) => verdict === wanted).length;
  return `${lines.join("")}\n${count("fault")} faults, ${count("advice")} pieces of advice, ${count("unknown")} not seen, ${count("ok")} ok\n`;
}
