// For callers
export {
  formatAddress,
  formatPrefix,
  isIpv4,
  type Prefix,
  parseAddress,
  parsePrefix,
  prefixContains,
} from "./address.js";
export { ConfigError } from "./error.js";
export { ruleName, tableName } from "./names.js";
export { parseServerAddress, SERVER_ADDRESS_FORM } from "./server-address.js";
export { MAX_UNIX_NAME_BYTES, socketPathFault } from "./socket-path.js";
export type { Conduit, Configuration, Flow, PortNat, Protocol, Stream, Target, Trench, Vip } from "./types.js";
export { PROTOCOLS } from "./types.js";
