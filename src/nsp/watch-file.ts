import { statSync, watch } from "node:fs";
import { dirname } from "node:path";
import { type ConfigurationFile, type ConfigurationFileError, loadConfigurationFile } from "./file.js";

/** Editors and ConfigMaps change a file in several steps; they are taken together. */
const SETTLE_MS = 50;
/** How often the file is looked at in case a notification was missed. */
const POLL_MS = 2_000;

/**
 * Reads the file again whenever it changes, also when it is replaced by rename or through a symbolic link.
 * @param onLoad a new, faultless content
 * @param onError the file is faulty; told once per distinct fault. What was loaded before stays in force
 * @returns `check` looks at once, `stop` ends the watch
 */
export function watchConfigurationFile(
  path: string,
  onLoad: (file: ConfigurationFile) => void,
  onError: (error: ConfigurationFileError) => void,
): { readonly check: () => void; readonly stop: () => void } {
  let seen = signature(path);
  let toldFault = "";
  const load = () => {
    try {
      const file = loadConfigurationFile(path);
      toldFault = "";
      onLoad(file);
    } catch (error) {
      const fault = error as ConfigurationFileError;
      if (fault.message !== toldFault) onError(fault);
      toldFault = fault.message;
    }
  };
  const look = () => {
    const now = signature(path);
    if (now === seen) return;
    seen = now;
    load();
  };
  let settling: NodeJS.Timeout | null = null;
  const watcher = watch(dirname(path), () => {
    if (settling !== null) clearTimeout(settling);
    settling = setTimeout(look, SETTLE_MS);
  });
  watcher.on("error", () => {}); // the poll goes on
  const poll = setInterval(look, POLL_MS);
  return {
    check: load,
    stop: () => {
      watcher.close();
      clearInterval(poll);
      if (settling !== null) clearTimeout(settling);
    },
  };
}

/** Changes with every change of the file's content or identity; symbolic links are followed. */
function signature(path: string): string {
  try {
    const { ino, size, mtimeMs, ctimeMs } = statSync(path);
    return `${ino} ${size} ${mtimeMs} ${ctimeMs}`;
  } catch (error) {
    return (error as { code?: string }).code ?? "unknown";
  }
}
