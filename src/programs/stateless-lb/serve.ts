import { hostname } from "node:os";
import { join } from "node:path";
import { Reconciler, servingStreams, unpublish } from "#control";
import { formatRefusal } from "#nsp";
import { type Hits, Steering } from "#steering";
import { CounterFile, ensureFlows } from "#tables";
import { SettledMemory } from "../settled-memory.js";
import { ControlLock, holderOf, NetworkLock, networkHolder } from "./control-lock.js";
import { DataPlane } from "./data-plane.js";
import { explainFailure, StartError } from "./failure.js";
import { InstanceState } from "./instance-state.js";
import type { ProgramLog } from "./log.js";
import { metricSources } from "./metrics/sources.js";
import { startPublicServices } from "./public-services.js";
import { servedBy } from "./served-by.js";
import type { Settings } from "./settings.js";
import type { Signals } from "./signals.js";
import { fileConfiguration, fileSource, firstConfiguration, follow, meshSource, type Source } from "./source.js";
import type { StatusContent } from "./status-document.js";
import { contentOf, StatusWriter } from "./status-writer.js";
import { targetInterfaces } from "./target-interfaces.js";

const FLOWS = "nfqlb-flows";
const COUNTERS = "nfqlb-counters";
/** As often as Meridio verifies its targets. */
const VERIFY_INTERVAL_MS = 10_000;

export type ServeOptions = {
  readonly settings: Settings;
  /** Configuration file of an embedded NSP. */
  readonly config: string | undefined;
  readonly isDryRun: boolean;
  readonly log: ProgramLog;
  readonly signals: Signals;
};

/** The control plane from start to orderly end, or what it would do. Returns the exit code. */
export async function serve({ settings, config, isDryRun, log, signals }: ServeOptions): Promise<number> {
  using steering = new Steering();
  if (isDryRun) {
    await preview(config, settings, steering, log);
    return 0;
  }
  const source = config === undefined ? meshSource(settings) : await fileSource(config, settings, log);
  try {
    await run(source, settings, steering, log, signals);
    return signals.exitCode;
  } finally {
    await source.close();
  }
}

async function preview(
  config: string | undefined,
  settings: Settings,
  steering: Steering,
  log: ProgramLog,
): Promise<void> {
  const configuration =
    config === undefined
      ? await firstConfiguration(meshSource(settings), settings, log)
      : fileConfiguration(config, settings, log);
  const reconciler = new Reconciler({
    ...commonOptions(settings, steering, log, config !== undefined),
    isDataPlaneReady: () => false,
  });
  const lines = reconciler.preview(configuration);
  process.stdout.write(lines.map((line) => `${line}\n`).join(""));
}

function commonOptions(settings: Settings, steering: Steering, log: ProgramLog, isAlone: boolean) {
  const { shmFolder, queues, isFanout, offsetStart, isOffsetByName, probeIntervalMs } = settings;
  const place = { folder: shmFolder, flowsName: FLOWS, countOf: (slot: number) => countOf(shmFolder, slot) };
  const kernelPlace = { queue: { ...queues, isFanout }, targetInterfaces: reassembledInterfaces(settings, isAlone) };
  return {
    steering,
    place,
    kernelPlace,
    offsetPlacement: { start: offsetStart, isByName: isOffsetByName },
    verifyIntervalMs: VERIFY_INTERVAL_MS,
    probeIntervalMs,
    ownInterfaces: settings.doManageInterfaces ? targetInterfaces(settings) : null,
    nowMs: () => performance.now(),
    log,
  };
}

/**
 * How names of interfaces begin whose fragments come as they are; null: no reassembly in front of the data plane. Alone the
 * program may share its namespace with others, whose connection tracking it must not switch off, and the data plane can do
 * without.
 */
function reassembledInterfaces(settings: Settings, isAlone: boolean): string | null {
  return isAlone && settings.interfacePrefix === "" ? null : targetInterfaces(settings);
}

/** Takes the locks, and sees to it that the last word is written, whatever happens. */
async function run(
  source: Source,
  settings: Settings,
  steering: Steering,
  log: ProgramLog,
  signals: Signals,
): Promise<void> {
  const { shmFolder } = settings;
  using lock = takeLock(shmFolder);
  using _networkLock = takeNetworkLock();
  const status = new StatusWriter(shmFolder, firstStatus(source), (fault) => {
    lock.tell(fault);
    if (fault !== "") log.error("status cannot be written", { error: fault });
  });
  try {
    await work(source, settings, steering, log, signals, status);
    status.end(signals.failure);
  } catch (error) {
    status.end(explainFailure(error).text.split("\n")[0]!);
    throw error;
  }
  log.info("end");
}

async function work(
  source: Source,
  settings: Settings,
  steering: Steering,
  log: ProgramLog,
  signals: Signals,
  status: StatusWriter,
): Promise<void> {
  const { shmFolder } = settings;
  const told = signals.untilEnd(source.reload);
  const isAlone = source.file !== null;
  // The file says what there is; an NSP may have been started just now, as we were.
  const leftInForce = isAlone ? source.leftInForce : servingStreams(shmFolder);
  source.onFileFault((fileFault) => status.update({ source: { ...firstStatus(source).source, fileFault } }));
  ensureFlows(shmFolder, FLOWS);
  // Of what is made further down.
  const late = { control: null as Reconciler | null, wake: () => {}, refresh: () => {}, prepare: async () => {} };
  const state = new InstanceState(placeOf(source), isAlone ? null : hostname(), () => late.control);
  const dataPlane = new DataPlane({
    program: settings.nfqlb || join(__dirname, "nfqlb"),
    folder: shmFolder,
    queues: settings.queues,
    queueLength: settings.queueLength,
    log,
    onReady: () => late.wake(),
    onHang: () => late.wake(),
    onDown: () => {
      state.dataPlaneDied();
      late.refresh();
    },
    onGiveUp: (cause) => signals.fail(`the data plane keeps dying: ${cause}`),
  });
  using memory = new SettledMemory({ isSlowToOptimize: true, prepare: () => late.prepare() });
  const options = commonOptions(settings, steering, log, source.file !== null);
  const reconciler = new Reconciler({
    ...options,
    isDataPlaneReady: () => dataPlane.isReady,
    onTurn: (turn) => {
      const at = new Date();
      status.update({}, () => contentOf(reconciler.status(), turn, at));
      state.takeTurn(turn);
      if (turn.kernelSteps > 0) memory.stir();
      late.refresh();
    },
  });
  late.control = reconciler;
  const hits = new Map<number, Hits>();
  const services = await startPublicServices({
    ...servedBy(settings, process.env, isAlone),
    hostName: hostname(),
    probeTimeoutMs: settings.probeTimeoutMs,
    state: () => state.serviceState(dataPlane.isReady),
    onProbe: (isAnswering) => {
      state.areSocketsAnswering = isAnswering;
    },
    onAvailability: (isAvailable) => status.update({ isAvailable }),
    sources: (health, isAvailable) =>
      metricSources({
        folder: shmFolder,
        interfacePrefix: targetInterfaces(settings),
        place: { flowsName: FLOWS, countersName: COUNTERS, trench: source.trench, conduit: source.conduit },
        state,
        hits: () => steering.counters(hits),
        health,
        isAvailable,
      }),
    log,
  });
  late.refresh = services.refresh;
  late.prepare = services.prepare;
  late.wake = () => {
    reconciler.wake(0);
    services.refresh();
  };
  log.info("start", {
    version: process.env["BUILD_VERSION"],
    features: steering.features,
    nsp: source.address,
  });
  const ending = new AbortController();
  let nspSince: string | null = null;
  await Promise.race([dataPlane.start(), told]); // it may wait for one that somebody else has just started
  reconciler.start();
  const following = follow({ ...source, leftInForce }, settings, log, ending.signal, {
    onUpdate: (update) => {
      const configurationFrom = update.origin === "nsp" ? "nsp" : "saved state";
      status.update({ configurationFrom, waitingFor: [], refusals: update.refusals.map(formatRefusal) });
      state.takeUpdate(update);
      memory.stir();
      reconciler.configure(update.configuration, state.isFrontendAnnounced);
      services.refresh();
    },
    onConnection: (isConnected, reason) => {
      if (isConnected !== state.isNspConnected || nspSince === null) nspSince = new Date().toISOString();
      status.update({ nsp: { isConnected, since: nspSince, reason } });
      state.isNspConnected = isConnected;
      services.refresh();
    },
    onWaiting: (waitingFor) => status.update({ waitingFor }),
  });
  await Promise.race([told, following]); // following ends before a signal only by a fault
  // In this order nobody sends packets to us any more, none is queued to nobody, and none that is queued loses its way.
  const { isAvailable } = reconciler.status();
  reconciler.announceStop();
  services.leave();
  status.update({}); // it ends
  if (!isAlone && isAvailable) await signals.wait(settings.drainMs);
  ending.abort();
  reconciler.stop();
  const left = [...reconciler.releaseTraffic()];
  await dataPlane.stop();
  left.push(...reconciler.cleanUp());
  for (const { message } of left) log.error("not cleaned up", { error: message });
  unpublish(options.place);
  await following;
  await services.close();
}

const placeOf = ({ trench, conduit }: Source) => ({ trench, conduit });

/** @throws {StartError} another control plane works on the folder, or it cannot be used */
function takeLock(folder: string): ControlLock {
  let lock: ControlLock | null;
  try {
    lock = ControlLock.take(folder);
  } catch (error) {
    throw new StartError(`NFQLB_SHM_DIR: ${(error as Error).message}`);
  }
  if (lock !== null) return lock;
  throw new StartError(
    `another stateless-lb (pid ${holderOf(folder)}) works on ${folder}: end it; one in another network namespace needs a folder of its own (NFQLB_SHM_DIR)`,
  );
}

/** @throws {StartError} another control plane works in this network namespace */
function takeNetworkLock(): NetworkLock {
  const lock = NetworkLock.take();
  if (lock !== null) return lock;
  throw new StartError(
    `@stateless-lb, the lock of this network namespace, is held by ${networkHolder() ?? "nobody any more"}: is it another stateless-lb? End it, or run this one in a network namespace of its own`,
  );
}

function firstStatus({ address, trench, conduit, file }: Source): StatusContent {
  return {
    program: process.env["BUILD_VERSION"] ?? "(unknown)",
    pid: process.pid,
    startedAt: new Date().toISOString(),
    phase: "starting",
    failure: null,
    source: { address, trench, conduit, file, fileFault: "" },
    nsp: { isConnected: false, since: null, reason: "" },
    waitingFor: [],
    refusals: [],
    lastTurn: null,
    repairs: { count: 0, last: null, storms: [] },
    configurationFrom: null,
    isFrontendAnnounced: null,
    isServed: false,
    isAvailable: false,
    faults: [],
    vips: [],
    streams: [],
    flows: [],
    refusedFlows: [],
    targets: [],
  };
}

/** What the data plane counted for a rule; 0 before its first start. */
function countOf(folder: string, slot: number): number {
  try {
    using counters = CounterFile.open(folder, COUNTERS);
    return counters.sumRule(slot);
  } catch (error) {
    if ((error as { code?: string }).code === "ENOENT") return 0;
    throw error;
  }
}
