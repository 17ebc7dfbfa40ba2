import { readdirSync } from "node:fs";
import { type Definition, labelText, type Source, single } from "./family.js";

/** Labels that all of Meridio's own metrics carry. */
export const OTEL_SCOPE = { otel_scope_name: "Meridio", otel_scope_version: "" } as const;

const one = (type: Definition["type"], name: string, help: string): Definition => ({ name, type, help });
const CPU = one("counter", "process_cpu_seconds_total", "CPU time of the control plane in seconds");
const MEMORY = one("gauge", "process_resident_memory_bytes", "Resident memory of the control plane");
const OPEN_FILES = one("gauge", "process_open_fds", "Open file descriptors of the control plane");
const START = one("gauge", "process_start_time_seconds", "Start of the control plane, seconds since 1970");
const BUILD = one("gauge", "stateless_lb_build_info", "Version of this program");
const TARGET_INFO: Definition = {
  ...one("gauge", "target_info", "Target metadata"),
  utf8: { labels: { service_name: "service.name", service_version: "service.version" } },
};
const SCOPE_INFO = one("gauge", "otel_scope_info", "Instrumentation Scope metadata");

/** The numbers that every Prometheus client gives of its process, and what Meridio says of itself. */
export function processSource(version: string): Source {
  const startSeconds = Date.now() / 1_000 - process.uptime();
  return {
    name: "process",
    write: (out) => {
      const { user, system } = process.cpuUsage();
      single(out, CPU, (user + system) / 1e6);
      single(out, MEMORY, process.memoryUsage.rss());
      single(out, OPEN_FILES, readdirSync("/proc/self/fd").length);
      single(out, START, startSeconds);
      single(out, BUILD, 1, labelText({ version }));
      single(out, TARGET_INFO, 1, labelText({ service_name: "meridio", service_version: "v1.0.0" }));
      single(out, SCOPE_INFO, 1, labelText(OTEL_SCOPE));
    },
  };
}
