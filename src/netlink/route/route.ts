import { concat } from "#bytes";
import { AF_INET, AF_INET6, type NetlinkSocket } from "#sys";
import type { NetlinkConnection } from "../connection.js";
import { NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE } from "../message.js";
import { NETLINK_ROUTE, openConnection, subscribe } from "../open.js";
import {
  addressAttributes,
  addressHeader,
  FR_ACT_GOTO,
  FR_ACT_NOP,
  FR_ACT_TO_TBL,
  linkAttributes,
  linkHeader,
  RT_SCOPE_NOWHERE,
  RT_SCOPE_UNIVERSE,
  RTM_DELROUTE,
  RTM_DELRULE,
  RTM_GETADDR,
  RTM_GETLINK,
  RTM_GETROUTE,
  RTM_GETRULE,
  RTM_NEWROUTE,
  RTM_NEWRULE,
  RTN_UNICAST,
  routeAttributes,
  routeHeader,
  ruleAttributes,
  ruleHeader,
} from "./codecs.js";

export type Family = 4 | 6;

/** An entry of `ip rule`; only what we use. */
export type Rule = {
  readonly family: Family;
  readonly priority: number;
  readonly fwmark: number | null;
  /** Mask of the mark, 0xffffffff = the whole. */
  readonly fwmask: number;
  readonly action: "table" | "goto" | "nop" | "other";
  /** Routing table of action `table`. */
  readonly table: number;
  /** Priority to go on at, of action `goto`. */
  readonly goto: number | null;
  /** Routing protocol number: who made it. */
  readonly protocol: number;
};

/** A default route `via` a gateway in a table. */
export type DefaultRoute = {
  readonly family: Family;
  readonly table: number;
  readonly protocol: number;
  /** Address bytes, 4 or 16. */
  readonly gateway: Uint8Array;
};

/** A route as the kernel lists it. */
export type ListedRoute = Omit<DefaultRoute, "gateway"> & {
  readonly gateway: Uint8Array | null;
  readonly destinationLength: number;
  readonly metric: number;
};

export type Link = { readonly index: number; readonly name: string; readonly isUp: boolean };
export type LocalAddress = { readonly family: Family; readonly index: number; readonly address: Uint8Array };

/** RTNLGRP_*: rules, routes, links and addresses of both families. */
const RTNLGRP_LINK = 1;
const RTNLGRP_IPV4_IFADDR = 5;
const RTNLGRP_IPV4_ROUTE = 7;
const RTNLGRP_IPV4_RULE = 8;
const RTNLGRP_IPV6_IFADDR = 9;
const RTNLGRP_IPV6_ROUTE = 11;
const RTNLGRP_IPV6_RULE = 19;
const GROUPS = [
  RTNLGRP_LINK,
  RTNLGRP_IPV4_IFADDR,
  RTNLGRP_IPV4_ROUTE,
  RTNLGRP_IPV4_RULE,
  RTNLGRP_IPV6_IFADDR,
  RTNLGRP_IPV6_ROUTE,
  RTNLGRP_IPV6_RULE,
];
const IFF_UP = 1;
const MAIN_TABLE_LIMIT = 256;

const afOf = (family: Family) => (family === 4 ? AF_INET : AF_INET6);
const familyOf = (af: number): Family => (af === AF_INET ? 4 : 6);

/** rtnetlink of the network namespace it was opened in; synchronous. */
export class RouteConnection implements Disposable {
  readonly #connection: NetlinkConnection;
  readonly #socket: NetlinkSocket;

  constructor() {
    const { connection, socket } = openConnection(NETLINK_ROUTE);
    this.#connection = connection;
    this.#socket = socket;
  }

  /** All rules of a family, in the kernel's order. */
  rules(family: Family): readonly Rule[] {
    const body = ruleHeader.encode({ ...ruleDefaults(family), action: 0 }, "");
    return this.#connection.dump("RTM_GETRULE", RTM_GETRULE, body).map(({ body: reply }) => {
      const header = ruleHeader.decode(reply, "");
      const found = ruleAttributes.decode(reply.subarray(ruleHeader.size), "fib_rule_hdr");
      return {
        family,
        priority: found.priority ?? 0,
        fwmark: found.fwmark ?? null,
        fwmask: found.fwmask ?? 0xffffffff,
        action:
          header.action === FR_ACT_TO_TBL
            ? "table"
            : header.action === FR_ACT_GOTO
              ? "goto"
              : header.action === FR_ACT_NOP
                ? "nop"
                : "other",
        table: found.table ?? header.table,
        goto: found.goto ?? null,
        protocol: found.protocol ?? 0,
      };
    });
  }

  /** @throws {NetlinkError} EEXIST: an equal rule of that priority is there */
  addRule(rule: Rule): void {
    this.#connection.request(
      `RTM_NEWRULE ${describeRule(rule)}`,
      RTM_NEWRULE,
      NLM_F_CREATE | NLM_F_EXCL,
      ruleBody(rule),
    );
  }

  /** @throws {NetlinkError} ENOENT: there is no such rule */
  deleteRule(rule: Rule): void {
    this.#connection.request(`RTM_DELRULE ${describeRule(rule)}`, RTM_DELRULE, 0, ruleBody(rule));
  }

  /** The routes of one family that a routing protocol number marks; the kernel filters where it can. */
  routes(family: Family, protocol: number): readonly ListedRoute[] {
    const header = { ...routeDefaults(family), protocol, type: 0 };
    const routes = this.#connection.dump("RTM_GETROUTE", RTM_GETROUTE, routeHeader.encode(header, ""));
    return routes.flatMap(({ body }) => {
      const found = routeHeader.decode(body, "");
      if (found.protocol !== protocol || found.family !== afOf(family)) return [];
      const attributes = routeAttributes.decode(body.subarray(routeHeader.size), "rtmsg");
      return [
        {
          family,
          table: attributes.table ?? found.table,
          protocol: found.protocol,
          gateway: attributes.gateway ?? null,
          destinationLength: found.destinationLength,
          metric: attributes.priority ?? 0,
        },
      ];
    });
  }

  /** Adds the default route of a table, or changes its gateway in one step. @throws {NetlinkError} gateway unreachable … */
  replaceRoute(route: DefaultRoute): void {
    const flags = NLM_F_CREATE | NLM_F_REPLACE;
    this.#connection.request(
      `RTM_NEWROUTE ${describeRoute(route)}`,
      RTM_NEWROUTE,
      flags,
      routeBody(route, RT_SCOPE_UNIVERSE),
    );
  }

  /** @throws {NetlinkError} ESRCH: there is no such route */
  deleteRoute(route: ListedRoute): void {
    const body = routeBody(route, RT_SCOPE_NOWHERE);
    this.#connection.request(`RTM_DELROUTE ${describeRoute(route)}`, RTM_DELROUTE, 0, body);
  }

  links(): readonly Link[] {
    const body = linkHeader.encode({ family: 0, pad: 0, type: 0, index: 0, flags: 0, change: 0 }, "");
    return this.#connection.dump("RTM_GETLINK", RTM_GETLINK, body).map(({ body: reply }) => {
      const { index, flags } = linkHeader.decode(reply, "");
      const { name } = linkAttributes.decode(reply.subarray(linkHeader.size), "ifinfomsg");
      return { index, name: name ?? "", isUp: (flags & IFF_UP) !== 0 };
    });
  }

  /** The host's own addresses. */
  addresses(): readonly LocalAddress[] {
    const body = addressHeader.encode({ family: 0, prefixLength: 0, flags: 0, scope: 0, index: 0 }, "");
    return this.#connection.dump("RTM_GETADDR", RTM_GETADDR, body).flatMap(({ body: reply }) => {
      const { family, index } = addressHeader.decode(reply, "");
      const found = addressAttributes.decode(reply.subarray(addressHeader.size), "ifaddrmsg");
      const address = found.local ?? found.address;
      return address === undefined ? [] : [{ family: familyOf(family), index, address }];
    });
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }
}

/** Calls `onChange` when a rule, route, link or address changed, or changes may have been missed. */
export function watchRoutes(onChange: () => void): () => void {
  return subscribe(NETLINK_ROUTE, GROUPS, onChange, onChange);
}

function ruleDefaults(family: Family) {
  return {
    family: afOf(family),
    destinationLength: 0,
    sourceLength: 0,
    tos: 0,
    table: 0,
    res1: 0,
    res2: 0,
    action: FR_ACT_TO_TBL,
    flags: 0,
  };
}

function ruleBody({ family, priority, fwmark, fwmask, action, table, goto: target, protocol }: Rule): Uint8Array {
  const number = action === "table" ? FR_ACT_TO_TBL : action === "goto" ? FR_ACT_GOTO : FR_ACT_NOP;
  const header = ruleHeader.encode(
    { ...ruleDefaults(family), table: table < MAIN_TABLE_LIMIT ? table : 0, action: number },
    "",
  );
  const attributes = ruleAttributes.encode(
    {
      goto: target ?? undefined,
      priority,
      fwmark: fwmark ?? undefined,
      table: action === "table" ? table : undefined,
      fwmask: fwmark === null ? undefined : fwmask,
      protocol,
    },
    "fib_rule_hdr",
  );
  return concat([header, attributes]);
}

function routeDefaults(family: Family) {
  return {
    family: afOf(family),
    destinationLength: 0,
    sourceLength: 0,
    tos: 0,
    table: 0,
    protocol: 0,
    scope: 0,
    type: RTN_UNICAST,
    flags: 0,
  };
}

function routeBody(
  { family, table, protocol, gateway }: Omit<DefaultRoute, "gateway"> & { readonly gateway: Uint8Array | null },
  scope: number,
): Uint8Array {
  const header = { ...routeDefaults(family), table: table < MAIN_TABLE_LIMIT ? table : 0, protocol, scope };
  return concat([
    routeHeader.encode(header, ""),
    routeAttributes.encode({ gateway: gateway ?? undefined, table }, "rtmsg"),
  ]);
}

function describeRule({ family, priority, fwmark, action, table, goto: target }: Rule): string {
  const match = fwmark === null ? "all" : `fwmark ${fwmark}`;
  return `IPv${family} ${priority}: ${match} ${action}${action === "table" ? ` ${table}` : target === null ? "" : ` ${target}`}`;
}

function describeRoute({
  family,
  table,
  gateway,
}: {
  family: Family;
  table: number;
  gateway: Uint8Array | null;
}): string {
  return `IPv${family} table ${table} via ${gateway === null ? "-" : family === 4 ? gateway.join(".") : Buffer.from(gateway).toString("hex")}`;
}
