import { readdirSync } from "node:fs";
import type { Family, Source } from "./family.js";

/** The numbers that every Prometheus client gives of its process, and what Meridio says of itself. */
export function processSource(version: string): Source {
  const startSeconds = Date.now() / 1_000 - process.uptime();
  return {
    name: "process",
    read: () => {
      const { user, system } = process.cpuUsage();
      return [
        one("process_cpu_seconds_total", "counter", "CPU time of the control plane in seconds", (user + system) / 1e6),
        one(
          "process_resident_memory_bytes",
          "gauge",
          "Resident memory of the control plane",
          process.memoryUsage.rss(),
        ),
        one(
          "process_open_fds",
          "gauge",
          "Open file descriptors of the control plane",
          readdirSync("/proc/self/fd").length,
        ),
        one("process_start_time_seconds", "gauge", "Start of the control plane, seconds since 1970", startSeconds),
        one("stateless_lb_build_info", "gauge", "Version of this program", 1, { version }),
        {
          ...one("target_info", "gauge", "Target metadata", 1, { service_name: "meridio", service_version: "v1.0.0" }),
          utf8: { labels: { service_name: "service.name", service_version: "service.version" } },
        },
        one("otel_scope_info", "gauge", "Instrumentation Scope metadata", 1, OTEL_SCOPE),
      ];
    },
  };
}

/** Labels that all of Meridio's own metrics carry. */
export const OTEL_SCOPE = { otel_scope_name: "Meridio", otel_scope_version: "" } as const;

function one(
  name: string,
  type: "counter" | "gauge",
  help: string,
  value: number,
  labels: Readonly<Record<string, string>> = {},
): Family {
  return { name, type, help, samples: [{ labels, value }] };
}
