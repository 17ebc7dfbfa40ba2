import { formatAddress, isIpv4, parseAddress } from "#model";
import { doesTheSame } from "#netlink/nftables";
import { addressKey, type Route } from "#netlink/route";
import { ChangedMarks } from "./changed-marks.js";
import { formatGateway } from "./nft-format.js";
import type { TargetCounter } from "./nft-metrics.js";
import type { ActualChain, ActualRule, WantedChain, WantedRule, WantedTable } from "./nft-objects.js";

/** A target's addresses as the kernel writes them: one per family at most. */
export type Gateways = {
  readonly 4: string | null;
  readonly 6: string | null;
  /** There are several of one family; the first counts. */
  readonly isAmbiguous: boolean;
};

/** A gateway as text, and its key among neighbors. */
type GatewayNames = { readonly text: string; readonly key: string };
const NO_GATEWAY: GatewayNames = { text: "", key: "" };

/**
 * What earlier turns have worked out of objects that come again, so that a turn costs little besides what changed. It
 * changes no result. Belongs to whoever reads the kernel.
 */
export class Memo {
  readonly #last = new Map<string, { readonly inputs: readonly unknown[]; readonly result: unknown }>();
  /** What counts for each target. */
  readonly counters = new Map<number, TargetCounter>();
  readonly #tables = new Map<string, { readonly key: string; readonly table: WantedTable }>();
  /** Listed rules and chains that are as wanted; a reading that finds no change gives the same objects again. */
  readonly #sameRules = new WeakMap<ActualRule, WantedRule>();
  readonly #sameChains = new WeakMap<ActualChain, WantedChain>();
  readonly #changedMarks = new Map<string, ChangedMarks>();
  readonly #gateways = new WeakMap<readonly string[], Gateways>();
  readonly #routes = new WeakMap<Route, GatewayNames>();

  /** The table that `make` makes of `key`, made anew when the key's JSON is not that of the last time. */
  table(name: string, key: unknown, make: () => WantedTable): WantedTable {
    const text = JSON.stringify(key);
    const known = this.#tables.get(name);
    if (known?.key === text) return known.table;
    const table = make();
    this.#tables.set(name, { key: text, table });
    return table;
  }

  /** By their comments, which a hand that changes a rule seldom keeps, and by what they do. */
  isSameRule(actual: ActualRule, wanted: WantedRule): boolean {
    if (this.#sameRules.get(actual) === wanted) return true;
    if (actual.comment !== wanted.comment || !doesTheSame(actual.expressions, wanted.expressions)) return false;
    this.#sameRules.set(actual, wanted);
    return true;
  }

  /** Whether a chain is known to be as wanted in every way. */
  isSameChain(actual: ActualChain, wanted: WantedChain): boolean {
    return this.#sameChains.get(actual) === wanted;
  }

  setSameChain(actual: ActualChain, wanted: WantedChain): void {
    this.#sameChains.set(actual, wanted);
  }

  /** What `make` makes of these inputs; the same as the last time when all of them are the same objects. */
  last<T>(name: string, inputs: readonly unknown[], make: () => T): T {
    const known = this.#last.get(name);
    if (known !== undefined && inputs.every((input, i) => input === known.inputs[i])) return known.result as T;
    const result = make();
    this.#last.set(name, { inputs, result });
    return result;
  }

  /** Of each of these targets, in their order. */
  gatewaysOf(targets: readonly { readonly addresses: readonly string[] }[]): readonly Gateways[] {
    return this.last("gateways", [targets], () => targets.map(({ addresses }) => this.gateways(addresses)));
  }

  /** Of a target's addresses; a list that is the same object is not read again. */
  gateways(addresses: readonly string[]): Gateways {
    const known = this.#gateways.get(addresses);
    if (known !== undefined) return known;
    const result = { 4: null as string | null, 6: null as string | null, isAmbiguous: false };
    for (const text of addresses) {
      const bytes = parseAddress(text);
      const family = isIpv4(bytes) ? 4 : 6;
      if (result[family] === null) result[family] = formatAddress(bytes);
      else result.isAmbiguous = true;
    }
    this.#gateways.set(addresses, result);
    return result;
  }

  /** The one gateway of a route that says nothing else; empty texts for any other kind. */
  gatewayOf(route: Route): GatewayNames {
    const known = this.#routes.get(route);
    if (known !== undefined) return known;
    const { type, nextHops, extras } = route;
    const [hop, ...others] = nextHops;
    const isPlain =
      type === "unicast" && extras === undefined && hop !== undefined && hop.gateway !== null && others.length === 0;
    const names = isPlain ? { text: formatGateway(hop.gateway!), key: addressKey(hop.gateway!) } : NO_GATEWAY;
    this.#routes.set(route, names);
    return names;
  }

  /** Of the work of that name. */
  changedMarks(name: string): ChangedMarks {
    const known = this.#changedMarks.get(name) ?? new ChangedMarks();
    this.#changedMarks.set(name, known);
    return known;
  }
}
