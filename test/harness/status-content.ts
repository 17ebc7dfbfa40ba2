import type { StatusContent } from "../../src/programs/stateless-lb/status-document.js";

/** When everything of {@link content} was written. */
export const AT = "2026-03-04T05:06:07.000Z";

/** When somebody looks at it. */
export const NOW = new Date("2026-03-04T05:06:37.000Z");

/** What the status document of an instance says that serves, without targets. */
export const content: StatusContent = {
  program: "1.0",
  pid: 7,
  startedAt: AT,
  phase: "serving",
  failure: null,
  source: { address: "nsp:7778", trench: "t", conduit: "c", file: null, fileFault: "" },
  nsp: { isConnected: true, since: AT, reason: "" },
  waitingFor: [],
  refusals: [],
  lastTurn: { at: AT, durationMs: 3, error: null },
  repairs: { count: 0, last: null, storms: [] },
  configurationFrom: "nsp",
  isFrontendAnnounced: null,
  isServed: true,
  isAvailable: true,
  faults: [],
  vips: ["10.0.0.1/32"],
  streams: [{ name: "web", maxTargets: 10, offset: 5000 }],
  flows: [{ name: "tcp", stream: "web", priority: 1 }],
  refusedFlows: [],
  targets: [],
};
