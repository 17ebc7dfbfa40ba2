import { readdirSync, readFileSync } from "node:fs";
import { hostname, machine, release, uptime } from "node:os";

/** A processor as the reference lists it; what the machine does not tell is empty or 0. */
type CpuInfo = {
  readonly cpu: number;
  readonly vendorId: string;
  readonly family: string;
  readonly model: string;
  readonly stepping: number;
  readonly physicalId: string;
  readonly coreId: string;
  readonly cores: number;
  readonly modelName: string;
  readonly mhz: number;
  /** KiB. */
  readonly cacheSize: number;
  readonly flags: readonly string[];
  readonly microcode: string;
};

/** Processors and host, for `--debug`. `/proc` is all that is read; a part that cannot be read is null. */
export function readSystem(): { readonly "cpu-info": readonly CpuInfo[] | null; readonly "host-info": object | null } {
  return { "cpu-info": orNull(readCpus), "host-info": orNull(readHost) };
}

function readCpus(): readonly CpuInfo[] {
  const blocks = readFileSync("/proc/cpuinfo", "utf8").trim().split(/\n\n+/);
  const processors = blocks.map(fieldsOf).filter((fields) => fields.has("processor"));
  return processors.map((fields) => {
    const of = (...names: readonly string[]) =>
      names.map((name) => fields.get(name)).find((text) => text !== undefined) ?? "";
    return {
      cpu: Number(of("processor")),
      vendorId: of("vendor_id", "CPU implementer"),
      family: of("cpu family", "CPU architecture"),
      model: of("model", "CPU part"),
      stepping: Number.parseInt(of("stepping", "CPU revision"), 10) || 0,
      physicalId: of("physical id"),
      coreId: of("core id"),
      cores: 1,
      modelName: of("model name"),
      mhz: Number(of("cpu MHz")),
      cacheSize: Number.parseInt(of("cache size"), 10) || 0,
      flags: of("flags", "Features")
        .split(" ")
        .filter((flag) => flag !== ""),
      microcode: of("microcode"),
    };
  });
}

function fieldsOf(block: string): ReadonlyMap<string, string> {
  return new Map(
    block.split("\n").map((line): [string, string] => {
      const colon = line.indexOf(":");
      return [line.slice(0, colon).trim(), line.slice(colon + 1).trim()];
    }),
  );
}

function readHost(): object {
  const distribution = readDistribution();
  const bootTime = Number(/^btime (\d+)/m.exec(readFileSync("/proc/stat", "utf8"))?.[1] ?? 0);
  return {
    hostname: hostname(),
    uptime: Math.floor(uptime()),
    bootTime,
    procs: readdirSync("/proc").filter((name) => /^[0-9]+$/.test(name)).length,
    os: "linux",
    platform: distribution.get("ID") ?? "",
    platformFamily: distribution.get("ID_LIKE")?.split(" ")[0] ?? distribution.get("ID") ?? "",
    platformVersion: distribution.get("VERSION_ID") ?? "",
    kernelVersion: release(),
    kernelArch: machine(),
    virtualizationSystem: "",
    virtualizationRole: "",
    hostId:
      orNull(() => readFileSync("/etc/machine-id", "utf8").trim()) ||
      readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim(),
  };
}

/** os-release(5), without the quotes. */
function readDistribution(): ReadonlyMap<string, string> {
  const text = orNull(() => readFileSync("/etc/os-release", "utf8")) ?? "";
  return new Map([...text.matchAll(/^([A-Z_]+)="?([^"\n]*)"?$/gm)].map((match) => [match[1]!, match[2]!]));
}

/** null when a file is not there or may not be read. */
export function orNull<T>(read: () => T): T | null {
  try {
    return read();
  } catch (error) {
    if (typeof (error as { code?: unknown }).code === "string") return null;
    throw error;
  }
}
