// For callers
export { diff, planLength } from "./diff.js";
export { formatPlan } from "./format.js";
export { type DesiredKernel, type Failure, NOTHING_DESIRED } from "./state.js";
export { Steering } from "./steering.js";
