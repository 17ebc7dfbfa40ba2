import {
  followRoutes,
  type Link,
  type LocalAddress,
  type Route,
  type RouteConnection,
  type RouteEvent,
  type Rule,
} from "#netlink/route";
import { Neighbors } from "./neighbors.js";
import { formatGateway } from "./nft-format.js";
import { OUR_PROTOCOL } from "./state.js";

const FAMILIES = [4, 6] as const;

/** What the kernel tells of its objects, as they are; a loss is one of them. */
export type KernelEvent = RouteEvent;

/**
 * What the kernel holds of our rules and routes, and of everybody's links, addresses and neighbors: read once, kept by
 * the kernel's events, read anew after a loss. So a turn costs no dump however many targets there are.
 *
 * Routes are the difficult part. IPv4 tells nothing of those that go with a link or an address (fib_table_flush,
 * net/ipv4/fib_trie.c, v6.18), and multipath routes change by parts: then all routes of ours are read again. What we make
 * ourselves, one default route per table and family, is followed event by event.
 */
export class KernelMirror implements Disposable {
  readonly #connection: RouteConnection;
  readonly #onChange: () => void;
  readonly #onEvent: (event: KernelEvent) => void;
  readonly #following: ReturnType<typeof followRoutes>;
  readonly #rules = new Map<string, Rule>();
  /** By family and table; several are somebody else's doing. */
  readonly #routes = new Map<string, readonly Route[]>();
  readonly #links = new Map<number, Link>();
  readonly #addresses = new Map<string, LocalAddress>();
  readonly neighbors = new Neighbors();
  /** Events of what we do ourselves; they are no news. */
  readonly #expected = new Set<string>();
  #areRoutesUnsure = false;
  #isLost = true;
  #events = 0;
  /** How often events were lost and everything was read anew. */
  overruns = 0;

  /** @param onChange something changed, by others than us; `onEvent`: whatever the kernel tells */
  constructor(connection: RouteConnection, onChange: () => void, onEvent: (event: KernelEvent) => void) {
    this.#connection = connection;
    this.#onChange = onChange;
    this.#onEvent = onEvent;
    this.#following = followRoutes(["rule", "route", "link", "address", "neighbor"], (event) => this.#take(event));
  }

  /** Brings everything up to the kernel's state of this moment. */
  settle(): void {
    this.#following.drain();
    if (this.#isLost) this.verify();
    else if (this.#areRoutesUnsure) this.#readRoutes();
  }

  /** Reads everything anew. @returns whether it was what the events had told, as far as nothing happened meanwhile */
  verify(): boolean {
    this.#following.drain();
    const before = this.#isLost ? null : this.#fingerprint();
    const events = this.#events;
    this.#isLost = false;
    this.#expected.clear();
    this.#rules.clear();
    for (const family of FAMILIES) for (const rule of this.#connection.rules(family)) this.#takeRule("new", rule);
    this.#readRoutes();
    this.#links.clear();
    for (const link of this.#connection.links()) this.#links.set(link.index, link);
    this.#addresses.clear();
    for (const address of this.#connection.addresses()) this.#addresses.set(addressKey(address), address);
    const entries = FAMILIES.flatMap((family) => this.#connection.neighbors(family));
    this.neighbors.replace(entries, (index) => this.#links.has(index));
    const isSame = before === null || before === this.#fingerprint();
    this.#following.drain();
    return isSame || events !== this.#events;
  }

  get rules(): readonly Rule[] {
    return [...this.#rules.values()].sort((a, b) => a.priority - b.priority);
  }

  get routes(): readonly Route[] {
    return [...this.#routes.values()].flat();
  }

  /** The routes in the tables of these marks. */
  routesOf(fwmarks: Iterable<number>): readonly Route[] {
    return [...fwmarks].flatMap((table) => FAMILIES.flatMap((family) => this.#routes.get(`${family} ${table}`) ?? []));
  }

  get links(): ReadonlyMap<number, Link> {
    return this.#links;
  }

  get addresses(): readonly LocalAddress[] {
    return [...this.#addresses.values()];
  }

  /** An event with this text is of our own making. */
  expect(text: string): void {
    this.#expected.add(text);
  }

  #take(event: RouteEvent): void {
    this.#events++;
    this.#onEvent(event);
    const isNews = this.#apply(event);
    if (isNews && !this.#expected.delete(eventText(event))) this.#onChange();
  }

  /** @returns whether it may change what we would do */
  #apply(event: RouteEvent): boolean {
    switch (event.kind) {
      case "overrun":
        this.overruns++;
        this.#isLost = true;
        return true;
      case "rule":
        return this.#takeRule(event.change, event.rule);
      case "route":
        return this.#takeRoute(event);
      case "link":
        return this.#takeLink(event.change, event.link);
      case "address":
        if (event.change === "new") this.#addresses.set(addressKey(event.address), event.address);
        else this.#addresses.delete(addressKey(event.address));
        this.#areRoutesUnsure ||= event.change === "deleted";
        return true;
      case "neighbor":
        return this.neighbors.take(event.change, event.neighbor);
    }
  }

  #takeRule(change: "new" | "deleted", rule: Rule): boolean {
    if (rule.protocol !== OUR_PROTOCOL) return false;
    const key = ruleText(rule);
    if (change === "new") this.#rules.set(key, rule);
    else this.#rules.delete(key);
    return true;
  }

  #takeRoute({ change, route, isReplacement }: RouteEvent & { readonly kind: "route" }): boolean {
    const key = `${route.family} ${route.table}`;
    const present = this.#routes.get(key) ?? [];
    // A foreign route counts only where it may have taken the place of ours: `ip route replace` names no protocol.
    if (route.protocol !== OUR_PROTOCOL && present.length === 0) return false;
    const [only] = present;
    const isAlone = only === undefined || isReplacement || routeText(only) === routeText(route);
    const isSimple = isPlain(route) && present.length <= 1 && present.every(isPlain) && isAlone;
    if (!isSimple || route.protocol !== OUR_PROTOCOL) this.#areRoutesUnsure = true;
    else if (change === "new") this.#routes.set(key, [route]);
    else this.#routes.delete(key);
    return true;
  }

  #takeLink(change: "new" | "deleted", link: Link): boolean {
    const before = this.#links.get(link.index);
    if (change === "new") this.#links.set(link.index, link);
    else this.#links.delete(link.index);
    const isSame = change === "new" && before !== undefined && linkText(before) === linkText(link);
    if (!isSame) this.#areRoutesUnsure = true;
    return !isSame;
  }

  #readRoutes(): void {
    this.#areRoutesUnsure = false;
    this.#routes.clear();
    for (const family of FAMILIES) {
      for (const route of this.#connection.routes(family, OUR_PROTOCOL)) {
        const key = `${family} ${route.table}`;
        this.#routes.set(key, [...(this.#routes.get(key) ?? []), route]);
      }
    }
  }

  #fingerprint(): string {
    const links = [...this.#links.values()].map(linkText);
    const texts = [...this.#rules.keys(), ...this.routes.map(routeText), ...links, ...this.#addresses.keys()];
    return texts.sort().join("\n");
  }

  [Symbol.dispose](): void {
    this.#following.stop();
  }
}

/** A default route by one gateway, as we make them. */
function isPlain({ destinationLength, type, nextHops }: Route): boolean {
  return destinationLength === 0 && type === "unicast" && nextHops.length === 1;
}

/** What {@link KernelMirror.expect} is told of a rule that is added or deleted by us. */
export function ruleChange(change: "new" | "deleted", rule: Rule): string {
  return `rule ${change} ${ruleText(rule)}`;
}

/** The same for a route. */
export function routeChange(change: "new" | "deleted", { family, table, gateway }: RouteName): string {
  return `route ${change} ${family} ${table} ${gateway}`;
}

type RouteName = { readonly family: 4 | 6; readonly table: number; readonly gateway: string };

/** An event for people: the object's kind, what became of it, and what it is. */
export function formatEvent(event: KernelEvent): string {
  switch (event.kind) {
    case "overrun":
      return "events were lost";
    case "rule":
      return `rule ${event.change} ${ruleText(event.rule)}, protocol ${event.rule.protocol}`;
    case "route":
      return `route ${event.change} ${routeText(event.route)}, protocol ${event.route.protocol}`;
    case "link":
      return `link ${event.change} ${linkText(event.link)}`;
    case "address":
      return `address ${event.change} ${addressKey(event.address)}`;
    case "neighbor":
      return `neighbor ${event.change} ${event.neighbor.linkIndex} ${formatGateway(event.neighbor.address)}, state ${event.neighbor.state}`;
  }
}

function eventText(event: RouteEvent): string {
  if (event.kind === "rule") return ruleChange(event.change, event.rule);
  if (event.kind !== "route") return "";
  const { family, table, nextHops } = event.route;
  const gateway = nextHops[0]?.gateway ?? null;
  return routeChange(event.change, { family, table, gateway: gateway === null ? "" : formatGateway(gateway) });
}

function ruleText({ family, priority, fwmark, fwmask, action, table, goto: target, selectors }: Rule): string {
  const more = selectors === undefined ? "" : JSON.stringify(selectors);
  return `${family} ${priority} ${fwmark} ${fwmask} ${action} ${action === "table" ? table : target} ${more}`;
}

function routeText({ family, table, destinationLength, metric, nextHops }: Route): string {
  const hops = nextHops.map(
    ({ gateway, linkIndex }) => `${gateway === null ? "" : formatGateway(gateway)} ${linkIndex}`,
  );
  return `${family} ${table} ${destinationLength} ${metric} ${hops.join(",")}`;
}

/** What of a link decides about paths. */
function linkText({ index, name, isUp, hasCarrier, operationalState }: Link): string {
  return `${index} ${name} ${isUp} ${hasCarrier} ${operationalState}`;
}

function addressKey({ linkIndex, address, prefixLength }: LocalAddress): string {
  return `${linkIndex} ${formatGateway(address)}/${prefixLength}`;
}
