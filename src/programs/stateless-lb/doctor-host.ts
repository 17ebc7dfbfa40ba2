import { accessSync, constants, readFileSync, statfsSync } from "node:fs";
import { advice, type Check, fault, ok, unknown } from "./doctor-check.js";
import { mostOpenFiles } from "./open-files.js";
import { readSettings, SettingsError } from "./settings.js";
import { readSysctl, wantedSysctls } from "./sysctls.js";

const CAP_NET_ADMIN = 12;
const TMPFS_MAGIC = 0x01021994;
const MEBIBYTE = 1024 * 1024;
/** 100 streams of 100 targets, counters and trace rings for some queues. */
const SHM_ROOMY_BYTES = 32 * MEBIBYTE;
const SHM_SCARCE_BYTES = 8 * MEBIBYTE;
const FEW_FILES = 256;
/** Control plane and data plane together, docs/performance.md. */
const MEMORY_BYTES = 120 * MEBIBYTE;

/** Text of a file of /proc or /sys, or null where there is none. */
type Read = (path: string) => string | null;

/** Settings, sysctls, rights, limits, shared memory. */
export function checkHost(folder: string, env: NodeJS.ProcessEnv): readonly Check[] {
  return [
    checkSettings(env),
    ...checkSysctls(),
    checkRights("rights of this process", "self"),
    ...checkLimits(readSysctl),
    checkSharedMemory(folder),
  ];
}

function checkSettings(env: NodeJS.ProcessEnv): Check {
  try {
    readSettings(env);
    return ok("settings", "all can be read");
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error;
    return fault("settings", error.message.replaceAll("\n", "; "), "set them as stateless-lb --help says");
  }
}

function checkSysctls(): readonly Check[] {
  const wrong = wantedSysctls().flatMap(({ name, path, value, need, why }): readonly Check[] => {
    const found = readSysctl(path);
    // Loose filtering (2) lets through what has any route back: with a default route that is everything.
    if (found === value || (name.endsWith(".rp_filter") && found === "2")) return [];
    const mend = `sysctl -w ${name}='${value}' (or stateless-lb sysctl, in a privileged init container)`;
    const text = `${found}, but ${why}`;
    return [need === "needed" ? fault(name, text, mend) : advice(name, text, mend)];
  });
  return wrong.length > 0 ? wrong : [ok("sysctls", "as they have to be")];
}

/** @param process `self`, or a pid of this pid namespace */
export function checkRights(what: string, process: string): Check {
  const fields = readProcessStatus(process);
  if (fields === null) return unknown(what, "not seen from here", "");
  const capabilities = BigInt(`0x${fields.get("CapEff") ?? "0"}`);
  const user = fields.get("Uid")?.split("\t")[0] ?? "?";
  const noNew = fields.get("NoNewPrivs") === "1" ? ", no new privileges" : "";
  const found = `user ${user}, capabilities ${fields.get("CapEff")}${noNew}`;
  if (((capabilities >> BigInt(CAP_NET_ADMIN)) & 1n) === 1n) return ok(what, found);
  return fault(what, `${found}: CAP_NET_ADMIN is missing`, "see docs/deployment.md, capabilities");
}

/** Fields of /proc/PID/status by name, or null when there is no such process. */
function readProcessStatus(process: string): ReadonlyMap<string, string> | null {
  try {
    const lines = readFileSync(`/proc/${process}/status`, "utf8").split("\n");
    return new Map(lines.map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trim()]));
  } catch {
    return null;
  }
}

/** Of the process, and of its container. */
export function checkLimits(read: Read): readonly Check[] {
  return [checkFiles(read), checkMemory(read)];
}

function checkFiles(read: Read): Check {
  const most = mostOpenFiles(read("/proc/self/limits") ?? "");
  const what = "open files";
  return most >= FEW_FILES ? ok(what, `at most ${most}`) : fault(what, `at most ${most}`, `ulimit -n ${FEW_FILES * 4}`);
}

/** The limit of the control group, as a container sees it (cgroup v2). Pages of /dev/shm count too. */
function checkMemory(read: Read): Check {
  const what = "memory limit";
  const text = read("/sys/fs/cgroup/memory.max");
  if (text === null) return ok(what, "none of a container");
  const most = text === "max" ? Number.POSITIVE_INFINITY : Number(text);
  const found = text === "max" ? "none" : `${Math.floor(most / MEBIBYTE)} MiB`;
  if (most >= MEMORY_BYTES) return ok(what, found);
  return advice(what, found, `${MEMORY_BYTES / MEBIBYTE} MiB serve 100 streams, 1,000 flows and 1,000 targets`);
}

function checkSharedMemory(folder: string): Check {
  const what = `shared memory, ${folder}`;
  try {
    accessSync(folder, constants.R_OK | constants.W_OK);
    const { type, bsize, blocks, bavail } = statfsSync(folder);
    const [total, free] = [blocks * bsize, bavail * bsize];
    const found = `${Math.floor(free / MEBIBYTE)} of ${Math.floor(total / MEBIBYTE)} MiB free`;
    const larger = "a larger emptyDir with medium: Memory at /dev/shm, or docker run --shm-size";
    if (free < SHM_SCARCE_BYTES) return fault(what, `${found}: new streams will be refused`, larger);
    if (total < SHM_ROOMY_BYTES) return advice(what, found, larger);
    if (type !== TMPFS_MAGIC) return advice(what, `${found}; not in memory`, "NFQLB_SHM_DIR has to lie on a tmpfs");
    return ok(what, found);
  } catch (error) {
    return fault(what, (error as Error).message, "it has to be there, readable and writable for the user");
  }
}
