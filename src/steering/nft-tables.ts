import { DEFRAG_TABLE, defragTable } from "./nft-defrag.js";
import { diffTable, type TableChanges } from "./nft-diff.js";
import { diffMetrics, METRICS_TABLE, metricsTable } from "./nft-metrics.js";
import { NAT_TABLE, natTable } from "./nft-nat.js";
import { QUEUE_TABLE, queueTable } from "./nft-nfqlb.js";
import type { NftChange, WantedTable } from "./nft-objects.js";
import type { ActualKernel, DesiredKernel, Plan, Step } from "./state.js";

/** All tables of ours, in the order in which they are made. */
export const TABLES = [DEFRAG_TABLE, QUEUE_TABLE, METRICS_TABLE, NAT_TABLE] as const;

/**
 * The tables that shall be there; null: none of that name. While packets are queued, a table that is there stays with its
 * chains emptied, even when nothing is wanted of it any more: taking away a hook costs packets (see diffTable).
 */
function wantedTables(
  { vips, queue, targets, portNats, targetInterfaces }: DesiredKernel,
  { tables, features, memo }: ActualKernel,
): Record<(typeof TABLES)[number], WantedTable | null> {
  const emptyOrNone = (table: string): WantedTable | null =>
    queue !== null && tables.has(table) ? { table, sets: [], chains: [] } : null;
  const needsSctp = portNats.some(({ protocol }) => protocol === "sctp");
  const isDefragging = queue !== null && targetInterfaces !== null && features.hasConntrack;
  return {
    [DEFRAG_TABLE]: isDefragging
      ? memo.table(DEFRAG_TABLE, [targetInterfaces, needsSctp], () => defragTable(targetInterfaces, needsSctp))
      : emptyOrNone(DEFRAG_TABLE),
    [QUEUE_TABLE]:
      queue === null ? null : memo.table(QUEUE_TABLE, [vips, queue, features], () => queueTable(vips, queue, features)),
    [METRICS_TABLE]:
      queue === null && targets.length === 0
        ? null
        : memo.last(METRICS_TABLE, [targets], () => {
            const fwmarks = targets.map(({ fwmark }) => fwmark);
            return metricsTable(fwmarks, memo.counters);
          }),
    [NAT_TABLE]:
      portNats.length > 0
        ? memo.table(NAT_TABLE, [portNats, features], () => natTable(portNats, features))
        : emptyOrNone(NAT_TABLE),
  };
}

/** The nftables part of a plan: per table and list one transaction. */
export function diffTables(desired: DesiredKernel, actual: ActualKernel): Plan {
  const wanted = wantedTables(desired, actual);
  const changes = TABLES.map((name) => {
    const [table, present] = [wanted[name], actual.tables.get(name) ?? null];
    return actual.memo.last(`changes of ${name}`, [table, present], () =>
      name === METRICS_TABLE ? diffMetrics(table, present, actual.memo) : diffTable(name, table, present, actual.memo),
    );
  });
  const steps = (list: keyof TableChanges) => changes.flatMap((one) => toStep(one[list]));
  return { additions: steps("additions"), vips: steps("queueing"), removals: steps("removals") };
}

function toStep(changes: readonly NftChange[]): Step[] {
  if (changes.length === 0) return [];
  return [{ kind: "nft", commands: changes.map(({ command }) => command), text: changes.map(({ text }) => text) }];
}
