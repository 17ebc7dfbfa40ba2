import { shmFolder } from "../nfqlb/command.js";
import { readNetwork } from "./debug-network.js";
import { readNftables } from "./debug-nftables.js";
import { readSystem } from "./debug-system.js";
import { maskVariable } from "./secrets.js";
import { readSituation } from "./situation.js";
import type { StatusDocument } from "./status-document.js";

/** Version of the document's structure; keys are only ever added at the end. */
const STRUCTURE = "v0.0.1";

/** `--debug`: one line of JSON. Returns the exit code. */
export function printDebug(env: NodeJS.ProcessEnv): number {
  process.stdout.write(`${JSON.stringify(readDebug(env, new Date()))}\n`);
  return 0;
}

/** The reference's document in its order, and ours behind it. */
function readDebug(env: NodeJS.ProcessEnv, now: Date): object {
  const network = readNetwork();
  const { controlPlane, dataPlane, targets } = readSituation(shmFolder(env));
  const { document } = controlPlane;
  return {
    version: STRUCTURE,
    "meridio-version": process.env["BUILD_VERSION"] ?? "(unknown)",
    "unix-time": Math.floor(now.getTime() / 1_000),
    "network-interfaces": network.interfaces,
    rules: network.rules,
    route: network.routes,
    neighbors: network.neighbors,
    system: readSystem(),
    "environment-variables": Object.entries(env).map(([name, value]) => `${name}=${maskVariable(name, value ?? "")}`),
    "policy-tables": network.policyTables,
    nftables: readNftables(),
    streams: document?.streams ?? null,
    flows: document?.flows ?? null,
    vips: document?.vips ?? null,
    targets: targets.map(({ paths, ...target }) => ({
      ...target,
      paths: paths.map(({ address, verdict, reason }) => ({ address, verdict, reason })),
    })),
    "control-plane": document === null ? controlPlane : { ...controlPlane, document: summary(document) },
    "data-plane": dataPlane,
  };
}

/** What of the document stands nowhere else. */
function summary(document: StatusDocument): object {
  const { program, pid, startedAt, writtenAt, phase, failure, source, nsp } = document;
  const { refusals, lastTurn, isServed, faults, waitingFor, isFrontendAnnounced, refusedFlows, isAvailable } = document;
  const first = {
    program,
    pid,
    startedAt,
    writtenAt,
    phase,
    failure,
    source,
    nsp,
    refusals,
    lastTurn,
    isServed,
    faults,
  };
  return { ...first, waitingFor, isFrontendAnnounced, refusedFlows, isAvailable };
}
