import type { NftCommand, NftConnection } from "#netlink/nftables";
import { afterCommands, isDeducible } from "./nft-apply.js";
import type { ActualTable } from "./nft-objects.js";
import { TABLES } from "./nft-tables.js";

/** Changes by others go on and on; the next event leads to another reading anyway. */
const ATTEMPTS = 5;

/** Our tables: read, and only if anything in nf_tables has changed by others since they were. */
export class NftReader {
  readonly #nft: NftConnection;
  #known: { readonly generation: number; readonly tables: ReadonlyMap<string, ActualTable> } | null = null;
  /** What is known was not read but follows from what was done. */
  #isDeduced = false;

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
      this.#isDeduced = false;
    }
    return tables;
  }

  /** Applies commands, all or none. @throws {NetlinkError} that names the command the kernel refused */
  apply(commands: readonly NftCommand[]): void {
    const before = this.#known;
    this.#nft.transaction(commands);
    if (before === null) return;
    const generation = this.#nft.generation();
    // Each transaction counts, so there was none but ours.
    const isAlone = generation === (before.generation + 1) >>> 0 && commands.every(isDeducible);
    this.#known = isAlone ? { generation, tables: afterCommands(before.tables, commands) } : null;
    this.#isDeduced = isAlone;
  }

  /** Whether a change of this number, u32, is part of what is known. */
  hasSeen(generation: number): boolean {
    return this.#known !== null && ((generation - this.#known.generation) | 0) <= 0;
  }

  /**
   * Has the tables read the next time unless they were read since the last change of ours.
   * @returns whether what was read last is how it is
   */
  verify(): boolean {
    if (this.#isDeduced) this.#known = null;
    return this.#known !== null && this.#known.generation === this.#nft.generation();
  }

  #readTables(): ReadonlyMap<string, ActualTable> {
    const flagsOf = this.#nft.tableFlags();
    const chains = groupBy(this.#nft.chains(), ({ table }) => table);
    const tables = new Map<string, ActualTable>();
    for (const table of TABLES) {
      const sets = this.#nft.sets(table);
      const rules = this.#nft.rules(table);
      if (sets === null || rules === null) continue;
      const rulesOf = groupBy(rules, ({ chain }) => chain);
      const listed = (chains.get(table) ?? []).map((one) => {
        const { chain, handle, hook, isAccepting } = one; // field by field: see decision 0080
        return [chain, { table, chain, handle, hook, isAccepting, rules: rulesOf.get(chain) ?? [] }] as const;
      });
      const read = sets.map(({ set, type }) => [set, { type, elements: this.#nft.elements(table, set) }] as const);
      tables.set(table, { flags: flagsOf.get(table) ?? 0, sets: new Map(read), chains: new Map(listed) });
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
