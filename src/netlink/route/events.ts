import { type Message, NLM_F_REPLACE } from "../message.js";
import { type Listening, listen, NETLINK_ROUTE } from "../open.js";
import type { DatagramTaker } from "../subscription.js";
import { decodeAddress, type LocalAddress, RTM_DELADDR, RTM_NEWADDR } from "./address.js";
import { decodeLink, type Link, RTM_DELLINK, RTM_NEWLINK } from "./link.js";
import { decodeNeighbor, type Neighbor, RTM_DELNEIGH, RTM_NEWNEIGH } from "./neighbor.js";
import { NeighborView } from "./neighbor-view.js";
import { decodeRoute, type Route, RTM_DELROUTE, RTM_NEWROUTE } from "./route.js";
import { decodeRule, RTM_DELRULE, RTM_NEWRULE, type Rule } from "./rule.js";

/** `RTNLGRP_*`, include/uapi/linux/rtnetlink.h (v6.18), by the kind of object they tell of. */
const GROUPS = {
  link: [1],
  neighbor: [3],
  address: [5, 9], // RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR
  route: [7, 11], // RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE
  rule: [8, 19], // RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE
} as const;

/** What can be followed. */
export type RouteObject = keyof typeof GROUPS;

/** `new` also for an object that changed. */
type Change = "new" | "deleted";

/**
 * A change in the kernel, or `overrun`: changes were lost, so everything has to be read again. A route that replaces
 * another one has `isReplacement`; the other one's end is not told apart.
 */
export type RouteEvent =
  | { readonly kind: "rule"; readonly change: Change; readonly rule: Rule }
  | { readonly kind: "route"; readonly change: Change; readonly route: Route; readonly isReplacement: boolean }
  | { readonly kind: "link"; readonly change: Change; readonly link: Link }
  | { readonly kind: "address"; readonly change: Change; readonly address: LocalAddress }
  | { readonly kind: "neighbor"; readonly change: Change; readonly neighbor: Neighbor }
  | { readonly kind: "overrun" };

/** The change that a multicast message tells, or null when it tells of nothing we follow. @throws {DecodeError} */
function decodeEvent({ type, flags, body }: Message): RouteEvent | null {
  switch (type) {
    case RTM_NEWRULE:
    case RTM_DELRULE: {
      const rule = decodeRule(body);
      return rule && { kind: "rule", change: type === RTM_NEWRULE ? "new" : "deleted", rule };
    }
    case RTM_NEWROUTE:
    case RTM_DELROUTE: {
      const route = decodeRoute(body);
      const isNew = type === RTM_NEWROUTE;
      const isReplacement = isNew && (flags & NLM_F_REPLACE) !== 0;
      return route && { kind: "route", change: isNew ? "new" : "deleted", route, isReplacement };
    }
    case RTM_NEWLINK:
    case RTM_DELLINK: {
      const link = decodeLink(body);
      return link && { kind: "link", change: type === RTM_NEWLINK ? "new" : "deleted", link };
    }
    case RTM_NEWADDR:
    case RTM_DELADDR: {
      const address = decodeAddress(body);
      return address && { kind: "address", change: type === RTM_NEWADDR ? "new" : "deleted", address };
    }
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH: {
      const neighbor = decodeNeighbor(body);
      return neighbor && { kind: "neighbor", change: type === RTM_NEWNEIGH ? "new" : "deleted", neighbor };
    }
    default:
      return null;
  }
}

/**
 * Follows the kernel's objects of those kinds, on the main thread's event loop.
 * @param onEvent after `overrun` read everything anew, at once: the events that follow begin before that reading, so
 * applying them to what was read ends in the kernel's state
 * @param receiveBufferBytes what may wait while the event loop is busy. Default 4 MiB
 * @param onNeighbor is told of changes of neighbors instead, of which there are far more than of anything else; what it is
 * given is valid during the call only. The kernel could send one in another form: then `onEvent` is told
 * @returns `drain` hands on what the kernel has told already; `stop` ends it
 */
export function followRoutes(
  objects: readonly RouteObject[],
  onEvent: (event: RouteEvent) => void,
  receiveBufferBytes?: number,
  onNeighbor?: (neighbor: NeighborView) => void,
): Listening {
  const onMessages = (messages: readonly Message[]) => {
    for (const message of messages) {
      const event = decodeEvent(message);
      if (event !== null) onEvent(event);
    }
  };
  const groups = objects.flatMap((object) => GROUPS[object]);
  const onOverrun = () => onEvent({ kind: "overrun" });
  return listen(NETLINK_ROUTE, groups, onMessages, onOverrun, receiveBufferBytes, onNeighbor && takerOf(onNeighbor));
}

function takerOf(onNeighbor: (neighbor: NeighborView) => void): DatagramTaker {
  return (buffer) => {
    const view = new NeighborView(buffer);
    return (at, length) => {
      if (!view.read(at, length)) return false;
      onNeighbor(view);
      return true;
    };
  };
}

/** As {@link followRoutes}. @returns a function that ends it */
export function watchRoutes(...args: Parameters<typeof followRoutes>): () => void {
  return followRoutes(...args).stop;
}
