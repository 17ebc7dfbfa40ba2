import { isIpv4, type Prefix, prefixContains } from "#model";
import type { Link, Route } from "#netlink/route";
import { formatRoute } from "./format.js";
import type { Neighbors } from "./neighbors.js";
import { isOurs } from "./route-tables.js";

/** Why packets of a mark would not reach the gateway of its route; `neighborUnknown`: they may, it has not been asked yet. */
export type PathFault = {
  readonly kind: "ownAddress" | "foreignRoute" | "linkDown" | "noCarrier" | "neighborFailed" | "neighborUnknown";
  /** For people. */
  readonly text: string;
};

/** Facts about links and neighbors that decide whether a route leads anywhere. */
export type PathFacts = {
  readonly links: ReadonlyMap<number, Link>;
  readonly neighbors: Pick<Neighbors, "isFailed" | "isUnknown">;
  /** The host's own addresses, as text. */
  readonly ownAddresses: ReadonlySet<string>;
};

/** The way to a target by a gateway: its text, and its key among neighbors. */
type Way = { readonly linkIndex: number; readonly gateway: string; readonly key: string };

/** The fault of a way to a target, or null when as far as is known packets get through. Pure. */
export function pathFault(
  { linkIndex, gateway, key }: Way,
  { links, neighbors, ownAddresses }: PathFacts,
): PathFault | null {
  // IPv4 takes such a route (R23), and an address may come after the route.
  if (ownAddresses.has(gateway)) return { kind: "ownAddress", text: `${gateway} is an address of this host` };
  const link = links.get(linkIndex);
  const name = link?.name ?? `link ${linkIndex}`;
  if (link === undefined || !link.isUp) return { kind: "linkDown", text: `${name} is down` };
  // The kernel sees a carrier before it lets packets out again: only then the operational state changes (linkwatch_do_dev,
  // net/core/link_watch.c, v6.18). Devices that never tell it say `unknown`.
  const isOperational = link.operationalState === "up" || link.operationalState === "unknown";
  if (!link.hasCarrier || !isOperational) return { kind: "noCarrier", text: `${name} has no carrier` };
  if (neighbors.isFailed(linkIndex, key)) {
    return { kind: "neighborFailed", text: `${gateway} does not answer on ${name}` };
  }
  return neighbors.isUnknown(linkIndex, key)
    ? { kind: "neighborUnknown", text: `${gateway} has not answered on ${name} yet` }
    : null;
}

/**
 * The fault of a target whose routing table holds a route of somebody else's that packets to a VIP take, or null. Pure.
 * @param table all routes of one family in it, in the order in which the kernel takes those to the same destination
 */
export function foreignFault(table: readonly Route[], vips: readonly Prefix[]): PathFault | null {
  const ours = table.findIndex((route) => isOurs(route) && route.destinationLength === 0);
  const found = table.find((route, at) => {
    if (isOurs(route)) return false;
    return route.destinationLength === 0 ? at < ours : vips.some((vip) => overlap(vip, destinationOf(route)));
  });
  return found === undefined
    ? null
    : { kind: "foreignRoute", text: `a route that is not ours takes its packets: ${formatRoute(found)}` };
}

/** A route's destination in the form of prefixes. */
function destinationOf({ family, destination, destinationLength }: Route): Prefix {
  if (family === 6) return { address: destination, bits: destinationLength };
  return {
    address: Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ...destination),
    bits: 96 + destinationLength,
  };
}

/** Two prefixes overlap if one is in the other; ::/0 has no IPv4 in it. */
function overlap(a: Prefix, b: Prefix): boolean {
  const isSameFamily = (isIpv4(a.address) && a.bits >= 96) === (isIpv4(b.address) && b.bits >= 96);
  return isSameFamily && (prefixContains(a, b.address) || prefixContains(b, a.address));
}
