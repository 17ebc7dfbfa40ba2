// What the memory kernel holds and what it refuses; each rule of it is held against a real kernel by test/compliance.
import type { ValueOf } from "#bytes";
import { addressMessage, RTM_DELADDR, RTM_GETADDR, RTM_NEWADDR } from "../../src/netlink/route/address.js";
import { linkMessage, RTM_DELLINK, RTM_GETLINK, RTM_NEWLINK } from "../../src/netlink/route/link.js";
import {
  NeighborState,
  NTF_USE,
  neighborMessage,
  RTM_DELNEIGH,
  RTM_GETNEIGH,
  RTM_NEWNEIGH,
} from "../../src/netlink/route/neighbor.js";
import { RTM_DELROUTE, RTM_GETROUTE, RTM_NEWROUTE, routeMessage } from "../../src/netlink/route/route.js";
import { RTM_DELRULE, RTM_GETRULE, RTM_NEWRULE, ruleMessage } from "../../src/netlink/route/rule.js";

const NLM_F_REPLACE = 0x100;
const NLM_F_EXCL = 0x200;
const NLM_F_CREATE = 0x400;
const ENOENT = 2;
const ESRCH = 3;
const EEXIST = 17;
const ENODEV = 19;
const EINVAL = 22;
const ENETUNREACH = 101;
const EHOSTUNREACH = 113;
const AF_INET = 2;
const AF_INET6 = 10;
const FR_ACT_GOTO = 2;
const RTN_UNICAST = 1;
const IPV6_METRIC = 1024;
const V0 = 2;

/** The kernel's no. */
export class Refusal extends Error {
  readonly errno: number;
  constructor(errno: number, text = "") {
    super(text);
    this.errno = errno;
  }
}

/** Objects of one kind. Bodies are those of their messages. */
export type Table = {
  readonly types: { readonly add: number; readonly delete: number; readonly get: number };
  /** Whether a dump tells that something changed during it. */
  readonly isChecked: boolean;
  /** @returns the body of the event @throws {Refusal} */
  add(body: Uint8Array, flags: number): Uint8Array;
  delete(body: Uint8Array): Uint8Array;
  list(query: Uint8Array): readonly Uint8Array[];
};

type RuleValue = ValueOf<typeof ruleMessage>;

/** Rules in the order of the walk: by priority, of equal ones the older first (net/core/fib_rules.c, v6.18). */
export class MemoryRules implements Table {
  readonly types = { add: RTM_NEWRULE, delete: RTM_DELRULE, get: RTM_GETRULE };
  readonly isChecked = false;
  readonly #rules: RuleValue[] = [];
  readonly #bodies = new WeakMap<RuleValue, Uint8Array>();
  readonly #byPlainPart = new Map<string, RuleValue[]>();

  add(body: Uint8Array): Uint8Array {
    const { header, attributes } = ruleMessage.decode(body, "");
    const { fwmark = 0, fwmask = fwmark === 0 ? 0 : 0xffffffff, priority = 0, goto: target } = attributes;
    if (header.action === FR_ACT_GOTO && target === undefined) throw new Refusal(EINVAL, "Missing goto target");
    if (target !== undefined && target <= priority) throw new Refusal(EINVAL, "Backward goto not supported");
    const rule: RuleValue = {
      header: { ...header, table: 0 },
      attributes: {
        ...attributes,
        table: attributes.table ?? header.table,
        suppressPrefixLength: attributes.suppressPrefixLength ?? 0xffffffff,
        protocol: attributes.protocol ?? 0,
        priority,
        fwmark: fwmark === 0 ? undefined : fwmark,
        fwmask: fwmask === 0 ? undefined : fwmask,
      },
    };
    const alike = this.#alike(rule);
    if (alike.some((other) => agreesInPrefixes(rule, other))) throw new Refusal(EEXIST);
    alike.push(rule);
    const after = this.#rules.findIndex((other) => (other.attributes.priority ?? 0) > priority);
    this.#rules.splice(after < 0 ? this.#rules.length : after, 0, rule);
    const listed = ruleMessage.encode(rule, "");
    this.#bodies.set(rule, listed);
    return listed;
  }

  /** Takes the first rule that agrees in everything that the request names; a 0 names nothing. */
  delete(body: Uint8Array): Uint8Array {
    const { header, attributes } = ruleMessage.decode(body, "");
    const at = this.#rules.findIndex((rule) => {
      const { header: own, attributes: present } = rule;
      return (
        own.family === header.family &&
        (header.action === 0 || own.action === header.action) &&
        own.sourceLength === header.sourceLength &&
        own.destinationLength === header.destinationLength &&
        Object.entries(attributes).every(
          ([key, value]) => key === "unknown" || value === 0 || isSame(present[key as keyof typeof present], value),
        )
      );
    });
    if (at < 0) throw new Refusal(ENOENT);
    const rule = this.#rules.splice(at, 1)[0]!;
    const alike = this.#alike(rule);
    alike.splice(alike.indexOf(rule), 1);
    return ruleMessage.encode(rule, "");
  }

  /** Rules that are equal but for their prefixes. */
  #alike({ header, attributes }: RuleValue): RuleValue[] {
    const prefixes = { source: undefined, destination: undefined };
    const lengths = { sourceLength: 0, destinationLength: 0 };
    const key = plain([
      { ...header, ...lengths },
      { ...attributes, ...prefixes },
    ]);
    const found = this.#byPlainPart.get(key) ?? [];
    this.#byPlainPart.set(key, found);
    return found;
  }

  list(query: Uint8Array): readonly Uint8Array[] {
    const { family } = ruleMessage.decode(query, "").header;
    return this.#rules.filter((rule) => rule.header.family === family).map((rule) => this.#bodies.get(rule)!);
  }
}

/** As fib4_rule_compare does (net/ipv4/fib_rules.c, v6.18): a prefix that `asked` does not name may be any. */
function agreesInPrefixes(asked: RuleValue, present: RuleValue): boolean {
  const { header, attributes } = asked;
  const isSource = header.sourceLength === 0 || isSame(attributes.source, present.attributes.source);
  return isSource && (header.destinationLength === 0 || isSame(attributes.destination, present.attributes.destination));
}

type RouteValue = ValueOf<typeof routeMessage>;

/** Routes of all tables; one per table, destination, type of service and metric. */
export class MemoryRoutes implements Table {
  readonly types = { add: RTM_NEWROUTE, delete: RTM_DELROUTE, get: RTM_GETROUTE };
  readonly isChecked = true;
  readonly #routes = new Map<string, RouteValue>();

  add(body: Uint8Array, flags: number): Uint8Array {
    const route = completed(routeMessage.decode(body, ""));
    const key = placeOf(route);
    if (this.#routes.has(key) && (flags & NLM_F_REPLACE) === 0) throw new Refusal(EEXIST);
    if (!this.#routes.has(key) && (flags & NLM_F_CREATE) === 0) throw new Refusal(ENOENT);
    this.#routes.set(key, route);
    return routeMessage.encode(route, "");
  }

  delete(body: Uint8Array): Uint8Array {
    const asked = routeMessage.decode(body, "");
    const { gateway, multipath, priority } = asked.attributes;
    for (const [key, route] of this.#routes) {
      const { header, attributes } = route;
      const isIt =
        key === placeOf({ ...asked, attributes: { ...asked.attributes, priority: priority ?? attributes.priority } }) &&
        (asked.header.type === 0 || header.type === asked.header.type) &&
        (asked.header.protocol === 0 || header.protocol === asked.header.protocol) &&
        (gateway === undefined || plain(attributes.gateway) === plain(gateway)) &&
        (multipath === undefined || plain(gatewaysOf(route)) === plain(gatewaysOf(asked)));
      if (!isIt) continue;
      this.#routes.delete(key);
      return routeMessage.encode(route, "");
    }
    throw new Refusal(ESRCH);
  }

  list(query: Uint8Array): readonly Uint8Array[] {
    const { family, protocol } = routeMessage.decode(query, "").header;
    return [...this.#routes.values()]
      .filter(({ header }) => header.family === family && (protocol === 0 || header.protocol === protocol))
      .map((route) => routeMessage.encode(route, ""));
  }
}

/** Fills in what the kernel finds out: the metric of IPv6, the link of a gateway. */
function completed({ header, attributes }: RouteValue): RouteValue {
  const { priority, gateway, multipath, outputInterface } = attributes;
  for (const address of gatewaysOf({ header, attributes })) requireOnLink(header.family, address);
  return {
    header,
    attributes: {
      ...attributes,
      priority: priority ?? (header.family === AF_INET6 ? IPV6_METRIC : undefined),
      table: attributes.table ?? header.table,
      outputInterface: outputInterface ?? (header.type === RTN_UNICAST && gateway !== undefined ? V0 : undefined),
      multipath: multipath?.map((hop) => ({ ...hop, header: { ...hop.header, linkIndex: V0 } })),
    },
  };
}

function gatewaysOf({ attributes: { gateway, multipath } }: RouteValue): readonly Uint8Array[] {
  if (multipath !== undefined) return multipath.flatMap((hop) => hop.attributes.gateway ?? []);
  return gateway === undefined ? [] : [gateway];
}

function requireOnLink(family: number, gateway: Uint8Array): void {
  const isOnLink = family === AF_INET ? gateway[0] === 10 && gateway[1] === 1 : gateway[0] === 0xfd && gateway[1] === 0;
  if (!isOnLink) throw new Refusal(family === AF_INET ? ENETUNREACH : EHOSTUNREACH, "Nexthop has invalid gateway");
}

function placeOf({ header, attributes }: RouteValue): string {
  const { family, destinationLength, tos, table } = header;
  const destination = destinationLength === 0 ? "" : plain(attributes.destination);
  return plain([family, attributes.table ?? table, destinationLength, destination, tos, attributes.priority ?? 0]);
}

type NeighborValue = ValueOf<typeof neighborMessage>;

/** Neighbor entries (net/core/neighbour.c, v6.18). Nobody answers here: what is resolved stays incomplete. */
export class MemoryNeighbors implements Table {
  readonly types = { add: RTM_NEWNEIGH, delete: RTM_DELNEIGH, get: RTM_GETNEIGH };
  readonly isChecked = true;
  readonly #neighbors = new Map<string, NeighborValue>();

  add(body: Uint8Array, flags: number): Uint8Array {
    const { header, attributes } = neighborMessage.decode(body, "");
    const key = this.#keyOf(header, attributes.destination);
    const before = this.#neighbors.get(key);
    if (before === undefined && (flags & NLM_F_CREATE) === 0) throw new Refusal(ENOENT);
    if (before !== undefined && (flags & NLM_F_EXCL) !== 0) throw new Refusal(EEXIST);
    const linkLayerAddress =
      attributes.linkLayerAddress ?? (isValid(before) ? before?.attributes.linkLayerAddress : undefined);
    const isUsed = (header.flags & NTF_USE) !== 0;
    const after = {
      header: {
        ...header,
        state: isUsed ? NeighborState.incomplete : header.state,
        flags: header.flags & ~NTF_USE,
        type: 1,
      },
      attributes: { ...before?.attributes, ...attributes, linkLayerAddress },
    };
    if (isValid(after) && linkLayerAddress === undefined) throw new Refusal(EINVAL, "No link layer address given");
    this.#neighbors.set(key, after);
    return neighborMessage.encode(after, "");
  }

  delete(body: Uint8Array): Uint8Array {
    const { header, attributes } = neighborMessage.decode(body, "");
    const key = this.#keyOf(header, attributes.destination);
    const found = this.#neighbors.get(key);
    if (found === undefined) throw new Refusal(ENOENT);
    this.#neighbors.delete(key);
    return neighborMessage.encode(found, "");
  }

  list(query: Uint8Array): readonly Uint8Array[] {
    const { header, attributes } = neighborMessage.decode(query, "");
    return [...this.#neighbors.values()]
      .filter((one) => one.header.family === header.family)
      .filter((one) => attributes.linkIndex === undefined || one.header.linkIndex === attributes.linkIndex)
      .map((one) => neighborMessage.encode(one, ""));
  }

  #keyOf({ family, linkIndex }: NeighborValue["header"], destination: Uint8Array | undefined): string {
    if (destination === undefined) throw new Refusal(EINVAL, "Network address not specified");
    if (linkIndex !== 1 && linkIndex !== V0) throw new Refusal(ENODEV);
    return plain([family, linkIndex, destination]);
  }
}

/** NUD_VALID: states in which there is a link-layer address. */
function isValid(neighbor: NeighborValue | undefined): boolean {
  const { reachable, stale, delay, probe, noarp, permanent } = NeighborState;
  return (
    neighbor !== undefined && (neighbor.header.state & (reachable | stale | delay | probe | noarp | permanent)) !== 0
  );
}

/** Links and addresses, which never change here. */
export class MemoryLinks implements Table {
  readonly types: Table["types"];
  readonly isChecked = true;
  readonly #bodies: readonly Uint8Array[];

  private constructor(types: Table["types"], bodies: readonly Uint8Array[]) {
    this.types = types;
    this.#bodies = bodies;
  }

  static both(): readonly Table[] {
    const link = (index: number, name: string, type: number) =>
      linkMessage.encode(
        { header: { family: 0, pad: 0, type, index, flags: 0x11043, change: 0 }, attributes: { name, mtu: 1500 } },
        "",
      );
    const address = (family: number, prefixLength: number, hex: string) =>
      addressMessage.encode(
        {
          header: { family, prefixLength, flags: 0x80, scope: 0, index: V0 },
          attributes: { address: new Uint8Array(Buffer.from(hex, "hex")) },
        },
        "",
      );
    const links = { add: RTM_NEWLINK, delete: RTM_DELLINK, get: RTM_GETLINK };
    const addresses = { add: RTM_NEWADDR, delete: RTM_DELADDR, get: RTM_GETADDR };
    return [
      new MemoryLinks(links, [link(1, "lo", 772), link(V0, "v0", 1)]),
      new MemoryLinks(addresses, [address(AF_INET, 16, "0a010001"), address(AF_INET6, 64, `fd${"00".repeat(14)}01`)]),
    ];
  }

  add(): Uint8Array {
    throw new Refusal(EINVAL);
  }

  delete(): Uint8Array {
    throw new Refusal(EINVAL);
  }

  list(): readonly Uint8Array[] {
    return this.#bodies;
  }
}

function isSame(a: unknown, b: unknown): boolean {
  return typeof a === "object" || typeof b === "object" ? plain(a) === plain(b) : a === b;
}

/** Text that is equal for equal values. */
function plain(value: unknown): string {
  return (
    JSON.stringify(value, (_key, one) => (one instanceof Uint8Array ? Buffer.from(one).toString("hex") : one)) ?? ""
  );
}
