import { setTimeout as delay } from "node:timers/promises";
import { NetlinkError } from "#netlink";
import { readQueueStates } from "#netlink/queue";
import { RouteConnection, tellsFailure, watchRoutes } from "#netlink/route";
import { networkHolder } from "./control-lock.js";
import { advice, type Check, fault, ok, unknown } from "./doctor-check.js";
import { checkRights } from "./doctor-host.js";
import { checkNeighborTables } from "./doctor-neighbors.js";
import { neighborText, type Path, PathFinder } from "./reachability.js";
import { isCurrent, SEE_HIDDEN, type Situation, type TargetSituation } from "./situation.js";
import { waitingText } from "./status-screen.js";
import { readSysctl } from "./sysctls.js";

/** The kernel asks a silent neighbor three times, a second apart, before it gives it up. */
const PROOF_DEADLINE_MS = 4_000;
const PROOF_POLL_MS = 50;
/** Healthy targets are not listed one by one beyond this. */
const FEW_TARGETS = 20;

/** Control plane, data plane, queues, NSP, and every target by its own mark. */
export async function checkService(situation: Situation): Promise<readonly Check[]> {
  const { controlPlane, targets } = situation;
  if (controlPlane.state === "hidden")
    return [unknown("control plane, data plane, targets", controlPlane.problem, SEE_HIDDEN)];
  const { document } = controlPlane;
  return [
    checkControlPlane(situation),
    ...(controlPlane.state === "running" && document !== null
      ? [checkRights("rights of the control plane", String(document.pid)), checkNsp(situation)]
      : []),
    ...checkDataPlane(situation),
    ...checkNeighborTables(
      targets.flatMap(({ addresses }) => addresses),
      readSysctl,
    ),
    ...(await checkTargets(targets, document?.vips ?? [])),
  ];
}

function checkControlPlane({ controlPlane: { state, since, document, problem, unwritten } }: Situation): Check {
  const what = "control plane";
  if (problem !== "") return fault(what, problem, "restart stateless-lb");
  if (state === "running" && unwritten !== "") {
    const old = document === null ? "" : `; what it told is of ${document.writtenAt}`;
    return fault(what, `it cannot write its status (${unwritten})${old}`, "it tries every second: look at its folder");
  }
  if (state === "running" && document !== null) {
    const error = document.lastTurn?.error ?? null;
    if (error !== null) return fault(what, `its last turn broke off: ${error}`, "see its log");
    return ok(what, `pid ${document.pid}, since ${document.startedAt}`);
  }
  if (state === "hanging") {
    const pid = document === null ? "" : `pid ${document.pid}, `;
    return fault(what, `${pid}hangs, last sign of life ${since}`, "is it stopped? End it, and start another");
  }
  const found = state === "never seen" ? "none has worked on this folder" : `${state} since ${since}`;
  const holder = networkHolder();
  const mend = "start stateless-lb; NFQLB_SHM_DIR has to be the same here and there";
  if (holder === null) return fault(what, found, mend);
  const obstacle = `@stateless-lb, the lock of this network namespace, is held by ${holder}`;
  return fault(what, `${found}; ${obstacle}`, `end that process unless it is a stateless-lb that shall run; ${mend}`);
}

function checkNsp(situation: Situation): Check {
  const { nsp, source, writtenAt } = situation.controlPlane.document!;
  if (!isCurrent(situation)) return unknown("NSP", `nothing was told of it since ${writtenAt}`, "");
  if (nsp.isConnected) return ok("NSP", `${source.address}, connected since ${nsp.since}`);
  const mend = `is ${source.address} right (NSM_NSP_SERVICE), does its name resolve, does it listen, plain text or mTLS?`;
  return fault("NSP", nsp.reason === "" ? "not connected" : nsp.reason, mend);
}

function checkDataPlane({ dataPlane }: Situation): readonly Check[] {
  const what = "data plane";
  if (dataPlane === null) return [fault(what, "none runs", "the control plane starts one: see its log")];
  const { pid, isReady, isHanging, queues } = dataPlane;
  const rights = checkRights("rights of the data plane", String(pid));
  if (!isReady) return [fault(what, `pid ${pid} does not serve its queues yet`, "see its log"), rights];
  if (isHanging) {
    const mend = `the control plane kills one that hangs, unless a debugger holds it; else: kill -KILL ${pid}`;
    return [fault(what, `pid ${pid} hangs, ${waitingText(queues)}`, mend), rights];
  }
  const bound = readQueueStates();
  const unbound = bound === null ? [] : queues.filter(({ queue }) => !bound.has(queue));
  if (unbound.length > 0) {
    const names = unbound.map(({ queue }) => queue).join(", ");
    return [fault(what, `nobody listens on queue ${names} here`, "is doctor in its network namespace?"), rights];
  }
  const lost = queues.reduce((sum, { queueFull, bufferFull }) => sum + queueFull + bufferFull, 0);
  const loss = "more queues (NSM_NFQUEUE), longer ones (NSM_NFQUEUE_LENGTH), more CPU; nfqlb top shows which";
  const found = `pid ${pid}, ${queues.length} queues`;
  const counting =
    bound === null || Number.isNaN(lost)
      ? [
          advice(
            "losses in full queues",
            "not counted for this user",
            "group 0 for the container: supplementalGroups: [0]",
          ),
        ]
      : [];
  const served = lost > 0 ? advice(what, `${found}, ${lost} packets lost in full queues`, loss) : ok(what, found);
  return [served, rights, ...counting];
}

/** Each target's way by its own mark; a neighbor that has been silent for long, or was given up, is asked now. */
async function checkTargets(targets: readonly TargetSituation[], vips: readonly string[]): Promise<readonly Check[]> {
  if (targets.length === 0) return [];
  const proven = await prove(
    targets.flatMap(({ paths }) => paths),
    vips,
  );
  const checks = targets.flatMap((target) =>
    target.paths.length === 0
      ? [unknown(`target ${target.identifier} of ${target.stream}`, target.reason || "the kernel cannot be asked", "")]
      : target.paths.map((path) => checkPath(target, proven.get(keyOf(path)) ?? path)),
  );
  const well = checks.filter(({ verdict }) => verdict === "ok");
  if (well.length <= FEW_TARGETS) return checks;
  return [
    ok("targets", `${well.length} addresses reachable by their marks`),
    ...checks.filter(({ verdict }) => verdict !== "ok"),
  ];
}

function checkPath({ stream, identifier, state, reason }: TargetSituation, path: Path): Check {
  const what = `target ${identifier} of ${stream}, ${path.address}, mark ${path.fwmark}`;
  if (path.verdict === "broken") return fault(what, path.reason, path.mend);
  if (path.verdict === "unproven") return unknown(what, path.reason, "CAP_NET_ADMIN lets doctor ask the neighbor");
  if (state === "pending") return fault(what, `reachable (${path.reason}), but pending: ${reason}`, "see the log");
  return ok(what, path.reason);
}

const keyOf = ({ fwmark, address }: Path) => `${fwmark} ${address}`;

/** Has the kernel ask the neighbors that are not known to answer, and gives what came of it, by path. */
async function prove(paths: readonly Path[], vips: readonly string[]): Promise<ReadonlyMap<string, Path>> {
  using route = new RouteConnection();
  let open = paths.filter(({ neighbor }) => neighbor !== null);
  const settled = new Map<string, Path>();
  try {
    route.probeNeighbors(open.map(({ neighbor }) => neighbor!));
  } catch (error) {
    if (error instanceof NetlinkError && error.errno === "EPERM") return settled;
    throw error;
  }
  // The control plane has the kernel ask again at once, so that a neighbor is "failed" for a moment only.
  const failedLately = new Set<string>();
  const unwatch = watchRoutes(["neighbor"], (event) => {
    if (event.kind !== "neighbor" || !tellsFailure(event.neighbor.state)) return;
    failedLately.add(neighborText(event.neighbor));
  });
  const endMs = performance.now() + PROOF_DEADLINE_MS;
  while (open.length > 0 && performance.now() < endMs) {
    await delay(PROOF_POLL_MS);
    const finder = new PathFinder(route, vips, failedLately);
    open = open.filter((path) => {
      const now = finder.find(path.address, path.fwmark);
      settled.set(keyOf(path), now);
      return now.verdict === "unproven";
    });
  }
  unwatch();
  return settled;
}
