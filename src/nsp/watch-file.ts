import { type FSWatcher, statSync, watch as watchFolder } from "node:fs";
import { dirname } from "node:path";
import { type ConfigurationFile, type ConfigurationFileError, loadConfigurationFile } from "./file.js";

/** Editors and ConfigMaps change a file in several steps; they are taken together. */
const SETTLE_MS = 50;
/** How often the file is looked at in case a notification was missed. */
const POLL_MS = 2_000;

/** The kernel's limits by the error of a watch that goes beyond them; inotify_init(2), inotify_add_watch(2). */
const LIMITS: Readonly<Record<string, string>> = {
  EMFILE: "fs.inotify.max_user_instances is used up",
  ENOSPC: "fs.inotify.max_user_watches is used up",
};

/** What is told of a file besides its contents, and by what it is watched. */
export type FileWatchOptions = {
  /** Changes cannot be told at once, with the reason; the file is looked at every 2 s. Told once. */
  readonly onUnwatched?: (reason: string) => void;
  /** Watches a folder, as node does. */
  readonly watch?: (folder: string, onChange: () => void) => Pick<FSWatcher, "on" | "close">;
};

/**
 * Reads the file again whenever it changes, also when it is replaced by rename or through a symbolic link.
 * @param loaded {@link fileSignature} from before the file was loaded: what has changed since then is read at once
 * @param onLoad a new, faultless content; throws a ConfigurationFileError for one that cannot be taken nevertheless
 * @param onError the file is faulty; told once per distinct fault. What was loaded before stays in force
 * @returns `check` reads at once, and tells what it finds also when it found the same before; `stop` ends the watch
 */
export function watchConfigurationFile(
  path: string,
  loaded: string,
  onLoad: (file: ConfigurationFile) => void,
  onError: (error: ConfigurationFileError) => void,
  { onUnwatched = () => {}, watch = watchFolder }: FileWatchOptions = {},
): { readonly check: () => void; readonly stop: () => void } {
  let seen = loaded;
  let toldFault = "";
  const load = () => {
    try {
      onLoad(loadConfigurationFile(path));
      toldFault = "";
    } catch (error) {
      const fault = error as ConfigurationFileError;
      if (fault.message !== toldFault) onError(fault);
      toldFault = fault.message;
    }
  };
  const look = () => {
    const now = fileSignature(path);
    if (now === seen) return;
    seen = now;
    load();
  };
  let settling = setTimeout(look, 0);
  const onChange = () => {
    clearTimeout(settling);
    settling = setTimeout(look, SETTLE_MS);
  };
  let watcher: ReturnType<typeof watch> | null = null;
  try {
    watcher = watch(dirname(path), onChange);
    watcher.on("error", () => {}); // the poll goes on
  } catch (error) {
    const { code = "", message } = error as NodeJS.ErrnoException;
    onUnwatched(LIMITS[code] ?? message);
  }
  const poll = setInterval(look, POLL_MS);
  return {
    check: () => {
      seen = fileSignature(path);
      toldFault = "";
      load();
    },
    stop: () => {
      watcher?.close();
      clearInterval(poll);
      clearTimeout(settling);
    },
  };
}

/** Changes with every change of the file's content or identity; symbolic links are followed. */
export function fileSignature(path: string): string {
  try {
    const { ino, size, mtimeMs, ctimeMs } = statSync(path);
    return `${ino} ${size} ${mtimeMs} ${ctimeMs}`;
  } catch (error) {
    return (error as { code?: string }).code ?? "unknown";
  }
}
