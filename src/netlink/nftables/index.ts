// For callers
export type { ChainHook, ListedChain } from "./chain.js";
export type { NftCommand } from "./command.js";
export { NftConnection, watchNftables } from "./connection.js";
export {
  accept,
  bitAnd,
  type Checksum,
  compare,
  compatQueue,
  conntrackState,
  counter,
  type Expression,
  immediate,
  inSet,
  meta,
  nativeQueue,
  networkHeader,
  notInSet,
  notrack,
  outsideRange,
  type QueueRange,
  setMark,
  transportHeader,
  verdictOf,
  writePayload,
} from "./expressions.js";
export { type NftFeatures, probeNftables } from "./probe.js";
export { describeExpression, doesTheSame, type ListedRule } from "./rule.js";
export type { Element, SetType } from "./set.js";
