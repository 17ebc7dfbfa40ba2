import { attr, attributes, i32, message, raw, records, struct, u8, u16, u32, type ValueOf } from "#bytes";
import { addressBytes, afOf, describeAddress, type Family, familyOf } from "./family.js";

export const RTM_NEWROUTE = 24;
export const RTM_DELROUTE = 25;
export const RTM_GETROUTE = 26;

const RT_SCOPE_UNIVERSE = 0;
const RT_SCOPE_LINK = 253;
const RT_SCOPE_HOST = 254;
const RT_SCOPE_NOWHERE = 255;
/** RTNH_F_DEAD, RTNH_F_LINKDOWN: in rtm_flags for the only next hop, in rtnh_flags for one of several. */
const RTNH_F_UNUSABLE = 0x1 | 0x10;
/** RTNH_F_ONLINK: the gateway is taken to be on the link, whatever other routes say. */
const RTNH_F_ONLINK = 0x4;
const RTM_F_CLONED = 0x200;
const RTM_F_LOOKUP_TABLE = 0x1000;
const RTM_F_FIB_MATCH = 0x2000;
const HEADER_TABLE_LIMIT = 256;

/** `RTN_*`, include/uapi/linux/rtnetlink.h (v6.18). */
const TYPES = {
  unicast: 1,
  local: 2,
  broadcast: 3,
  anycast: 4,
  multicast: 5,
  blackhole: 6,
  unreachable: 7,
  prohibit: 8,
  throw: 9,
} as const;
type RouteType = keyof typeof TYPES | "other";
const TYPE_NAMES: ReadonlyMap<number, RouteType> = new Map(
  Object.entries(TYPES).map(([name, number]) => [number, name as RouteType]),
);

/** `struct rtmsg`, same file. 12 bytes. */
const routeHeader = struct("rtmsg", {
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

/** `struct rtnexthop` behind its length; hops is the weight less one. RTA_VIA: `struct rtvia`, u16 family and address. */
const nextHopHeader = struct("rtnexthop", { flags: u8, hops: u8, linkIndex: i32 });
const nextHopAttributes = attributes("RTA", { gateway: attr(5, raw), via: attr(18, raw) });
const nextHops = records(message(nextHopHeader, nextHopAttributes));

/** `RTA_*`, in the order of the kernel's own dump (fib_dump_info, net/ipv4/fib_semantics.c, v6.18). */
const routeAttributes = attributes("RTA", {
  table: attr(15, u32),
  destination: attr(1, raw),
  source: attr(2, raw),
  priority: attr(6, u32),
  preferredSource: attr(7, raw),
  nextHopId: attr(30, u32),
  gateway: attr(5, raw),
  via: attr(18, raw),
  outputInterface: attr(4, u32),
  multipath: attr(9, nextHops),
  fwmark: attr(16, u32),
});
export const routeMessage = message(routeHeader, routeAttributes);

/** Attributes that are fields of a route. */
const FIELDS: ReadonlySet<string> = new Set([
  "table",
  "destination",
  "priority",
  "gateway",
  "via",
  "outputInterface",
  "multipath",
  "unknown",
]);
/** Every IPv6 route has these: `struct rta_cacheinfo` with the ticks after which it ends, 0 = never, and 0 = medium. */
const RTA_CACHEINFO = 12;
const EXPIRES_AT = 8;
const RTA_PREF = 20;

/** Where a route leads: a gateway, a link, or a gateway on a link. */
export type NextHop = {
  /** Address bytes, 4 or 16; an IPv4 route may have an IPv6 gateway. null: the destination is on the link. */
  readonly gateway: Uint8Array | null;
  /** Interface index; 0 lets the kernel find it from the gateway. */
  readonly linkIndex: number;
  /** 1…256, share among the next hops of a route. */
  readonly weight: number;
  /** The kernel does not use it: its link is down or has no carrier. Ignored when sent. */
  readonly isUnusable: boolean;
};

/** A route. */
export type Route = {
  readonly family: Family;
  readonly table: number;
  /** Routing protocol number: who made it. */
  readonly protocol: number;
  readonly type: RouteType;
  /** Address bytes, 4 or 16; all zero for a default route. */
  readonly destination: Uint8Array;
  /** Prefix length, 0…32 or 0…128. */
  readonly destinationLength: number;
  /** Lower is preferred. 0 lets the kernel choose: it takes 0 for IPv4 and 1024 for IPv6. */
  readonly metric: number;
  /** Type of service the route is for; part of its identity. */
  readonly tos: number;
  /** Several for a multipath route, none for `blackhole` and its like. */
  readonly nextHops: readonly NextHop[];
  /** What else it says, as the kernel told it; absent for a route that says nothing else, as ours. */
  readonly extras?: RouteExtras;
};

/** `onlink`, a scope, a source, metrics, encapsulation, a next hop by its number …: to be compared, and to name it. */
type RouteExtras = {
  readonly header: Pick<ValueOf<typeof routeHeader>, "sourceLength" | "scope" | "flags">;
  readonly attributes: ValueOf<typeof routeAttributes>;
};

/** The one destination of all default routes: thousands of them would have one each. */
const ANYWHERE = { 4: new Uint8Array(addressBytes(4)), 6: new Uint8Array(addressBytes(6)) } as const;

/** A route to everything by one gateway. `gateway` has 4 or 16 bytes, which is the route's family. */
export function defaultRoute(table: number, gateway: Uint8Array, protocol: number): Route {
  return {
    family: gateway.length === 4 ? 4 : 6,
    table,
    protocol,
    type: "unicast",
    destination: ANYWHERE[gateway.length === 4 ? 4 : 6],
    destinationLength: 0,
    metric: 0,
    tos: 0,
    nextHops: [{ gateway, linkIndex: 0, weight: 1, isUnusable: false }],
  };
}

/** The route in a message's body, or null when it is of another family or a cached one. @throws {DecodeError} */
export function decodeRoute(body: Uint8Array): Route | null {
  const { header, attributes: found } = routeMessage.decode(body, "");
  const family = familyOf(header.family);
  if (family === null || (header.flags & RTM_F_CLONED) !== 0) return null;
  const nextHops = nextHopsOf(header.flags, found);
  const extras = extrasOf(header, found, nextHops);
  return {
    family,
    table: found.table ?? header.table,
    protocol: header.protocol,
    type: TYPE_NAMES.get(header.type) ?? "other",
    destination: found.destination ?? ANYWHERE[family],
    destinationLength: header.destinationLength,
    metric: found.priority ?? 0,
    tos: header.tos,
    nextHops,
    ...(extras === null ? {} : { extras }),
  };
}

function extrasOf(
  { sourceLength, scope, flags }: ValueOf<typeof routeHeader>,
  found: ValueOf<typeof routeAttributes>,
  hops: readonly NextHop[],
): RouteExtras | null {
  const hasGateway = hops.some(({ gateway }) => gateway !== null);
  const header = { sourceLength, scope: hasGateway ? scope : 0, flags: flags & RTNH_F_ONLINK };
  const unknown = found.unknown?.filter(({ type, payload }) => {
    const isUsual = type === RTA_CACHEINFO ? isZero(payload.subarray(EXPIRES_AT, EXPIRES_AT + 4)) : isZero(payload);
    return !isUsual || (type !== RTA_CACHEINFO && type !== RTA_PREF);
  });
  const others = Object.entries(found).filter(([key]) => !FIELDS.has(key));
  if (unknown !== undefined && unknown.length > 0) others.push(["unknown", unknown]);
  const isPlain = others.length === 0 && Object.values(header).every((value) => value === 0);
  return isPlain ? null : { header, attributes: Object.fromEntries(others) };
}

const isZero = (bytes: Uint8Array) => bytes.every((byte) => byte === 0);

function nextHopsOf(flags: number, found: ValueOf<typeof routeAttributes>): readonly NextHop[] {
  if (found.multipath !== undefined) {
    return found.multipath.map(({ header, attributes: { gateway, via } }) => ({
      gateway: gateway ?? addressOfVia(via),
      linkIndex: header.linkIndex,
      weight: header.hops + 1,
      isUnusable: (header.flags & RTNH_F_UNUSABLE) !== 0,
    }));
  }
  const gateway = found.gateway ?? addressOfVia(found.via);
  const linkIndex = found.outputInterface ?? 0;
  if (gateway === null && linkIndex === 0) return [];
  return [{ gateway, linkIndex, weight: 1, isUnusable: (flags & RTNH_F_UNUSABLE) !== 0 }];
}

function addressOfVia(via: Uint8Array | undefined): Uint8Array | null {
  return via === undefined ? null : via.subarray(u16.size);
}

/** Body of RTM_NEWROUTE. */
export function encodeRoute(route: Route): Uint8Array {
  return routeBody(route, scopeOf(route));
}

/** Body of RTM_DELROUTE: names what tells the route from others, and any scope. */
export function encodeRouteDeletion(route: Route): Uint8Array {
  // One by a next hop's number has no gateway of its own (fib_nh_match, net/ipv4/fib_semantics.c, v6.18).
  const isByNumber = route.extras?.attributes.nextHopId !== undefined;
  return routeBody(isByNumber ? { ...route, nextHops: [] } : route, RT_SCOPE_NOWHERE);
}

/** As iproute2 chooses it: what is on the link has scope link, what is the host's own scope host. */
function scopeOf({ type, nextHops: hops }: Route): number {
  if (type === "local") return RT_SCOPE_HOST;
  if (type !== "unicast" || hops.length === 0) return RT_SCOPE_UNIVERSE;
  return hops.every(({ gateway }) => gateway === null) ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
}

function routeBody(route: Route, scope: number): Uint8Array {
  const { family, table, protocol, type, destination, destinationLength, metric, tos, nextHops: hops, extras } = route;
  if (type === "other") throw new RangeError("route.type: of a kind that is not known here");
  const [only] = hops;
  const path =
    hops.length > 1
      ? { multipath: hops.map((hop) => encodeNextHop(family, hop)) }
      : only === undefined
        ? {}
        : { outputInterface: only.linkIndex === 0 ? undefined : only.linkIndex, ...gatewayAttribute(family, only) };
  return routeMessage.encode(
    {
      header: {
        ...emptyHeader(family),
        destinationLength,
        sourceLength: extras?.header.sourceLength ?? 0,
        tos,
        table: table < HEADER_TABLE_LIMIT ? table : 0,
        protocol,
        scope,
        type: TYPES[type],
      },
      attributes: {
        destination: destinationLength === 0 ? undefined : destination,
        source: extras?.attributes.source,
        nextHopId: extras?.attributes.nextHopId,
        ...path,
        priority: metric === 0 ? undefined : metric,
        table,
      },
    },
    "",
  );
}

function encodeNextHop(family: Family, hop: NextHop) {
  const header = { flags: 0, hops: hop.weight - 1, linkIndex: hop.linkIndex };
  return { header, attributes: gatewayAttribute(family, hop) };
}

/** RTA_GATEWAY, or RTA_VIA for a gateway of the other family. */
function gatewayAttribute(family: Family, { gateway }: NextHop) {
  if (gateway === null) return {};
  if (gateway.length === addressBytes(family)) return { gateway };
  const via = new Uint8Array(u16.size + gateway.length);
  via.set(u16.encode(afOf(gateway.length === 4 ? 4 : 6), "rtvia.family"));
  via.set(gateway, u16.size);
  return { via };
}

/** Body of RTM_GETROUTE: the routes of a family; a protocol or table other than 0 lets the kernel filter. */
export function routeQuery(family: Family, protocol: number, table = 0): Uint8Array {
  const attributes = table === 0 ? {} : { table };
  return routeMessage.encode({ header: { ...emptyHeader(family), protocol }, attributes }, "");
}

/**
 * Body of RTM_GETROUTE for one destination: which route the kernel takes for a packet of that mark, and of which table.
 * `destination` has 4 or 16 bytes.
 */
export function lookUpQuery(destination: Uint8Array, fwmark: number): Uint8Array {
  const family = destination.length === 4 ? 4 : 6;
  const header = {
    ...emptyHeader(family),
    destinationLength: destination.length * 8,
    // IPv6 answers with the table anyway, and refuses to be asked for it (inet6_rtm_valid_getroute_req, v6.18).
    flags: family === 4 ? RTM_F_LOOKUP_TABLE | RTM_F_FIB_MATCH : RTM_F_FIB_MATCH,
  };
  return routeMessage.encode({ header, attributes: { destination, fwmark } }, "");
}

function emptyHeader(family: Family) {
  return {
    family: afOf(family),
    destinationLength: 0,
    sourceLength: 0,
    tos: 0,
    table: 0,
    protocol: 0,
    scope: 0,
    type: 0,
    flags: 0,
  };
}

/** The route in a line, for messages. */
export function describeRoute({ family, table, destination, destinationLength, nextHops: hops, type }: Route): string {
  const to = destinationLength === 0 ? "default" : `${describeAddress(destination)}/${destinationLength}`;
  const via = hops.map(({ gateway, linkIndex }) =>
    gateway === null ? ` link ${linkIndex}` : ` via ${describeAddress(gateway)}`,
  );
  return `IPv${family} table ${table} ${type === "unicast" ? "" : `${type} `}${to}${via.join("")}`;
}
