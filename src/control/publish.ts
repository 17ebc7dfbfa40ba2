import { readdirSync } from "node:fs";
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

/**
 * Puts the desired tables and flow rules in force, each in one step: a table before the rules that name it, rules before
 * the tables they no longer name. When it returns no packet is being decided by anything older.
 * @param pending fwmarks whose kernel state is not in place: they get no packets yet
 * @returns what changed, for the log
 */
export function publish(desired: Desired, pending: ReadonlySet<number>, place: TablePlace): readonly string[] {
  const { folder, flowsName, countOf } = place;
  const changes: string[] = [];
  for (const [name, table] of desired.tables) {
    if (ensureTable(folder, name, table)) changes.push(`table ${name} created`);
    const { changed } = updateStreamTable(folder, name, (active) => {
      active.fill(-1);
      for (const [index, fwmark] of table.targets) if (!pending.has(fwmark)) active[index] = fwmark;
    });
    if (changed) changes.push(`table ${name} published`);
  }
  ensureFlows(folder, flowsName);
  const { changed } = updateFlows(folder, flowsName, (present) => mergeFlows(present, desired.flows), countOf);
  if (changed) changes.push(`${desired.flows.length} flow rules published`);
  for (const name of readdirSync(folder)) {
    if (!name.startsWith(tableName("")) || desired.tables.has(name)) continue;
    deleteRegion(folder, name);
    changes.push(`table ${name} deleted`);
  }
  return changes;
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
