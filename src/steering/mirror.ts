import {
  addressKey,
  followRoutes,
  type Link,
  type LocalAddress,
  type NeighborKey,
  type NeighborView,
  type RouteConnection,
  type RouteEvent,
  type Rule,
} from "#netlink/route";
import { type NeighborNews, Neighbors } from "./neighbors.js";
import { formatGateway } from "./nft-format.js";
import { type RouteName, RouteTables, routeText } from "./route-tables.js";
import { OUR_PROTOCOL } from "./state.js";

const FAMILIES = [4, 6] as const;
/** So many verifications come to one that reads neighbors too. Their entries are many, and their events are reliable. */
const VERIFICATIONS_PER_NEIGHBORS = 6;

/** What the kernel tells of its objects, as they are; a loss is one of them. */
export type KernelEvent = RouteEvent;

/**
 * What a reading back found: nothing new; something that is new, or may be; or, nothing having happened meanwhile, that
 * events had not told how it is.
 */
export type Verification = "same" | "news" | "drift";

/** Who is told of what the mirror hears. */
export type MirrorListeners = {
  /** Something changed, by others than us. */
  readonly onChange: () => void;
  /**
   * Whatever the kernel tells.
   * @param event makes it; to be called at once or never
   * @param isNews false: a neighbor's entry changed, and nothing about the neighbor
   */
  readonly onEvent: (event: () => KernelEvent, isNews: boolean) => void;
  /** A neighbor was heard of first: news only to who waits for it. */
  readonly onHeard: () => void;
};

/**
 * What the kernel holds of our rules and routes, and of everybody's links, addresses and neighbors: read once, kept by
 * the kernel's events, read anew after a loss. So a turn costs no dump however many targets there are.
 */
export class KernelMirror implements Disposable {
  readonly #connection: RouteConnection;
  readonly #listeners: MirrorListeners;
  readonly #following: ReturnType<typeof followRoutes>;
  readonly #rules = new Map<string, Rule>();
  readonly #routes: RouteTables;
  readonly #links = new Map<number, Link>();
  readonly #addresses = new Map<string, LocalAddress>();
  readonly neighbors = new Neighbors();
  /** Events of what we do ourselves; they are no news. */
  readonly #expected = new Set<string>();
  #isLost = true;
  #events = 0;
  #revision = 0;
  #factsRevision = 0;
  /** Events of rules and routes that are ours, or in a table of ours. */
  #objectEvents = 0;
  /** Of rules and routes as they were read last, and how many events of them there had been by then. */
  #verified = { digest: "", objectEvents: 0 };
  #verifications = 0;
  #ruleList: readonly Rule[] | null = null;
  /** How often events were lost and everything was read anew. */
  overruns = 0;

  constructor(connection: RouteConnection, listeners: MirrorListeners) {
    this.#connection = connection;
    this.#routes = new RouteTables(connection);
    this.#listeners = listeners;
    this.#following = followRoutes(
      ["rule", "route", "link", "address", "neighbor"],
      (event) => this.#take(event),
      undefined,
      (neighbor) => this.#hear(neighbor),
    );
  }

  /** Brings everything up to the kernel's state of this moment. */
  settle(): void {
    this.#following.drain();
    if (this.#isLost) this.verify();
    else if (this.#routes.settle()) this.#revision++;
  }

  /** Reads back what is known; neighbors, who are nobody's drift, now and then only. */
  verify(): Verification {
    this.#following.drain();
    const revision = this.#revision;
    const events = this.#events;
    const wasLost = this.#isLost;
    this.#isLost = false;
    this.#expected.clear();
    const areObjectsSame = this.#verifyObjects(wasLost);
    const areLinksSame = this.#verifyLinks();
    if (wasLost || ++this.#verifications % VERIFICATIONS_PER_NEIGHBORS === 0) this.#readNeighbors();
    this.#following.drain();
    const isAsTold = wasLost || (areObjectsSame && areLinksSame) || events !== this.#events;
    if (!isAsTold) return "drift";
    return wasLost || revision !== this.#revision ? "news" : "same";
  }

  /** Rules and routes are read only if a digest of them, or an event, says that they are others than when they were read. */
  #verifyObjects(wasLost: boolean): boolean {
    const digest = this.#connection.digest(OUR_PROTOCOL);
    const { objectEvents } = this.#verified;
    const isKnown = digest === this.#verified.digest && objectEvents === this.#objectEvents;
    if (!wasLost && isKnown && !this.#routes.isUnsure) return true;
    const before = this.#objectsText();
    const rules = FAMILIES.flatMap((family) => this.#connection.rules(family));
    this.#rules.clear();
    this.#ruleList = null;
    for (const rule of rules) this.#takeRule("new", rule);
    this.#routes.read(wasLost);
    this.#revision++;
    this.#verified = { digest, objectEvents: this.#objectEvents };
    return wasLost || before === this.#objectsText();
  }

  #verifyLinks(): boolean {
    const before = this.#linksText();
    const [links, addresses] = [this.#connection.links(), this.#connection.addresses()];
    this.#links.clear();
    for (const link of links) this.#links.set(link.index, link);
    this.#addresses.clear();
    for (const address of addresses) this.#addresses.set(localAddressKey(address), address);
    if (before === this.#linksText()) return true;
    this.#factsChanged();
    return false;
  }

  #readNeighbors(): void {
    const entries = FAMILIES.flatMap((family) => this.#connection.neighborStates(family));
    this.neighbors.replace(entries, (index) => this.#links.has(index));
    this.#factsChanged();
  }

  /** The same list as long as no rule changed. */
  get rules(): readonly Rule[] {
    this.#ruleList ??= [...this.#rules.values()].sort((a, b) => a.priority - b.priority);
    return this.#ruleList;
  }

  get routes(): Pick<RouteTables, "routes" | "of" | "shared" | "isAstray"> {
    return this.#routes;
  }

  /** Another number whenever anything here may be another than before. */
  get revision(): number {
    return this.#revision;
  }

  /** Another number whenever anything of links, addresses and neighbors may be another than before. */
  get factsRevision(): number {
    return this.#factsRevision;
  }

  get links(): ReadonlyMap<number, Link> {
    return this.#links;
  }

  get addresses(): readonly LocalAddress[] {
    return [...this.#addresses.values()];
  }

  /** As {@link Neighbors.forget}, on every link. */
  forgetNeighbor(address: Uint8Array): readonly NeighborKey[] {
    const key = addressKey(address);
    const wasFailed = [...this.#links.keys()].some((index) => this.neighbors.isFailed(index, key));
    const dropped = this.neighbors.forget(address, this.#links.keys());
    if (wasFailed) this.#factsChanged(); // others may have the same gateway
    return dropped;
  }

  /** An event with this text is of our own making. */
  expect(text: string): void {
    this.#expected.add(text);
  }

  /** We have made this route. */
  expectRoute(route: RouteName): void {
    this.expect(routeChange("new", route));
    this.#routes.made(route);
  }

  #take(event: RouteEvent): void {
    this.#events++;
    this.#listeners.onEvent(() => event, true);
    if (!this.#apply(event)) return;
    if (event.kind === "rule" || event.kind === "route") {
      this.#objectEvents++;
      this.#revision++;
    } else this.#factsChanged();
    if (!this.#expected.delete(eventText(event))) this.#listeners.onChange();
    else if (event.kind === "route") this.#routes.takeOwn(event.change, event.route);
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
        return this.#routes.take(event.change, event.route, event.isReplacement);
      case "link":
        return this.#takeLink(event.change, event.link);
      case "address":
        if (event.change === "new") this.#addresses.set(localAddressKey(event.address), event.address);
        else this.#addresses.delete(localAddressKey(event.address));
        if (event.change === "deleted") this.#routes.doubt();
        return true;
      case "neighbor": {
        const { linkIndex, address, state } = event.neighbor;
        return this.#learn(this.neighbors.take(event.change, linkIndex, addressKey(address), state));
      }
    }
  }

  /** As #take, of a neighbor: nearly all are no news, and nothing is made of those. */
  #hear(neighbor: NeighborView): void {
    this.#events++;
    const { change } = neighbor;
    const news = this.neighbors.take(change, neighbor.linkIndex, neighbor.key, neighbor.state, neighbor.mac);
    this.#listeners.onEvent(() => ({ kind: "neighbor", change, neighbor: neighbor.decode() }), news !== "nothing");
    if (news === "nothing" || !this.#learn(news)) return;
    this.#factsChanged();
    this.#listeners.onChange();
  }

  /** @returns whether it may change what we would do */
  #learn(news: NeighborNews): boolean {
    if (news !== "heard") return news === "failure";
    this.#factsChanged();
    this.#listeners.onHeard();
    return false;
  }

  #factsChanged(): void {
    this.#revision++;
    this.#factsRevision++;
  }

  #takeRule(change: "new" | "deleted", rule: Rule): boolean {
    if (rule.protocol !== OUR_PROTOCOL) return false;
    const key = ruleText(rule);
    this.#ruleList = null;
    if (change === "new") this.#rules.set(key, rule);
    else this.#rules.delete(key);
    return true;
  }

  #takeLink(change: "new" | "deleted", link: Link): boolean {
    const before = this.#links.get(link.index);
    if (change === "new") this.#links.set(link.index, link);
    else this.#links.delete(link.index);
    const isSame = change === "new" && before !== undefined && linkText(before) === linkText(link);
    if (!isSame) this.#routes.doubt();
    return !isSame;
  }

  #objectsText(): string {
    return [...this.#rules.keys(), ...this.#routes.routes.map(routeText)].sort().join("\n");
  }

  #linksText(): string {
    return [...[...this.#links.values()].map(linkText), ...this.#addresses.keys()].sort().join("\n");
  }

  [Symbol.dispose](): void {
    this.#following.stop();
  }
}

/** What {@link KernelMirror.expect} is told of a rule that is added or deleted by us. */
export function ruleChange(change: "new" | "deleted", rule: Rule): string {
  return `rule ${change} ${ruleText(rule)}`;
}

/** The same for a route. */
export function routeChange(change: "new" | "deleted", { family, table, gateway }: RouteName): string {
  return `route ${change} ${family} ${table} ${gateway}`;
}

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
      return `address ${event.change} ${localAddressKey(event.address)}`;
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

/** What of a link decides about paths. */
function linkText({ index, name, isUp, hasCarrier, operationalState }: Link): string {
  return `${index} ${name} ${isUp} ${hasCarrier} ${operationalState}`;
}

function localAddressKey({ linkIndex, address, prefixLength }: LocalAddress): string {
  return `${linkIndex} ${formatGateway(address)}/${prefixLength}`;
}
