// For callers
export { Classification, classify } from "./classify.js";
export { type CompileLimits, compile, LIMITS, streamsOf } from "./compile.js";
export { formatFlowRule } from "./format.js";
export { deleteFlow, setFlow } from "./order.js";
export type { ItemMemory } from "./prefix-items.js";
export { FlowError, type FlowParams, type FlowRule, parseFlowRule } from "./rule.js";
export { TooManyRulesError } from "./word-writer.js";
