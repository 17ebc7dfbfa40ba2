// The control plane: reads settings, wires the rooms, minds signals. What it does is in src/control/reconcile.ts.
import { mkdtempSync, rmSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Log, Reconciler, unpublish } from "#control";
import type { Configuration } from "#model";
import { type ConfigurationFile, followConfiguration, formatRefusal, type NspUpdate } from "#nsp";
import { Steering } from "#steering";
import { CounterFile, ensureFlows } from "#tables";
import { DataPlane } from "./stateless-lb/data-plane.js";
import { startEmbeddedNsp } from "./stateless-lb/embedded-nsp.js";
import { InstanceState } from "./stateless-lb/instance-state.js";
import { createLog } from "./stateless-lb/log.js";
import { metricSources } from "./stateless-lb/metrics/sources.js";
import { runNsp } from "./stateless-lb/nsp-command.js";
import { startPublicServices } from "./stateless-lb/public-services.js";
import { StartError, servedBy } from "./stateless-lb/served-by.js";
import { describeVariables, readSettings, type Settings, SettingsError } from "./stateless-lb/settings.js";

const FLOWS = "nfqlb-flows";
const COUNTERS = "nfqlb-counters";
/** Refused objects that get a line of their own per update; an NSP may send thousands of bad ones. */
const MAX_REFUSALS_LOGGED = 100;
/** So many characters of the service's name begin the names of its interfaces. */
const INTERFACE_PREFIX_LENGTH = 10;
/** As often as Meridio verifies its targets. */
const VERIFY_INTERVAL_MS = 10_000;
/** How long `--dry-run` waits for the configuration. */
const DRY_RUN_DEADLINE_MS = 10_000;

const HELP = `stateless-lb: control plane of a stateless layer-4 load balancer

It learns VIPs, flows, streams and targets from an NSP service, programs rules, routes and nftables, publishes lookup
tables, and keeps the data plane (nfqlb) running.

Usage: stateless-lb [--config FILE] [--dry-run]
       stateless-lb nsp …   an NSP server, or a client of one: see stateless-lb nsp --help

Options:
  --config FILE  run alone: serve the configuration of FILE (YAML) from an embedded NSP; no mesh, no frontend
  --dry-run      print what would be done, as ip and nft commands, and change nothing
  --version      print the version
  --help         this text

Exit codes: 0 orderly end, 1 failed start or internal failure, 2 faulty setting or option.
Signals: SIGTERM, SIGINT, SIGQUIT end it in order, a second one at once; SIGHUP reads the file of --config again.

Environment variables (name, type, default, meaning):
${describeVariables()}`;

type Options = { readonly config: string | undefined; readonly isDryRun: boolean };

/** Where the configuration comes from. */
type Source = {
  readonly address: string;
  readonly trench: string;
  readonly conduit: string;
  /** Where what the NSP says is saved for a start without it; null where that needs no saving. */
  readonly stateFolder: string | null;
  readonly reload: () => void;
  readonly close: () => Promise<void>;
};

async function main(): Promise<number> {
  if (process.argv[2] === "nsp") return await runNsp(process.argv.slice(3), readSettings(process.env));
  const options = readOptions();
  if (typeof options === "number") return options;
  const settings = readSettings(process.env);
  const log = createLog(settings.logLevel, process.stdout);
  const ending = new AbortController();
  using steering = new Steering();
  const source = options.config === undefined ? meshSource(settings) : await fileSource(options.config, settings, log);
  ensureFlows(settings.shmFolder, FLOWS);
  const state = new InstanceState(options.config === undefined ? hostname() : null);
  const late = { wake: () => {}, refresh: () => {} }; // of what is made further down
  const dataPlane = new DataPlane({
    program: settings.nfqlb || join(__dirname, "nfqlb"),
    folder: settings.shmFolder,
    queues: settings.queues,
    queueLength: settings.queueLength,
    log,
    onReady: () => late.wake(),
    onDown: () => {
      state.dataPlaneDied();
      late.refresh();
    },
  });
  const place = {
    folder: settings.shmFolder,
    flowsName: FLOWS,
    countOf: (slot: number) => countOf(settings.shmFolder, slot),
  };
  const reconciler = new Reconciler({
    steering,
    place,
    kernelPlace: {
      queue: { ...settings.queues, isFanout: settings.isFanout },
      targetInterfaces: targetInterfaces(settings, options.config !== undefined),
    },
    offsetStart: settings.offsetStart,
    isDataPlaneReady: () => dataPlane.isReady,
    verifyIntervalMs: VERIFY_INTERVAL_MS,
    log,
    onTurn: (turn) => {
      state.takeTurn(turn);
      late.refresh();
    },
  });
  if (options.isDryRun) {
    const configuration = await firstConfiguration(source, settings, log);
    process.stdout.write(
      reconciler
        .preview(configuration)
        .map((line) => `${line}\n`)
        .join(""),
    );
    await source.close();
    return 0;
  }
  const services = await startPublicServices({
    ...servedBy(settings, process.env, options.config !== undefined),
    hostName: hostname(),
    probeTimeoutMs: settings.probeTimeoutMs,
    state: () => state.serviceState(dataPlane.isReady),
    onProbe: (isAnswering) => {
      state.areSocketsAnswering = isAnswering;
    },
    sources: (health, isAvailable) =>
      metricSources({
        settings,
        place: { flowsName: FLOWS, countersName: COUNTERS, trench: source.trench, conduit: source.conduit },
        state,
        hits: () => steering.counters(),
        health,
        isAvailable,
      }),
    log,
  });
  late.refresh = services.refresh;
  late.wake = () => {
    reconciler.wake(0);
    services.refresh();
  };
  log.info("start", {
    version: process.env["BUILD_VERSION"],
    features: steering.features,
    nsp: source.address,
  });
  await dataPlane.start();
  reconciler.start();
  const following = follow(source, settings, log, ending.signal, {
    onUpdate: (update) => {
      state.takeUpdate(update);
      if (!update.changes.isEmpty) reconciler.configure(update.configuration);
      services.refresh();
    },
    onConnection: (isConnected) => {
      state.isNspConnected = isConnected;
      services.refresh();
    },
  });
  await Promise.race([untilSignal(source.reload, log), following]); // following ends before a signal only by a fault
  // In this order no packet is queued to nobody, and none that is queued loses its way.
  services.leave();
  ending.abort();
  reconciler.stop();
  const left = [...reconciler.releaseTraffic()];
  await dataPlane.stop();
  left.push(...reconciler.cleanUp());
  for (const { message } of left) log.error("not cleaned up", { error: message });
  unpublish(place);
  await following;
  await services.close();
  await source.close();
  log.info("end");
  return 0;
}

function readOptions(): Options | number {
  const { values } = parseArgs({
    options: {
      config: { type: "string" },
      "dry-run": { type: "boolean", default: false },
      version: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
    allowPositionals: true,
  });
  if (values.version) process.stdout.write(`${process.env["BUILD_VERSION"]}\n`);
  else if (values.help) process.stdout.write(HELP);
  else return { config: values.config, isDryRun: values["dry-run"] };
  return 0;
}

/**
 * How names of interfaces to targets begin; null: no reassembly in front of the data plane. Alone the program may share its
 * namespace with others, whose connection tracking it must not switch off, and the data plane can do without.
 */
function targetInterfaces({ interfacePrefix, serviceName }: Settings, isAlone: boolean): string | null {
  if (interfacePrefix !== "") return interfacePrefix;
  return isAlone || serviceName === "" ? null : serviceName.slice(0, INTERFACE_PREFIX_LENGTH);
}

/** The NSP of a mesh; needs what this version lacks unless settings say otherwise. */
function meshSource(settings: Settings): Source {
  const { isMeshEnabled, isNspInsecure, nspService, trenchName, conduitName, stateFolder, shmFolder } = settings;
  if (isMeshEnabled) {
    throw new StartError(
      "the mesh endpoint is not in this version: set NSM_MESH_ENABLED=false, or run alone with --config FILE",
    );
  }
  if (!isNspInsecure) {
    throw new StartError(
      "mTLS to the NSP is not in this version: set NSM_NSP_INSECURE=true for plain text, or run alone with --config FILE",
    );
  }
  return {
    address: nspService,
    trench: trenchName,
    conduit: conduitName,
    stateFolder: stateFolder === "off" ? null : stateFolder || shmFolder,
    reload: () => {},
    close: async () => {},
  };
}

/** An NSP of our own, fed by a file, on a private socket and the addresses that the file names. */
async function fileSource(path: string, { conduitName }: Settings, log: Log): Promise<Source> {
  const folder = mkdtempSync(join(tmpdir(), "stateless-lb-"));
  const removeFolder = () => rmSync(folder, { recursive: true, force: true });
  const address = `unix:${join(folder, "nsp.sock")}`;
  const { file, reload, close } = await startEmbeddedNsp({ path, listen: [address], log }).catch((error: unknown) => {
    removeFolder();
    throw error;
  });
  return {
    address,
    trench: file.configuration.trench!.name,
    conduit: chooseConduit(file, conduitName),
    stateFolder: null, // the file is there
    reload,
    close: async () => {
      await close();
      removeFolder();
    },
  };
}

function chooseConduit({ configuration }: ConfigurationFile, wanted: string): string {
  const names = configuration.conduits.map(({ name }) => name);
  return names.includes(wanted) ? wanted : names[0]!;
}

type FollowEvents = {
  readonly onUpdate: (update: NspUpdate) => void;
  readonly onConnection: (isConnected: boolean) => void;
};

/** Hands on everything that the NSP says anew, until `signal`. */
async function follow(
  source: Source,
  settings: Settings,
  log: Log,
  signal: AbortSignal,
  { onUpdate, onConnection }: FollowEvents,
): Promise<void> {
  const { maxBackoffMs, keepaliveMs, emptyGraceMs, doFlowsWithoutVipsMatchAll } = settings;
  const updates = followConfiguration({
    server: { address: source.address, security: "plain-text", maxBackoffMs, keepaliveMs },
    trench: source.trench,
    conduit: source.conduit,
    emptyGraceMs,
    doFlowsWithoutVipsMatchAll,
    state: source.stateFolder === null ? null : { folder: source.stateFolder, nowMs: Date.now },
    onConnection: (isConnected, reason) => {
      log.info(isConnected ? "NSP connected" : "NSP disconnected", reason === "" ? {} : { reason });
      onConnection(isConnected);
    },
    onWaiting: (what) => log.info("the NSP has not told everything yet", { waitingFor: what }),
    onStateFault: (error) => log.error("saved NSP state", { error }),
    signal,
  });
  let origin = "";
  for await (const update of updates) {
    for (const refusal of update.newRefusals.slice(0, MAX_REFUSALS_LOGGED))
      log.error("object refused", { reason: formatRefusal(refusal), ...refusal });
    const unsaid = update.newRefusals.length - MAX_REFUSALS_LOGGED;
    if (unsaid > 0) log.error("more objects refused", { count: unsaid });
    if (update.origin !== origin)
      log.info(`configuration from ${update.origin === "nsp" ? "the NSP" : "the saved state"}`);
    origin = update.origin;
    onUpdate(update);
  }
}

async function firstConfiguration(source: Source, settings: Settings, log: Log): Promise<Configuration> {
  const ending = new AbortController();
  try {
    return await new Promise<Configuration>((resolve, reject) => {
      const late = () =>
        reject(new StartError(`no configuration from ${source.address} in ${DRY_RUN_DEADLINE_MS / 1000} s`));
      setTimeout(late, DRY_RUN_DEADLINE_MS).unref();
      const quiet: Log = { ...log, info: () => {}, debug: () => {} };
      const events = { onUpdate: (update: NspUpdate) => resolve(update.configuration), onConnection: () => {} };
      follow({ ...source, stateFolder: null }, settings, quiet, ending.signal, events).catch(reject);
    });
  } finally {
    ending.abort();
  }
}

/** Resolves with the first signal that asks for an end; the second one ends at once. */
function untilSignal(reload: () => void, log: Log): Promise<void> {
  process.on("SIGHUP", reload);
  for (const ignored of ["SIGUSR1", "SIGUSR2"] as const) process.on(ignored, () => {});
  return new Promise((resolve) => {
    let isEnding = false;
    for (const name of ["SIGTERM", "SIGINT", "SIGQUIT"] as const) {
      process.on(name, () => {
        if (isEnding) process.exit(1);
        isEnding = true;
        log.info("ending", { signal: name });
        resolve();
      });
    }
  });
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

/** One line for people, and the exit code. */
function explainFailure(error: unknown): { readonly line: string; readonly code: number } {
  const { code, message, stack } = error as { code?: string; message: string; stack?: string };
  if (error instanceof SettingsError) return { line: message, code: 2 };
  if (code?.startsWith("ERR_PARSE_ARGS") === true) return { line: `${message}; see --help`, code: 2 };
  if (message.includes("EPERM"))
    return { line: `${message}: CAP_NET_ADMIN is needed (run as root, or grant it)`, code: 1 };
  const isExpected =
    error instanceof StartError || (code?.startsWith("ERR_") === true && !code.startsWith("ERR_INVALID"));
  return { line: isExpected ? message : (stack ?? message), code: 1 };
}

process.stdout.on("error", () => {}); // a log reader that went away must not end the service
process.stderr.on("error", () => {});
main().then(
  (code) => process.exit(code),
  (error: unknown) => {
    const { line, code } = explainFailure(error);
    process.stderr.write(`stateless-lb: ${line}\n`);
    process.exit(code);
  },
);
