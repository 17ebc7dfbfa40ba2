import type { Log } from "#control";
import {
  type ConfigurationFile,
  ConfigurationFileError,
  fileSignature,
  loadConfigurationFile,
  NspStore,
  openTargetDatabase,
  startNspServer,
  type TargetDatabase,
  watchConfigurationFile,
} from "#nsp";
import { mostOpenFiles } from "./open-files.js";

/** Connections per address, if half of the process's files are as many. */
const MOST_CONNECTIONS = 10_000;
/** What is said of more. */
export const TOO_MANY = "too many connections, those without a call are closed";

export type EmbeddedNspOptions = {
  /** Configuration file. */
  readonly path: string;
  /** Addresses besides those that the file names; plain text. */
  readonly listen: readonly string[];
  /** Database instead of the file's. */
  readonly database?: string | undefined;
  /** Why a new content of the file needs a restart, or null; one that does is refused as a whole. Default: none does. */
  readonly needsRestart?: (file: ConfigurationFile) => string | null;
  /** Why what the file says now is not in force; "": it is. */
  readonly onFileFault?: (fault: string) => void;
  readonly log: Log;
};

export type EmbeddedNsp = {
  /** What the file said at the start. */
  readonly file: ConfigurationFile;
  /** What is listened on; the given addresses first. */
  readonly addresses: readonly string[];
  /** Reads the file again. */
  readonly reload: () => void;
  readonly close: () => Promise<void>;
};

/** An address of `nsp.listen` cannot be listened on. */
class ListenError extends Error {
  readonly code = "ERR_LISTEN";
}

/**
 * An NSP of our own, fed by a file that is read again when it changes. Addresses and database stay those of the start.
 * @throws {ConfigurationFileError | DatabaseError} the file is faulty, the database cannot be used
 * @throws {ListenError} an address cannot be listened on
 */
export async function startEmbeddedNsp({
  path,
  listen,
  database,
  needsRestart = () => null,
  onFileFault = () => {},
  log,
}: EmbeddedNspOptions): Promise<EmbeddedNsp> {
  const loaded = fileSignature(path);
  const file = loadConfigurationFile(path);
  const storage = await openDatabase(database ?? file.database, log);
  try {
    const store = new NspStore({
      nowMs: () => performance.now(),
      onStorageFault: (error) => log.error("a registration was not stored, a restart would not know it", { error }),
      onHidden: (hidden) =>
        log.warning("a registration has the identifier of a target of the configuration file, which stays", hidden),
      ...(storage === null ? {} : { storage }),
    });
    store.configure(file.configuration, file.entryTimeoutMs);
    const options = {
      listen: [...listen, ...file.listen],
      security: "plain-text",
      maxConnections: Math.min(MOST_CONNECTIONS, Math.floor(mostOpenFiles() / 2)),
      onFull: (full: Readonly<Record<string, unknown>>) => log.warning(TOO_MANY, full),
    } as const;
    const server = await startNspServer(store, options).catch((error: Error) => {
      throw new ListenError(`nsp.listen: ${error.message}`, { cause: error });
    });
    let reads = 0; // makes each line another one: an outcome is told each time, never folded
    const { check, stop } = watchConfigurationFile(
      path,
      loaded,
      (now) => {
        const reason = needsRestart(now);
        if (reason !== null) throw new ConfigurationFileError(path, [{ line: 0, key: "", value: "", reason }]);
        log.info("configuration file read", { path, read: ++reads });
        store.configure(now.configuration, now.entryTimeoutMs);
        onFileFault("");
      },
      ({ message }) => {
        log.error("configuration file refused, the last good one stays in force", { read: ++reads, error: message });
        onFileFault(message);
      },
      {
        onUnwatched: (reason) =>
          log.warning("configuration file cannot be watched, it is looked at every 2 s", { path, reason }),
      },
    );
    const close = async () => {
      stop();
      await server.close();
      storage?.[Symbol.dispose]();
    };
    return { file, addresses: server.addresses, reload: check, close };
  } catch (error) {
    storage?.[Symbol.dispose]();
    throw error;
  }
}

async function openDatabase(path: string | null, log: Log): Promise<TargetDatabase | null> {
  if (path === null) return null;
  return await openTargetDatabase(path, (renamedTo) =>
    log.error("database damaged, a new one was begun", { database: path, renamedTo }),
  );
}
