import { doesTheSame, type ListedRule } from "#netlink/nftables";
import type { WantedRule, WantedTable } from "./nft-objects.js";

/**
 * What earlier turns have worked out, so that a turn in which nothing changed costs little. It changes no result. Belongs
 * to whoever reads the kernel.
 */
export class NftMemo {
  readonly #tables = new Map<string, { readonly key: string; readonly table: WantedTable }>();
  /** Listed rules that are as wanted; a reading that finds no change gives the same objects again. */
  readonly #same = new WeakMap<ListedRule, WantedRule>();

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
  isSame(actual: ListedRule, wanted: WantedRule): boolean {
    if (this.#same.get(actual) === wanted) return true;
    if (actual.comment !== wanted.comment || !doesTheSame(actual.expressions, wanted.expressions)) return false;
    this.#same.set(actual, wanted);
    return true;
  }
}
