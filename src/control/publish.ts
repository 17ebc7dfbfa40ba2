import { readdirSync } from "node:fs";
import type { FlowRule } from "#flow";
import {
  createStreamTable,
  deleteRegion,
  ensureFlows,
  hasRegion,
  readStreamTable,
  updateFlows,
  updateStreamTable,
} from "#tables";
import { type Desired, type DesiredTable, mergeFlows, tableName } from "./desired.js";

/** Where the tables are. */
export type TablePlace = {
  readonly folder: string;
  readonly flowsName: string;
  /** What a rule's counter slot has counted. */
  readonly countOf: (slot: number) => number;
};

/** A table, or the flow rules, that could not be put in force; what was in force before stays. */
type PublishFailure = { readonly name: string; readonly message: string };

export type Published = { readonly changes: readonly string[]; readonly failures: readonly PublishFailure[] };

/** Puts tables and flow rules in force. Remembers what it published, so that a turn costs only what changed. */
export class Publisher {
  readonly #place: TablePlace;
  /** As published, by name. */
  readonly #tables = new Map<string, Pick<DesiredTable, "maxTargets" | "targets">>();
  #flows: readonly FlowRule[] | null = null;
  #names = "";

  constructor(place: TablePlace) {
    this.#place = place;
  }

  /**
   * Puts the desired tables and flow rules in force, each in one step: a table before the rules that name it, rules
   * before the tables they no longer name. When it returns no packet is being decided by anything older. One that fails
   * is told and the others go on.
   * @param served fwmarks that get packets
   */
  publish(desired: Desired, served: ReadonlySet<number>): Published {
    const changes: string[] = [];
    const failures: PublishFailure[] = [];
    const attempt = (name: string, act: () => void) => {
      try {
        act();
      } catch (error) {
        failures.push({ name, message: (error as Error).message });
      }
    };
    for (const [name, table] of desired.tables) {
      attempt(name, () => changes.push(...this.#publishTable(name, table, served)));
    }
    attempt(this.#place.flowsName, () => changes.push(...this.#publishFlows(desired.flows)));
    const names = [...desired.tables.keys()].join("\n");
    if (names !== this.#names) attempt(this.#place.folder, () => changes.push(...this.#deleteOthers(desired)));
    this.#names = failures.length === 0 ? names : "";
    return { changes, failures };
  }

  /** The next time everything is compared with what is in memory: somebody else may have written there. */
  forget(): void {
    this.#tables.clear();
    this.#flows = null;
    this.#names = "";
  }

  #publishTable(name: string, table: DesiredTable, served: ReadonlySet<number>): readonly string[] {
    const targets = new Map([...table.targets].filter(([, fwmark]) => served.has(fwmark)));
    const last = this.#tables.get(name);
    if (last?.maxTargets === table.maxTargets && isSame(last.targets, targets)) return [];
    const { folder } = this.#place;
    const created = ensureTable(folder, name, table) ? [`table ${name} created`] : [];
    const { changed } = updateStreamTable(folder, name, (active) => {
      active.fill(-1);
      for (const [index, fwmark] of targets) active[index] = fwmark;
    });
    this.#tables.set(name, { maxTargets: table.maxTargets, targets });
    return changed ? [...created, `table ${name} published`] : created;
  }

  #publishFlows(flows: readonly FlowRule[]): readonly string[] {
    if (this.#flows === flows) return [];
    const { folder, flowsName, countOf } = this.#place;
    ensureFlows(folder, flowsName);
    const { changed } = updateFlows(folder, flowsName, (present) => mergeFlows(present, flows), countOf);
    this.#flows = flows;
    return changed ? [`${flows.length} flow rules published`] : [];
  }

  #deleteOthers(desired: Desired): readonly string[] {
    const { folder } = this.#place;
    const others = readdirSync(folder).filter((name) => name.startsWith(tableName("")) && !desired.tables.has(name));
    for (const name of others) {
      deleteRegion(folder, name);
      this.#tables.delete(name);
    }
    return others.map((name) => `table ${name} deleted`);
  }
}

function isSame(a: ReadonlyMap<number, number>, b: ReadonlyMap<number, number>): boolean {
  return a.size === b.size && [...a].every(([index, fwmark]) => b.get(index) === fwmark);
}

/** Makes the table unless one of these sizes is there; one that is there keeps its targets until it is updated. */
function ensureTable(folder: string, name: string, { size, maxTargets }: DesiredTable): boolean {
  if (hasRegion(folder, name)) {
    try {
      const present = readStreamTable(folder, name);
      if (present.targets === maxTargets) return false;
    } catch {
      // no table: something else, or of another layout; replaced
    }
  }
  createStreamTable(folder, name, { size, targets: maxTargets, ownFwmark: 0 });
  return true;
}

/** Takes away all tables and rules of ours; for the end, when nobody reads them any more. */
export function unpublish({ folder, flowsName, countOf }: TablePlace): void {
  updateFlows(folder, flowsName, (present) => mergeFlows(present, []), countOf);
  for (const name of readdirSync(folder)) if (name.startsWith(tableName(""))) deleteRegion(folder, name);
}
