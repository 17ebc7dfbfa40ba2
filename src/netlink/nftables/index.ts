// For callers
export { type Element, type NftCommand, NftConnection, type SetType, watchNftables } from "./connection.js";
export {
  compare,
  compatQueue,
  counter,
  decodeCounter,
  type Expression,
  inSet,
  meta,
  nativeQueue,
  networkHeader,
  type QueueRange,
  verdictOf,
} from "./expressions.js";
