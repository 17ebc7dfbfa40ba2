import { formatAddress, isIpv4, parseAddress, parsePrefix } from "#model";
import { NetlinkError } from "#netlink";
import { type Family, type Neighbor, type NeighborKey, NeighborState, type RouteConnection } from "#netlink/route";

/** What the kernel says of the way to one address of a target, for a packet with the target's mark. */
export type Path = {
  readonly family: Family;
  readonly address: string;
  readonly fwmark: number;
  /**
   * `reachable`: the route of its mark leads to it, and it has answered lately; `unproven`: the route is right, but the
   * neighbor has not been asked for a while, or is being asked; `broken`: packets with its mark do not get to it.
   */
  readonly verdict: "reachable" | "unproven" | "broken";
  readonly reason: string;
  /** The neighbor entry to ask for proof: of one that is unproven, or has failed and may be back. */
  readonly neighbor: NeighborKey | null;
  /** How it can be mended; empty unless it is broken. */
  readonly mend: string;
};

const STATE_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(NeighborState).map(([name, number]) => [number, name]),
);

/** Name of a neighbor's state as `ip neigh` has it, in lower case. */
export function stateName(state: number): string {
  return STATE_NAMES.get(state) ?? `0x${state.toString(16)}`;
}

/** An address of 4 or 16 bytes as text. */
export function addressText(bytes: Uint8Array): string {
  return bytes.length === 4 ? bytes.join(".") : formatAddress(bytes);
}

/** A neighbor as a key. */
export function neighborText({ address, linkIndex }: Pick<Neighbor, "address" | "linkIndex">): string {
  return `${addressText(address)} ${linkIndex}`;
}

/** An address of 16 bytes as messages carry it: 4 or 16. */
function wireBytes(address: Uint8Array): Uint8Array {
  return isIpv4(address) ? address.slice(12) : address;
}

/** Asks the kernel for the ways to targets. Reads only; needs no rights. */
export class PathFinder {
  readonly #route: RouteConnection;
  readonly #destinations: Readonly<Record<Family, Uint8Array | null>>;
  readonly #neighbors = new Map<string, Neighbor>();
  readonly #linkNames: ReadonlyMap<number, string>;
  readonly #failedLately: ReadonlySet<string>;

  /**
   * @param vips prefixes: packets to the first one of each family stand for all
   * @param failedLately keys of neighbors that were given up a moment ago and may be asked again already
   */
  constructor(route: RouteConnection, vips: readonly string[], failedLately: ReadonlySet<string> = new Set()) {
    this.#route = route;
    this.#failedLately = failedLately;
    const first = (family: Family) => {
      const prefix = vips.find((vip) => vip.includes(":") === (family === 6) && !vip.endsWith("/0"));
      return prefix === undefined ? null : wireBytes(parsePrefix(prefix).address);
    };
    this.#destinations = { 4: first(4), 6: first(6) };
    for (const family of [4, 6] as const) {
      for (const neighbor of route.neighbors(family)) this.#neighbors.set(neighborText(neighbor), neighbor);
    }
    this.#linkNames = new Map(route.links().map(({ index, name }) => [index, name]));
  }

  /** `address` is a target's, `fwmark` its mark. */
  find(address: string, fwmark: number): Path {
    const family: Family = address.includes(":") ? 6 : 4;
    const outcome = this.#judge(family, address, fwmark);
    return { family, address, fwmark, ...outcome };
  }

  #judge(family: Family, address: string, fwmark: number): Omit<Path, "family" | "address" | "fwmark"> {
    const broken = (reason: string, mend: string, neighbor: NeighborKey | null = null) =>
      ({ verdict: "broken", reason, neighbor, mend }) as const;
    const target = wireBytes(parseAddress(address));
    let found: ReturnType<RouteConnection["lookUpRoute"]>;
    try {
      found = this.#route.lookUpRoute(this.#destinations[family] ?? target, fwmark);
    } catch (error) {
      if (!(error instanceof NetlinkError)) throw error;
      const mend = `an interface with an address in the network of ${address} is needed, up and with carrier: ip addr; ip route show table ${fwmark}`;
      return broken(`no route for mark ${fwmark} (${error.errno})`, mend);
    }
    const hop = found.nextHops.find(({ gateway }) => gateway !== null && addressText(gateway) === addressText(target));
    if (found.table !== fwmark || hop === undefined) {
      const to = found.nextHops.map(({ gateway }) => (gateway === null ? "a link" : addressText(gateway))).join(", ");
      const mend = `rule or route of mark ${fwmark} is missing or another rule comes first: ip -${family} rule; ip -${family} route show table ${fwmark}; the control plane repairs its own`;
      return broken(`mark ${fwmark} leads to table ${found.table}${to === "" ? "" : `, to ${to}`}`, mend);
    }
    const link = this.#linkNames.get(hop.linkIndex) ?? `interface ${hop.linkIndex}`;
    if (hop.isUnusable) return broken(`${link} is down or has no carrier`, `ip link set ${link} up; look at its peer`);
    const text = neighborText({ address: target, linkIndex: hop.linkIndex });
    const neighbor = this.#neighbors.get(text);
    const current = neighbor === undefined ? "no entry" : stateName(neighbor.state);
    const isAskedAgain = current === "incomplete" || current === "no entry";
    const state = isAskedAgain && this.#failedLately.has(text) ? "failed" : current;
    const key = { family, linkIndex: hop.linkIndex, address: target };
    if (state === "failed") {
      const mend = `the target does not answer on ${link}: is it up, with ${address} on that network? ping -I ${link} ${address}`;
      return broken(`neighbor ${state} on ${link}`, mend, key);
    }
    const isProven = ["reachable", "permanent", "noarp"].includes(state);
    const reason = `${link}, neighbor ${state}`;
    return isProven
      ? { verdict: "reachable", reason, neighbor: null, mend: "" }
      : { verdict: "unproven", reason, neighbor: key, mend: "" };
  }
}
