import { readdirSync } from "node:fs";
import type { FlowRule } from "#flow";
import { tableName } from "#model";
import {
  createStreamTable,
  deleteRegion,
  ensureFlows,
  flowsGeneration,
  hasRegion,
  readMaxTargets,
  readStreamTable,
  StreamTableWatch,
  updateFlows,
  updateStreamTable,
} from "#tables";
import { type Desired, type DesiredTable, mergeFlows } from "./desired.js";
import { fitFlows } from "./fitting-flows.js";
import { FolderNames } from "./folder-names.js";
import type { InForce } from "./in-force.js";

/** Where the tables are. */
export type TablePlace = {
  readonly folder: string;
  readonly flowsName: string;
  /** What a rule's counter slot has counted. */
  readonly countOf: (slot: number) => number;
};

/** A table, or the flow rules, that could not be put in force; what was in force before stays. */
type PublishFailure = { readonly name: string; readonly message: string };

type Published = {
  readonly changes: readonly string[];
  /** Those of the changes that put right what somebody else had changed. */
  readonly repairs: readonly string[];
  readonly failures: readonly PublishFailure[];
  /** Nothing failed, and no flow rule was refused. */
  readonly isWhole: boolean;
  readonly inForce: InForce;
};

export const NOTHING_PUBLISHED: Published = {
  changes: [],
  repairs: [],
  failures: [],
  isWhole: true,
  inForce: { tables: new Map(), rules: new Set(), refusedRules: new Map() },
};

/** What was published, and what of. */
type PublishedTable = Pick<DesiredTable, "maxTargets" | "active"> & {
  /** Of the table in memory as we left it. */
  readonly stamp: string;
  /** null: it was gone at once. */
  readonly watch: StreamTableWatch | null;
  readonly table: DesiredTable;
  readonly served: ReadonlySet<number>;
};

/** Puts tables and flow rules in force. Remembers what it published, so that a turn costs only what changed. */
export class Publisher implements Disposable {
  readonly #place: TablePlace;
  readonly #folder: FolderNames;
  /** As published, by name. */
  readonly #tables = new Map<string, PublishedTable>();
  #flows: readonly FlowRule[] | null = null;
  #rules: ReadonlySet<string> = new Set();
  /** Until other rules are desired, or somebody changes those in force. */
  #refusedRules: ReadonlyMap<string, string> = new Map();
  #names = "";
  /** Tables, or the flow rules, that somebody else has changed; until they are published again. */
  readonly #touched = new Set<string>();
  /** Number of the flow rules in memory as we left them; null: not known. */
  #flowsGeneration: number | null = null;

  constructor(place: TablePlace) {
    this.#place = place;
    this.#folder = new FolderNames(place.folder);
  }

  /**
   * Puts the desired tables and flow rules in force, each in one step: a table before the rules that name it, rules
   * before the tables they no longer name. When it returns no packet is being decided by anything older. One that fails
   * is told and the others go on.
   * @param served fwmarks that get packets
   */
  publish(desired: Desired, served: ReadonlySet<number>): Published {
    const changes: string[] = [];
    const repairs: string[] = [];
    const failures: PublishFailure[] = [];
    const attempt = (name: string, act: () => readonly string[]) => {
      try {
        const done = act();
        changes.push(...done);
        if (this.#touched.delete(name)) repairs.push(...done);
      } catch (error) {
        failures.push({ name, message: (error as Error).message });
      }
    };
    for (const [name, table] of desired.tables) {
      attempt(name, () => this.#publishTable(name, table, served));
    }
    attempt(this.#place.flowsName, () => this.#publishFlows(desired.flows));
    const names = [...desired.tables.keys()].join("\n");
    if (names !== this.#names) attempt(this.#place.folder, () => this.#deleteOthers(desired));
    this.#names = failures.length === 0 ? names : "";
    const failed = new Set(failures.map(({ name }) => name));
    for (const name of this.#touched) if (!failed.has(name)) this.#touched.delete(name); // nobody wants it any more
    const inForce = { tables: this.#tables, rules: this.#rules, refusedRules: this.#refusedRules };
    const isWhole = failures.length === 0 && this.#refusedRules.size === 0;
    return { changes, repairs, failures, isWhole, inForce };
  }

  /**
   * Looks whether a table or the flow rules were changed, deleted or replaced since they were published; what was is
   * published anew the next time. Cheap enough for every second: for 100 tables a tenth of a millisecond.
   * @returns whether there is anything new to do about it
   */
  look(): boolean {
    const known = this.#touched.size;
    const names = this.#folder.read();
    for (const [name, { watch, stamp }] of this.#tables)
      if (!names.has(name) || watch?.stamp() !== stamp) this.#distrust(name);
    this.#lookAtFlows();
    return this.#touched.size > known;
  }

  /** The same by name, file by file, and for tables that nobody asked for. @returns whether nothing new differs */
  verify(): boolean {
    const known = this.#touched.size;
    const { folder } = this.#place;
    for (const [name, { watch, stamp }] of this.#tables)
      if (watch?.isInPlace !== true || watch.stamp() !== stamp) this.#distrust(name);
    this.#lookAtFlows();
    if (this.#names !== "" && tablesIn(folder).some((name) => !this.#tables.has(name) && !this.#touched.has(name))) {
      this.#names = "";
      this.#touched.add(folder);
    }
    return this.#touched.size === known;
  }

  #distrust(name: string): void {
    this.#forgetTable(name);
    this.#touched.add(name);
  }

  #forgetTable(name: string): void {
    this.#tables.get(name)?.watch?.[Symbol.dispose]();
    this.#tables.delete(name);
  }

  #lookAtFlows(): void {
    if (this.#flows === null) return; // they are published the next time anyway
    if (this.#flowsGeneration !== null && this.#flowsGeneration === this.#readFlowsGeneration()) return;
    this.#flows = null;
    this.#touched.add(this.#place.flowsName);
  }

  #readFlowsGeneration(): number | null {
    try {
      return flowsGeneration(this.#place.folder, this.#place.flowsName);
    } catch {
      return null; // gone, or no rules: made anew by the next turn
    }
  }

  #publishTable(name: string, table: DesiredTable, served: ReadonlySet<number>): readonly string[] {
    const last = this.#tables.get(name);
    if (last?.table === table && last.served === served) return [];
    const active = table.active.map((fwmark) => (served.has(fwmark) ? fwmark : -1));
    const { maxTargets } = table;
    if (last?.maxTargets === maxTargets && last.active.every((fwmark, index) => fwmark === active[index])) {
      this.#tables.set(name, { ...last, table, served });
      return [];
    }
    const { folder } = this.#place;
    const created = ensureTable(folder, name, table) ? [`table ${name} created`] : [];
    const { changed, stamp } = updateStreamTable(folder, name, (present) => present.set(active));
    const watch = created.length === 0 && last?.watch ? last.watch : StreamTableWatch.open(folder, name);
    if (watch !== last?.watch) last?.watch?.[Symbol.dispose]();
    this.#tables.set(name, { maxTargets, active, table, served, stamp, watch });
    return changed ? [...created, `table ${name} published`] : created;
  }

  #publishFlows(flows: readonly FlowRule[]): readonly string[] {
    if (this.#flows === flows) return [];
    const { folder, flowsName, countOf } = this.#place;
    ensureFlows(folder, flowsName);
    const before = this.#readFlowsGeneration();
    const update = (change: Parameters<typeof updateFlows>[2]) => updateFlows(folder, flowsName, change, countOf);
    const { changed, kept, refused } = fitFlows(flows, update);
    this.#flows = flows;
    this.#rules = new Set(kept.map(({ name }) => name));
    this.#refusedRules = refused;
    // Any other number than the one we made says that somebody else has written meanwhile: then it is looked at again.
    const after = this.#readFlowsGeneration();
    const isOurs = before !== null && after === (changed ? (before + 1) >>> 0 : before);
    this.#flowsGeneration = isOurs ? after : null;
    return changed ? [`${kept.length} flow rules published`] : [];
  }

  #deleteOthers(desired: Desired): readonly string[] {
    const { folder } = this.#place;
    const others = tablesIn(folder).filter((name) => !desired.tables.has(name));
    for (const name of others) {
      deleteRegion(folder, name);
      this.#forgetTable(name);
    }
    return others.map((name) => `table ${name} deleted`);
  }

  /** Nothing is watched any more. */
  [Symbol.dispose](): void {
    for (const name of this.#tables.keys()) this.#forgetTable(name);
  }
}

/** Makes the table unless one of these sizes is there; one that is there keeps its targets until it is updated. */
function ensureTable(folder: string, name: string, { size, maxTargets }: DesiredTable): boolean {
  if (hasRegion(folder, name)) {
    try {
      if (readMaxTargets(folder, name) === maxTargets) return false;
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
  for (const name of tablesIn(folder)) deleteRegion(folder, name);
}

/** Streams whose tables have targets now, whoever made them. */
export function servingStreams(folder: string): ReadonlySet<string> {
  const hasTargets = (name: string) => {
    try {
      return readStreamTable(folder, name).active.some((fwmark) => fwmark >= 0);
    } catch {
      return false; // no table, or none that this version would take over
    }
  };
  return new Set(
    tablesIn(folder)
      .filter(hasTargets)
      .map((name) => name.slice(tableName("").length)),
  );
}

/** Names of all tables of streams, ours and others'. */
const tablesIn = (folder: string) => readdirSync(folder).filter((name) => name.startsWith(tableName("")));
