// For callers
export { type Assessment, assess, type ServiceState } from "./assess.js";
export { HealthTree } from "./health-tree.js";
export { SelfProbe } from "./self-probe.js";
export { StreamAvailability } from "./stream-availability.js";
