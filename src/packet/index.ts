// For callers
// For tests and tools
export { FragmentSpan } from "./fragment.js";
export { djb2, hashAddresses, hashKey } from "./hash.js";
export {
  Packet,
  RC_FIRST_FRAGMENT,
  RC_ICMP_ERROR,
  RC_LATER_FRAGMENT,
  RC_UDP_ENCAP,
  UNUSABLE,
} from "./packet.js";
export { parse } from "./parse.js";
