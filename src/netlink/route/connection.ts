import type { DatagramSocket } from "#sys";
import { DUMP_ATTEMPTS, NetlinkConnection, type Room } from "../connection.js";
import { NetlinkError } from "../error.js";
import { eachMessage, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE } from "../message.js";
import { NETLINK_ROUTE, openNetlink } from "../open.js";
import { addressQuery, decodeAddress, type LocalAddress, RTM_GETADDR } from "./address.js";
import { describeAddress, type Family } from "./family.js";
import {
  decodeCountedLink,
  decodeLink,
  type Link,
  type LinkStatistics,
  linkDownRequest,
  linkQuery,
  RTM_GETLINK,
  RTM_NEWLINK,
} from "./link.js";
import {
  decodeNeighbor,
  describeNeighbor,
  encodeNeighbor,
  encodeNeighborDeletion,
  type Neighbor,
  type NeighborKey,
  NeighborState,
  NTF_USE,
  neighborQuery,
  RTM_DELNEIGH,
  RTM_GETNEIGH,
  RTM_NEWNEIGH,
} from "./neighbor.js";
import {
  MOST_REQUEST_BYTES,
  type NeighborEntry,
  type NeighborRequest,
  NeighborView,
  writeNeighborRequest,
} from "./neighbor-view.js";
import {
  decodeRoute,
  describeRoute,
  encodeRoute,
  encodeRouteDeletion,
  lookUpQuery,
  type Route,
  RTM_DELROUTE,
  RTM_GETROUTE,
  RTM_NEWROUTE,
  routeQuery,
} from "./route.js";
import {
  decodeRule,
  describeRule,
  encodeRule,
  RTM_DELRULE,
  RTM_GETRULE,
  RTM_NEWRULE,
  type Rule,
  ruleQuery,
} from "./rule.js";

/** rtnetlink of the network namespace it was opened in; synchronous. */
export class RouteConnection implements Disposable {
  readonly #connection: NetlinkConnection;
  readonly #socket: DatagramSocket;

  /** @param socket is closed with the connection */
  constructor(socket: DatagramSocket = openNetlink(NETLINK_ROUTE)) {
    this.#connection = new NetlinkConnection(socket);
    this.#socket = socket;
  }

  /**
   * Equal for two moments at which all rules, and all routes of a protocol, were the same; far cheaper than reading them.
   * @param protocol as in {@link routes}
   */
  digest(protocol: number): string {
    const ask = (family: Family) => [
      this.#connection.digest("RTM_GETRULE", RTM_GETRULE, ruleQuery(family)),
      this.#connection.digest("RTM_GETROUTE", RTM_GETROUTE, routeQuery(family, protocol)),
    ];
    return [...ask(4), ...ask(6)].join();
  }

  /** All rules of a family, in the order in which the kernel walks them. */
  rules(family: Family): readonly Rule[] {
    // dump_rules of net/core/fib_rules.c (v6.18) goes on by index and never says NLM_F_DUMP_INTR.
    const messages = this.#connection.uncheckedDump("RTM_GETRULE", RTM_GETRULE, ruleQuery(family));
    return messages.flatMap(({ body }) => decodeRule(body) ?? []);
  }

  /** @throws {NetlinkError} EEXIST: an equal rule of that priority is there, or one that looks at still more */
  addRule(rule: Rule): void {
    const operation = `RTM_NEWRULE ${describeRule(rule)}`;
    this.#connection.request(operation, RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, encodeRule(rule));
  }

  /** @throws {NetlinkError} ENOENT: there is no such rule */
  deleteRule(rule: Rule): void {
    this.#connection.request(`RTM_DELRULE ${describeRule(rule)}`, RTM_DELRULE, 0, encodeRule(rule));
  }

  /** The routes of one family, of all tables; `protocol` other than 0: only those that it marks. */
  routes(family: Family, protocol = 0): readonly Route[] {
    const routes = this.#dump("RTM_GETROUTE", RTM_GETROUTE, routeQuery(family, protocol), decodeRoute);
    return routes.filter((route) => protocol === 0 || route.protocol === protocol); // old kernels do not filter
  }

  /** The routes of one table, whoever made them, in the order in which the kernel takes them; none: there is no such table. */
  routesOfTable(family: Family, table: number): readonly Route[] {
    try {
      return this.#dump(`RTM_GETROUTE table ${table}`, RTM_GETROUTE, routeQuery(family, 0, table), decodeRoute);
    } catch (error) {
      if (error instanceof NetlinkError && error.errno === "ENOENT") return [];
      throw error;
    }
  }

  /**
   * Adds a route. On IPv6 one more gateway beside another is a multipath route, not an error.
   * @throws {NetlinkError} EEXIST: the destination with that metric is there; ENETUNREACH, EHOSTUNREACH, EINVAL: the gateway
   */
  addRoute(route: Route): void {
    const operation = `RTM_NEWROUTE ${describeRoute(route)}`;
    this.#connection.request(operation, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, encodeRoute(route));
  }

  /**
   * Adds a route, or changes where the one with the same table, destination, type of service and metric leads, in one
   * step. @throws {NetlinkError} ENETUNREACH and the like: the gateway
   */
  replaceRoute(route: Route): void {
    const operation = `RTM_NEWROUTE ${describeRoute(route)}`;
    this.#connection.request(operation, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, encodeRoute(route));
  }

  /** @throws {NetlinkError} ESRCH: there is no such route */
  deleteRoute(route: Route): void {
    this.#connection.request(`RTM_DELROUTE ${describeRoute(route)}`, RTM_DELROUTE, 0, encodeRouteDeletion(route));
  }

  /**
   * The route that the kernel takes for a packet to `destination` (4 or 16 bytes) that carries a mark, its rules applied;
   * `ip route get fibmatch`. @throws {NetlinkError} ENETUNREACH, EHOSTUNREACH: there is none
   */
  lookUpRoute(destination: Uint8Array, fwmark: number): Route {
    const operation = `RTM_GETROUTE ${describeAddress(destination)} mark ${fwmark}`;
    const body = this.#connection.get(operation, RTM_GETROUTE, lookUpQuery(destination, fwmark));
    const route = decodeRoute(body);
    if (route === null) throw new NetlinkError(operation, "ENODATA", "the kernel answered with something else");
    return route;
  }

  links(): readonly Link[] {
    return this.#dump("RTM_GETLINK", RTM_GETLINK, linkQuery({ isCounting: false }), decodeLink);
  }

  /** All links with what they have counted. */
  countedLinks(): readonly (Link & { readonly statistics: LinkStatistics })[] {
    return this.#dump("RTM_GETLINK", RTM_GETLINK, linkQuery({ isCounting: true }), decodeCountedLink);
  }

  /** Sets a link down; the kernel takes its routes away, and on IPv6 its addresses. @throws {NetlinkError} ENODEV */
  setLinkDown(index: number): void {
    this.#connection.request(`RTM_NEWLINK ${index} down`, RTM_NEWLINK, 0, linkDownRequest(index));
  }

  /** The host's own addresses, of both families. */
  addresses(): readonly LocalAddress[] {
    return this.#dump("RTM_GETADDR", RTM_GETADDR, addressQuery(), decodeAddress);
  }

  /** The neighbor entries of a family; `linkIndex` other than 0: of that link only. */
  neighbors(family: Family, linkIndex = 0): readonly Neighbor[] {
    const neighbors = this.#dump("RTM_GETNEIGH", RTM_GETNEIGH, neighborQuery(family, linkIndex), decodeNeighbor);
    return neighbors.filter((neighbor) => linkIndex === 0 || neighbor.linkIndex === linkIndex);
  }

  /** The states of all neighbor entries of a family, for who keeps no more of them. */
  neighborStates(family: Family): readonly NeighborEntry[] {
    const entries: NeighborEntry[] = [];
    let view: NeighborView | null = null;
    const visit = ({ bytes, words }: Room, length: number) => {
      view ??= new NeighborView(bytes);
      const one = view;
      eachMessage(words, length, (at, messageLength) => {
        if (one.read(at, messageLength)) entries.push({ linkIndex: one.linkIndex, key: one.key, state: one.state });
      });
    };
    for (let attempt = 0; attempt < DUMP_ATTEMPTS; attempt++) {
      entries.length = 0;
      if (this.#connection.walk("RTM_GETNEIGH", RTM_GETNEIGH, neighborQuery(family, 0), visit)) break;
    }
    return entries;
  }

  /** Adds a neighbor entry. @throws {NetlinkError} EEXIST; ENODEV: there is no such link; EINVAL: its state needs a link-layer address */
  addNeighbor(neighbor: Neighbor): void {
    const operation = `RTM_NEWNEIGH ${describeNeighbor(neighbor)}`;
    this.#connection.request(operation, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_EXCL, encodeNeighbor(neighbor));
  }

  /** Adds a neighbor entry, or changes the one that is there; `ip neigh replace`. @throws {NetlinkError} ENODEV, EINVAL */
  replaceNeighbor(neighbor: Neighbor): void {
    const operation = `RTM_NEWNEIGH ${describeNeighbor(neighbor)}`;
    this.#connection.request(operation, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, encodeNeighbor(neighbor));
  }

  /** @throws {NetlinkError} ENOENT: there is no such entry */
  deleteNeighbor(key: NeighborKey): void {
    const operation = `RTM_DELNEIGH ${describeNeighbor(key)}`;
    this.#connection.request(operation, RTM_DELNEIGH, 0, encodeNeighborDeletion(key));
  }

  /**
   * Has the kernel find out now whether neighbors answer. One whose link-layer address is known is asked there
   * (`ip neigh change … nud probe`) and keeps carrying packets meanwhile; one that is unknown or failed is resolved
   * (`ip neigh replace … use`). The outcome comes as a change of the entry's state.
   * What is refused for a link that is gone has no outcome.
   * @throws {NetlinkError} EPERM
   */
  probeNeighbors(keys: readonly NeighborKey[]): void {
    const probe = { netlinkFlags: NLM_F_REPLACE, state: NeighborState.probe, entryFlags: 0 };
    const refused = this.#askNeighbors(keys, probe);
    if (refused.size === 0) return;
    if ([...refused.values()].includes("EPERM")) throw new NetlinkError("RTM_NEWNEIGH probe", "EPERM");
    // ENOENT: no entry; EINVAL: an entry without a valid link-layer address (neigh_add, __neigh_update; v6.18)
    const unknown = keys.filter((_, i) => ["ENOENT", "EINVAL"].includes(refused.get(i) ?? ""));
    const use = { netlinkFlags: NLM_F_CREATE | NLM_F_REPLACE, state: NeighborState.none, entryFlags: NTF_USE };
    this.#askNeighbors(unknown, use);
  }

  #askNeighbors(keys: readonly NeighborKey[], request: NeighborRequest): ReadonlyMap<number, string> {
    return this.#connection.requestAll(keys.length, MOST_REQUEST_BYTES, (room, at, index, sequence, flags) =>
      writeNeighborRequest(room, at, keys[index]!, request, sequence, flags),
    );
  }

  #dump<T>(operation: string, type: number, query: Uint8Array, decode: (body: Uint8Array) => T | null): readonly T[] {
    return this.#connection.dump(operation, type, query).flatMap(({ body }) => decode(body) ?? []);
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }
}
