// For callers
export { NetlinkConnection, type Request } from "./connection.js";
export { NetlinkError, UnsupportedError } from "./error.js";
export { NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE } from "./message.js";
export { NETLINK_NETFILTER, NETLINK_ROUTE, openNetlink, subscribe } from "./open.js";
