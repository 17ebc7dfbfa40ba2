import { join } from "node:path";
import type { Log } from "#control";
import type { Configuration } from "#model";
import {
  type ConfigurationFile,
  configurationOf,
  followConfiguration,
  formatRefusal,
  loadConfigurationFile,
  type NspUpdate,
  type Refusal,
} from "#nsp";
import { startEmbeddedNsp } from "./embedded-nsp.js";
import { StartError } from "./failure.js";
import { PrivateFolder } from "./private-folder.js";
import type { Settings } from "./settings.js";
import { toServerAddress } from "./values.js";

/** How long `--dry-run` waits for the configuration. */
const DRY_RUN_DEADLINE_MS = 10_000;
/** Refused objects that get a line of their own per update; an NSP may send thousands of bad ones. */
const MAX_REFUSALS_LOGGED = 100;

/** Where the configuration comes from. */
export type Source = {
  readonly address: string;
  readonly trench: string;
  readonly conduit: string;
  /** Where what the NSP says is saved for a start without it; null where that needs no saving. */
  readonly stateFolder: string | null;
  /** Streams of an earlier run whose tables have targets; of them the NSP may know nothing yet. */
  readonly leftInForce: ReadonlySet<string>;
  /** Configuration file, or null. */
  readonly file: string | null;
  /** Reads the file again; null where there is none. */
  readonly reload: (() => void) | null;
  /** Has changes told of why the file as it is now is not in force; "": it is. */
  readonly onFileFault: (tell: (fault: string) => void) => void;
  readonly close: () => Promise<void>;
};

/** The NSP of a mesh; needs what this version lacks unless settings say otherwise. */
export function meshSource(settings: Settings): Source {
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
    address: toServerAddress(nspService),
    trench: trenchName,
    conduit: conduitName,
    stateFolder: stateFolder === "off" ? null : stateFolder || shmFolder,
    leftInForce: new Set(),
    file: null,
    reload: null,
    onFileFault: () => {},
    close: async () => {},
  };
}

/** An NSP of our own, fed by a file, on a private socket and the addresses that the file names. */
export async function fileSource(path: string, { conduitName }: Settings, log: Log): Promise<Source> {
  const folder = new PrivateFolder();
  const address = `unix:${join(folder.path, "nsp.sock")}`;
  const place = { trench: "", conduit: "" }; // of the start: interfaces, metrics and watches go by it
  let tellFault: (fault: string) => void = () => {};
  const { file, reload, close } = await startEmbeddedNsp({
    path,
    listen: [address],
    needsRestart: (now) => needsRestart(now, place),
    onFileFault: (fault) => tellFault(fault),
    log,
  }).catch((error: unknown) => {
    folder[Symbol.dispose]();
    throw error;
  });
  place.trench = file.configuration.trench!.name;
  place.conduit = chooseConduit(file, conduitName);
  return {
    address,
    ...place,
    stateFolder: null, // the file is there
    leftInForce: new Set(),
    file: path,
    reload,
    onFileFault: (tell) => {
      tellFault = tell;
    },
    close: async () => {
      await close();
      folder[Symbol.dispose]();
    },
  };
}

/** Taken as it is, a file with other names would take everything away: what is served is asked for by its name. */
function needsRestart(
  { configuration }: ConfigurationFile,
  { trench, conduit }: { readonly trench: string; readonly conduit: string },
): string | null {
  const name = configuration.trench!.name;
  if (name !== trench) return `needs a restart: trench ${trench} is served, the file has trench ${name}`;
  const names = configuration.conduits.map((one) => one.name);
  if (names.includes(conduit)) return null;
  return `needs a restart: conduit ${conduit} is served, the file has ${names.join(", ")}`;
}

function chooseConduit({ configuration }: ConfigurationFile, wanted: string): string {
  const names = configuration.conduits.map(({ name }) => name);
  return names.includes(wanted) ? wanted : names[0]!;
}

/** What happens at the source besides the log. */
export type SourceEvents = {
  readonly onUpdate: (update: NspUpdate) => void;
  readonly onConnection: (isConnected: boolean, reason: string) => void;
  /** The NSP answers, but these lists are missing for a first configuration. */
  readonly onWaiting: (lists: readonly string[]) => void;
};

/** Hands on everything that the NSP says anew, until `signal`. */
export async function follow(
  source: Source,
  settings: Settings,
  log: Log,
  signal: AbortSignal,
  events: SourceEvents,
): Promise<void> {
  const { maxBackoffMs, keepaliveMs, emptyGraceMs, doFlowsWithoutVipsMatchAll } = settings;
  const updates = followConfiguration({
    server: { address: source.address, security: "plain-text", maxBackoffMs, keepaliveMs },
    trench: source.trench,
    conduit: source.conduit,
    emptyGraceMs,
    doFlowsWithoutVipsMatchAll,
    leftInForce: source.leftInForce,
    state: source.stateFolder === null ? null : { folder: source.stateFolder, nowMs: Date.now },
    onConnection: (isConnected, reason) => {
      const why = reason === "" ? {} : { reason };
      if (isConnected) log.info("NSP connected", why);
      else log.warning("NSP disconnected", why);
      events.onConnection(isConnected, reason);
    },
    onWaiting: (waitingFor) => {
      const { trench, conduit } = source;
      log.warning("the NSP has not told everything yet", { waitingFor, trench, conduit });
      events.onWaiting(waitingFor);
    },
    onStateFault: (error) => log.error("saved NSP state", { error }),
    signal,
  });
  let origin = "";
  for await (const update of updates) {
    logRefusals(update.newRefusals, log);
    if (update.origin !== origin)
      log.info(`configuration from ${update.origin === "nsp" ? "the NSP" : "the saved state"}`);
    origin = update.origin;
    const { streams, flows, vips, targets } = update.configuration;
    const counts = { streams: streams.length, flows: flows.length, vips: vips.length, targets: targets.length };
    log.trace("NSP tells", () => ({ origin: update.origin, ...counts }));
    events.onUpdate(update);
  }
}

function logRefusals(refusals: readonly Refusal[], log: Log): void {
  for (const refusal of refusals.slice(0, MAX_REFUSALS_LOGGED))
    log.error("object refused", { reason: formatRefusal(refusal), ...refusal });
  const unsaid = refusals.length - MAX_REFUSALS_LOGGED;
  if (unsaid > 0) log.error("more objects refused", { count: unsaid });
}

/** What a file says, for `--dry-run`: nothing is listened on, and no database opened. */
export function fileConfiguration(path: string, { conduitName }: Settings, log: Log): Configuration {
  const file = loadConfigurationFile(path);
  const { configuration, refusals } = configurationOf(file, chooseConduit(file, conduitName));
  logRefusals(refusals, log);
  return configuration;
}

/** What the NSP says, for `--dry-run`. @throws {StartError} it says nothing for too long */
export async function firstConfiguration(source: Source, settings: Settings, log: Log): Promise<Configuration> {
  const ending = new AbortController();
  try {
    return await new Promise<Configuration>((resolve, reject) => {
      let why = "";
      const late = () =>
        reject(new StartError(`no configuration from ${source.address} in ${DRY_RUN_DEADLINE_MS / 1000} s${why}`));
      setTimeout(late, DRY_RUN_DEADLINE_MS).unref();
      const quiet: Log = { ...log, info: () => {}, debug: () => {}, trace: () => {} };
      const onUpdate = (update: NspUpdate) => resolve(update.configuration);
      const onConnection = (_isConnected: boolean, reason: string) => {
        why = reason === "" ? "" : `: ${reason}`;
      };
      const events = { onUpdate, onConnection, onWaiting: () => {} };
      follow({ ...source, stateFolder: null }, settings, quiet, ending.signal, events).catch(reject);
    });
  } finally {
    ending.abort();
  }
}
