import {
  type Link,
  type LinkStatistics,
  type LocalAddress,
  type Neighbor,
  type Route,
  RouteConnection,
  type Rule,
} from "#netlink/route";
import { orNull } from "./debug-system.js";
import { addressText, stateName } from "./reachability.js";

const MAIN_TABLE = 254;

/**
 * Interfaces, rules, routes and neighbors of this network namespace, with the reference's keys in its order and ours
 * behind them. A list that the kernel does not give is null.
 */
export function readNetwork(): Readonly<
  Record<"interfaces" | "rules" | "routes" | "neighbors" | "policyTables", unknown>
> {
  using route = new RouteConnection();
  const links = orNull(() => route.countedLinks());
  const addresses = orNull(() => route.addresses()) ?? [];
  const names = new Map(links?.map(({ index, name }) => [index, name]) ?? []);
  const both = <T>(read: (family: 4 | 6) => readonly T[]) => orNull(() => [...read(4), ...read(6)]);
  const routes = both((family) => route.routes(family));
  return {
    interfaces: links?.map((link) => interfaceOf(link, addresses)) ?? null,
    rules: both((family) => route.rules(family))?.map(ruleOf) ?? null,
    routes: routes?.filter(({ table }) => table === MAIN_TABLE).map(routeOf) ?? null,
    neighbors: both((family) => route.neighbors(family))?.map((neighbor) => neighborOf(neighbor, names)) ?? null,
    policyTables: routes === null ? null : tablesOf(routes),
  };
}

function interfaceOf(link: Link & { readonly statistics: LinkStatistics }, addresses: readonly LocalAddress[]): object {
  const { index, name, linkLayerAddress, mtuBytes, isUp, masterIndex, hasCarrier, operationalState } = link;
  const { statistics } = link;
  const own = addresses.filter(({ linkIndex }) => linkIndex === index);
  return {
    index,
    name,
    mac: macText(linkLayerAddress),
    ips: own.map(({ address, prefixLength }) => `${addressText(address)}/${prefixLength}`),
    mtu: mtuBytes,
    up: isUp,
    "master-index": masterIndex,
    statistics: {
      "rx-packets": statistics.rxPackets,
      "tx-packets": statistics.txPackets,
      "rx-bytes": statistics.rxBytes,
      "tx-bytes": statistics.txBytes,
      "rx-errors": statistics.rxErrors,
      "tx-errors": statistics.txErrors,
      "rx-dropped": statistics.rxDropped,
      "tx-dropped": statistics.txDropped,
    },
    carrier: hasCarrier,
    "operational-state": operationalState,
  };
}

function macText(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(":");
}

function ruleOf({ family, table, priority, fwmark, fwmask, action, goto: target, protocol, selectors }: Rule): object {
  const prefix = (address: unknown, bits: number) =>
    address instanceof Uint8Array ? `${addressText(address)}/${bits}` : "";
  return {
    table,
    priority,
    mark: fwmark ?? 0,
    source: prefix(selectors?.attributes.source, selectors?.header.sourceLength ?? 0),
    destination: prefix(selectors?.attributes.destination, selectors?.header.destinationLength ?? 0),
    family,
    mask: fwmask,
    action,
    goto: target,
    protocol,
  };
}

function routeOf({ family, table, protocol, type, destination, destinationLength, metric, nextHops }: Route): object {
  const gateways = nextHops.flatMap(({ gateway }) => (gateway === null ? [] : [addressText(gateway)]));
  return {
    table,
    "interface-index": nextHops[0]?.linkIndex ?? 0,
    destination: `${addressText(destination)}/${destinationLength}`,
    nexthops: nextHops.length > 1 ? gateways : [],
    gateway: nextHops.length > 1 ? "" : (gateways[0] ?? ""),
    source: "",
    family,
    type,
    metric,
    protocol,
    unusable: nextHops.length > 0 && nextHops.every(({ isUnusable }) => isUnusable),
  };
}

function neighborOf(
  { address, linkLayerAddress, state, linkIndex }: Neighbor,
  names: ReadonlyMap<number, string>,
): object {
  return {
    ip: addressText(address),
    mac: linkLayerAddress === null ? "" : macText(linkLayerAddress),
    state: stateName(state),
    "interface-index": linkIndex,
    "interface-name": names.get(linkIndex) ?? "",
  };
}

/** Routes of every table but main by the table's number; among them those of the targets. */
function tablesOf(routes: readonly Route[]): Readonly<Record<string, readonly object[]>> {
  const tables = new Map<number, object[]>();
  for (const route of routes) {
    if (route.table === MAIN_TABLE) continue;
    const others = tables.get(route.table);
    if (others === undefined) tables.set(route.table, [routeOf(route)]);
    else others.push(routeOf(route));
  }
  return Object.fromEntries(tables);
}
