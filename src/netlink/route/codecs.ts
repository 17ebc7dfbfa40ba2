// Forms of the rtnetlink messages we use. Numbers keep the kernel's order; sources: include/uapi/linux/ (v6.18)
// rtnetlink.h, fib_rules.h, if_link.h, if_addr.h, neighbour.h.
import { attr, attributes, i32, raw, struct, text, u8, u16, u32 } from "#bytes";

export const RTM_GETLINK = 18;
export const RTM_GETADDR = 22;
export const RTM_NEWROUTE = 24;
export const RTM_DELROUTE = 25;
export const RTM_GETROUTE = 26;
export const RTM_NEWRULE = 32;
export const RTM_DELRULE = 33;
export const RTM_GETRULE = 34;

export const RTN_UNICAST = 1;
export const RT_SCOPE_UNIVERSE = 0;
export const RT_SCOPE_NOWHERE = 255;
export const FR_ACT_TO_TBL = 1;
export const FR_ACT_GOTO = 2;
export const FR_ACT_NOP = 3;

/** `struct fib_rule_hdr`. 12 bytes. */
export const ruleHeader = struct("fib_rule_hdr", {
  family: u8,
  destinationLength: u8,
  sourceLength: u8,
  tos: u8,
  table: u8,
  res1: u8,
  res2: u8,
  action: u8,
  flags: u32,
});

/** `FRA_*`, in the order of the kernel's own dump. FRA_FWMARK is host order; NFQA_MARK is not. */
export const ruleAttributes = attributes("FRA", {
  destination: attr(1, raw),
  source: attr(2, raw),
  inputInterface: attr(3, text),
  goto: attr(4, u32),
  priority: attr(6, u32),
  fwmark: attr(10, u32),
  suppressPrefixLength: attr(14, u32),
  table: attr(15, u32),
  fwmask: attr(16, u32),
  protocol: attr(21, u8),
});

/** `struct rtmsg`. 12 bytes. */
export const routeHeader = struct("rtmsg", {
  family: u8,
  destinationLength: u8,
  sourceLength: u8,
  tos: u8,
  table: u8,
  protocol: u8,
  scope: u8,
  type: u8,
  flags: u32,
});

/** `RTA_*`. */
export const routeAttributes = attributes("RTA", {
  destination: attr(1, raw),
  outputInterface: attr(4, u32),
  gateway: attr(5, raw),
  priority: attr(6, u32),
  table: attr(15, u32),
});

/** `struct ifinfomsg`. 16 bytes. */
export const linkHeader = struct("ifinfomsg", { family: u8, pad: u8, type: u16, index: i32, flags: u32, change: u32 });

/** `IFLA_*`. */
export const linkAttributes = attributes("IFLA", { address: attr(1, raw), name: attr(3, text), mtu: attr(4, u32) });

/** `struct ifaddrmsg`. 8 bytes. */
export const addressHeader = struct("ifaddrmsg", { family: u8, prefixLength: u8, flags: u8, scope: u8, index: u32 });

/** `IFA_*`. IFA_LOCAL is the own address on IPv4, IFA_ADDRESS on IPv6. */
export const addressAttributes = attributes("IFA", { address: attr(1, raw), local: attr(2, raw) });
