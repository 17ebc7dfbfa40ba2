import type { Link } from "#netlink/route";
import type { Neighbors } from "./neighbors.js";

/** Why packets of a mark would not reach the gateway of its route; `neighborUnknown`: they may, it has not been asked yet. */
export type PathFault = {
  readonly kind: "ownAddress" | "linkDown" | "noCarrier" | "neighborFailed" | "neighborUnknown";
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
