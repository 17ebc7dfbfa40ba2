import { checkHealth, RpcError } from "#rpc";
import { FlagError, type FlagSpec, formatUsage, parseFlags } from "./go-flags.js";
import { readSettings } from "./settings.js";
import { parseDuration, toListenAddress } from "./values.js";

const PROGRAM = "stateless-lb health";
/** What the program may also be called: then it takes the place of the probe that Meridio's operator has pods exec. */
export const PROBE_NAME = "grpc_health_probe";
const FLAGS: readonly FlagSpec[] = [
  { name: "addr", kind: "string", value: "ADDRESS", help: "unix:///path or host:port (default: NSM_HEALTH_SOCKET)" },
  { name: "service", kind: "string", value: "NAME", help: "for example Readiness (default: the process itself)" },
  { name: "connect-timeout", kind: "string", value: "DURATION", help: "for the connection (default 1s)" },
  { name: "rpc-timeout", kind: "string", value: "DURATION", help: "for the answer (default 1s)" },
  { name: "help", kind: "bool", help: "this text" },
];

/** Exit codes of grpc_health_probe 0.4.38. */
const EXIT = { serving: 0, unreachable: 2, failed: 3, notServing: 4 } as const;

/** `stateless-lb health`: asks a gRPC health service once, for probes of a pod. */
export async function runHealth(args: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const { values } = parseFlags(PROGRAM, FLAGS, args);
  if (values.get("help") === "true") {
    process.stdout.write(formatUsage(PROGRAM, FLAGS));
    return 0;
  }
  const address = values.get("addr") ?? read("NSM_HEALTH_SOCKET", readSettings(env).healthSocket, toListenAddress);
  if (address === "") throw new FlagError("NSM_HEALTH_SOCKET is empty, so nothing is served there: -addr ADDRESS");
  const timeoutMs = (flag: string) => read(`-${flag}`, values.get(flag) ?? "1s", parseDuration);
  const deadlineMs = timeoutMs("connect-timeout") + timeoutMs("rpc-timeout");
  const server = { address, security: "plain-text", isPatient: false } as const;
  try {
    const status = await checkHealth(server, values.get("service") ?? "", { deadlineMs });
    process.stdout.write(`status: ${status}\n`);
    return status === "SERVING" ? EXIT.serving : EXIT.notServing;
  } catch (error) {
    if (!(error instanceof RpcError)) throw error;
    process.stderr.write(`${address}: ${error.details || error.status}\n`);
    return error.status === "UNAVAILABLE" ? EXIT.unreachable : EXIT.failed;
  }
}

/** @throws {FlagError} */
function read<T>(name: string, text: string, parse: (text: string) => T): T {
  try {
    return parse(text);
  } catch (error) {
    throw new FlagError(`${name} ${text}: ${(error as Error).message}`);
  }
}
