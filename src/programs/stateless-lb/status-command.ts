import { hostname } from "node:os";
import { shmFolder } from "../nfqlb/command.js";
import { type FlagSpec, formatUsage, parseFlags } from "./go-flags.js";
import { readSituation } from "./situation.js";
import { formatStatus } from "./status-screen.js";

const PROGRAM = "stateless-lb status";
const FLAGS: readonly FlagSpec[] = [
  { name: "json", kind: "bool", help: "everything, as one JSON document" },
  { name: "help", kind: "bool", help: "this text" },
];

/** `stateless-lb status`. Exit code 0: everything works, 1: something does not. */
export function runStatus(args: readonly string[], env: NodeJS.ProcessEnv): number {
  const { values } = parseFlags(PROGRAM, FLAGS, args);
  if (values.get("help") === "true") {
    process.stdout.write(formatUsage(PROGRAM, FLAGS));
    return 0;
  }
  const situation = readSituation(shmFolder(env));
  const { text, isWell } = formatStatus(situation, hostname(), new Date());
  process.stdout.write(values.get("json") === "true" ? `${toJson({ isWell, ...situation })}\n` : text);
  return isWell ? 0 : 1;
}

/** Addresses of the kernel are bytes; JSON has them as text already beside them. */
function toJson(value: unknown): string {
  return JSON.stringify(value, (_key, one: unknown) =>
    one instanceof Uint8Array ? Buffer.from(one).toString("hex") : one,
  );
}
