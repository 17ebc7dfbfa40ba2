import type { Route, RouteConnection } from "#netlink/route";
import { formatGateway } from "./nft-format.js";
import { OUR_PROTOCOL } from "./state.js";

const FAMILIES = [4, 6] as const;

/** What tells a route of ours from the others. */
export type RouteName = { readonly family: 4 | 6; readonly table: number; readonly gateway: string };

/**
 * The routing tables with a route of ours, and all that is in them, as far as events tell it.
 *
 * IPv4 tells nothing of routes that go with a link or an address (fib_table_flush, net/ipv4/fib_trie.c, v6.18): then all
 * routes of ours are read again. Multipath routes change by parts, and routes of others in a table of ours matter by their
 * order: then that table is read. What we make ourselves, one default route per table and family, is followed event by
 * event. Routes of others in other tables are nobody's business, however many they are.
 */
export class RouteTables {
  readonly #connection: RouteConnection;
  /** By {@link tableKey}. Several in one are somebody else's doing. */
  readonly #tables = new Map<number, readonly Route[]>();
  /** Keys of tables that have to be read. */
  readonly #unsure = new Set<number>();
  /** All routes of ours have to be read. */
  #isUnsure = false;
  /** By the same key, the link by which the kernel led our route when we made it last. */
  readonly #ledBy = new Map<number, number>();
  #list: readonly Route[] | null = null;

  /** @param connection stays the caller's */
  constructor(connection: RouteConnection) {
    this.#connection = connection;
  }

  /** Those of ours; the same list as long as nothing changed. */
  get routes(): readonly Route[] {
    if (this.#list === null) {
      const list: Route[] = [];
      for (const some of this.#tables.values()) for (const route of some) if (isOurs(route)) list.push(route);
      this.#list = list;
    }
    return this.#list;
  }

  /** Our routes in the tables of these numbers. */
  of(tables: Iterable<number>): readonly Route[] {
    const found: Route[] = [];
    for (const table of tables) {
      for (const family of FAMILIES) {
        for (const route of this.#tables.get(tableKey(family, table)) ?? []) if (isOurs(route)) found.push(route);
      }
    }
    return found;
  }

  /** Tables in which routes of others stand beside ours: all that is in each, in the order in which the kernel takes them. */
  get shared(): readonly (readonly Route[])[] {
    return [...this.#tables.values()].filter((routes) => routes.length > 1 && !routes.every(isOurs));
  }

  /** Whether a route of ours leads out by another link than the kernel chose when we made it. */
  isAstray({ family, table, nextHops }: Route): boolean {
    const link = this.#ledBy.get(tableKey(family, table));
    return link !== undefined && nextHops[0]?.linkIndex !== link;
  }

  get isUnsure(): boolean {
    return this.#isUnsure || this.#unsure.size > 0;
  }

  /** Routes may have gone without a word. */
  doubt(): void {
    this.#isUnsure = true;
  }

  /** We have made this route. What else is in its table is not known if we had none there. */
  made({ family, table }: RouteName): void {
    const key = tableKey(family, table);
    this.#ledBy.delete(key); // the kernel tells, unless it was there as it is
    this.#list = null;
    if (!this.#tables.has(key)) this.#unsure.add(key);
  }

  /** The kernel's word of a route that we made or deleted, after `take`. */
  takeOwn(change: "new" | "deleted", { family, table, nextHops }: Route): void {
    const key = tableKey(family, table);
    if (change === "new") this.#ledBy.set(key, nextHops[0]!.linkIndex);
    else if (!this.#tables.has(key)) this.#ledBy.delete(key);
  }

  /** Takes a change. @returns whether it may change what we would do */
  take(change: "new" | "deleted", route: Route, isReplacement: boolean): boolean {
    const key = tableKey(route.family, route.table);
    const present = this.#tables.get(key) ?? [];
    // One of others may stand in front of ours, or have taken its place: `ip route replace` names no protocol.
    if (!isOurs(route) && present.length === 0) return false;
    this.#list = null;
    const [only] = present;
    const isAlone = only === undefined || isReplacement || routeText(only) === routeText(route);
    const isSimple = present.length <= 1 && isAlone && [route, ...present].every((one) => isPlain(one) && isOurs(one));
    if (!isSimple) this.#unsure.add(key);
    else if (change === "new") this.#tables.set(key, [route]);
    else this.#tables.delete(key);
    return true;
  }

  /** Reads what is not sure. @returns whether anything was read */
  settle(): boolean {
    if (this.#isUnsure) this.read(false);
    else if (this.#unsure.size > 0) this.#readUnsure();
    else return false;
    return true;
  }

  /** Reads all routes of ours, and those of others beside them: where there are some, or in `everyTable` of ours. */
  read(everyTable: boolean): void {
    const shared = this.shared.map(([first]) => tableKey(first!.family, first!.table));
    this.#isUnsure = false;
    this.#list = null;
    this.#tables.clear();
    for (const route of FAMILIES.flatMap((family) => this.#connection.routes(family, OUR_PROTOCOL))) {
      const key = tableKey(route.family, route.table);
      this.#tables.set(key, [...(this.#tables.get(key) ?? []), route]);
    }
    for (const key of everyTable ? this.#tables.keys() : shared) this.#unsure.add(key);
    this.#readUnsure();
  }

  #readUnsure(): void {
    this.#list = null;
    for (const key of this.#unsure) {
      const routes = this.#connection.routesOfTable(key % 2 === 0 ? 4 : 6, Math.floor(key / 2));
      if (routes.some(isOurs)) this.#tables.set(key, routes);
      else this.#tables.delete(key);
    }
    this.#unsure.clear();
  }
}

/** A number for each family's table, u32. */
const tableKey = (family: 4 | 6, table: number) => table * 2 + (family === 4 ? 0 : 1);

/** Whether a route is one of ours by its protocol. */
export function isOurs({ protocol }: Route): boolean {
  return protocol === OUR_PROTOCOL;
}

/** A default route by one gateway, as we make them. */
function isPlain({ destinationLength, type, nextHops }: Route): boolean {
  return destinationLength === 0 && type === "unicast" && nextHops.length === 1;
}

/** What of a route decides where packets go. */
export function routeText(route: Route): string {
  const { family, table, type, destination, destinationLength, metric, tos, nextHops, extras } = route;
  const hops = nextHops.map(
    ({ gateway, linkIndex }) => `${gateway === null ? "" : formatGateway(gateway)} ${linkIndex}`,
  );
  const more = extras === undefined ? "" : ` ${JSON.stringify(extras)}`;
  const to = destinationLength === 0 ? "default" : `${formatGateway(destination)}/${destinationLength}`;
  return `${family} ${table} ${type} ${to} ${metric} ${tos} ${hops.join(",")}${more}`;
}
