// For callers
export { admit } from "./admit.js";
export { diff, planLength } from "./diff.js";
export { formatPlan, formatStep } from "./format.js";
export type { Memo } from "./memo.js";
export { formatEvent, type KernelEvent } from "./mirror.js";
export { formatGateway } from "./nft-format.js";
export type { PathFault } from "./paths.js";
export { isQueueing } from "./queueing.js";
export { type DesiredKernel, type Failure, NOTHING_DESIRED, type Plan, type Refusal, type Step } from "./state.js";
export { type Hits, type Interface, Steering } from "./steering.js";
