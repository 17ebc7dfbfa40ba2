import type { Log } from "#control";
import { type ConfigurationFile, loadConfigurationFile, NspStore, startNspServer, watchConfigurationFile } from "#nsp";

export type EmbeddedNspOptions = {
  /** Configuration file. */
  readonly path: string;
  /** Addresses besides those that the file names; plain text. */
  readonly listen: readonly string[];
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
 * An NSP of our own, fed by a file that is read again when it changes. Addresses stay those of the start.
 * @throws {ConfigurationFileError} the file is faulty
 * @throws {ListenError} an address cannot be listened on
 */
export async function startEmbeddedNsp({ path, listen, log }: EmbeddedNspOptions): Promise<EmbeddedNsp> {
  const file = loadConfigurationFile(path);
  const store = new NspStore({ nowMs: () => performance.now() });
  store.configure(file.configuration, file.entryTimeoutMs);
  const options = { listen: [...listen, ...file.listen], security: "plain-text" } as const;
  const server = await startNspServer(store, options).catch((error: Error) => {
    throw new ListenError(`nsp.listen: ${error.message}`, { cause: error });
  });
  const { check, stop } = watchConfigurationFile(
    path,
    ({ configuration, entryTimeoutMs }) => {
      log.info("configuration file read", { path });
      store.configure(configuration, entryTimeoutMs);
    },
    ({ message }) => log.error("configuration file refused, the last good one stays in force", { error: message }),
  );
  const close = async () => {
    stop();
    await server.close();
  };
  return { file, addresses: server.addresses, reload: check, close };
}
