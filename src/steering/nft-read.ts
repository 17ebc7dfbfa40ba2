import type { NftConnection } from "#netlink/nftables";
import type { ActualTable } from "./nft-objects.js";
import { TABLES } from "./nft-tables.js";

/** Changes by others go on and on; the next event leads to another reading anyway. */
const ATTEMPTS = 5;

/** Reads our tables, and only if anything in nf_tables has changed since they were read. */
export class NftReader {
  readonly #nft: NftConnection;
  #known: { readonly generation: number; readonly tables: ReadonlyMap<string, ActualTable> } | null = null;

  /** @param nft stays the caller's */
  constructor(nft: NftConnection) {
    this.#nft = nft;
  }

  /** Our tables that are there, by name, all as of one moment. */
  read(): ReadonlyMap<string, ActualTable> {
    let tables: ReadonlyMap<string, ActualTable> = new Map();
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const generation = this.#nft.generation();
      if (this.#known?.generation === generation) return this.#known.tables;
      tables = this.#readTables();
      this.#known = { generation, tables };
    }
    return tables;
  }

  #readTables(): ReadonlyMap<string, ActualTable> {
    const chains = groupBy(this.#nft.chains(), ({ table }) => table);
    const tables = new Map<string, ActualTable>();
    for (const table of TABLES) {
      const sets = this.#nft.sets(table);
      const rules = this.#nft.rules(table);
      if (sets === null || rules === null) continue;
      const rulesOf = groupBy(rules, ({ chain }) => chain);
      const listed = (chains.get(table) ?? []).map((chain) => {
        return [chain.chain, { ...chain, rules: rulesOf.get(chain.chain) ?? [] }] as const;
      });
      const read = sets.map(({ set, type }) => [set, { type, elements: this.#nft.elements(table, set) }] as const);
      tables.set(table, { sets: new Map(read), chains: new Map(listed) });
    }
    return tables;
  }
}

function groupBy<T>(items: readonly T[], keyOf: (item: T) => string): ReadonlyMap<string, readonly T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const group = groups.get(keyOf(item));
    if (group === undefined) groups.set(keyOf(item), [item]);
    else group.push(item);
  }
  return groups;
}
