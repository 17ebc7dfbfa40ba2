import type { Health } from "#rpc";
import { AGGREGATES, type Assessment, SUB_SERVICES } from "./assess.js";

const AGGREGATE_NAMES = ["Readiness", "Liveness"] as const;

/** The statuses that probes ask for: "" for the process, the parts, and what they mean together. */
export class HealthTree {
  readonly #health: Health;

  /** Until they are told all parts are NOT_SERVING, and the process is SERVING. */
  constructor(health: Health) {
    this.#health = health;
    health.set("", "SERVING");
    for (const name of [...SUB_SERVICES, ...AGGREGATE_NAMES]) health.set(name, "NOT_SERVING");
  }

  set({ parts }: Pick<Assessment, "parts">): void {
    for (const name of SUB_SERVICES) this.#health.set(name, parts[name] ? "SERVING" : "NOT_SERVING");
    for (const name of AGGREGATE_NAMES) {
      const isServing = AGGREGATES[name].every((part) => parts[part]);
      this.#health.set(name, isServing ? "SERVING" : "NOT_SERVING");
    }
  }

  /** Every status by name, for metrics. */
  statuses(): readonly (readonly [name: string, isServing: boolean])[] {
    return ["", ...SUB_SERVICES, ...AGGREGATE_NAMES].map((name) => [name, this.#health.get(name) === "SERVING"]);
  }

  /** The parts of an aggregate for the log, as Meridio writes them; empty for anything else. */
  describeParts(name: string): string {
    const parts = name === "Readiness" || name === "Liveness" ? AGGREGATES[name] : [];
    if (parts.length === 0) return "";
    return `, subservices:[${parts.map((part) => `${part}:${this.#health.get(part)},`).join("")}]`;
  }
}
