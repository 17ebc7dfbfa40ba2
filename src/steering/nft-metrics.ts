import { compare, counter, type Element, meta, verdictOf } from "#netlink/nftables";
import type { Memo } from "./memo.js";
import { diffTable, type TableChanges } from "./nft-diff.js";
import { markKey, readMark } from "./nft-format.js";
import { type ActualTable, makeRule, type NftChange, type WantedChain, type WantedTable } from "./nft-objects.js";

export const METRICS_TABLE = "meridio-metrics";
const MARK_MAP = "fwmark-verdict";
const MOST_UNUSED = 64;
/** Of all four bytes: a compare is as long as its data, and one byte would not see marks that are multiples of 256. */
const ANY_MARK = makeRule(`meta mark != 0x00000000 meta mark vmap @${MARK_MAP}`, [
  meta("mark"),
  compare("!=", new Uint8Array(4)),
  meta("mark"),
  verdictOf(MARK_MAP),
]);
const COUNTING = [makeRule("counter", [counter()])];

const HITS: WantedChain = {
  chain: "target-hits",
  hook: { type: "filter", hook: "postrouting", priority: 0 },
  rules: [ANY_MARK],
};

/** What counts for one target: an element of the map, and the chain that it leads to. */
export type TargetCounter = { readonly element: Element; readonly chain: WantedChain };

/**
 * The table that counts what each target gets.
 * @param known counters of earlier tables, to be used and added to; forgotten when there are far more than those in use
 */
export function metricsTable(fwmarks: readonly number[], known: Map<number, TargetCounter>): WantedTable {
  const counters = fwmarks.map((fwmark) => known.get(fwmark) ?? targetCounter(fwmark));
  if (known.size > 2 * fwmarks.length + MOST_UNUSED) known.clear();
  for (const [i, fwmark] of fwmarks.entries()) if (!known.has(fwmark)) known.set(fwmark, counters[i]!);
  return {
    table: METRICS_TABLE,
    sets: [{ set: MARK_MAP, type: "markToVerdict", elements: counters.map(({ element }) => element) }],
    chains: [HITS, ...counters.map(({ chain }) => chain)],
  };
}

function targetCounter(fwmark: number): TargetCounter {
  const chain = `${CHAIN_PREFIX}${fwmark}`;
  return { element: { key: markKey(fwmark), jump: chain }, chain: { chain, hook: null, rules: COUNTING } };
}

/**
 * As {@link diffTable}, but mark by mark: only where an object of the mark is another one than the last time, or something
 * was to be done then. Objects that are no mark's are always looked at.
 */
export function diffMetrics(wanted: WantedTable | null, actual: ActualTable | null, memo: Memo): TableChanges {
  const listed = actual?.sets.get(MARK_MAP);
  const set = wanted?.sets[0];
  if (wanted === null || actual === null || set === undefined || listed?.type !== set.type)
    return diffTable(METRICS_TABLE, wanted, actual, memo);
  const chains = [...actual.chains.values()];
  const [changedChains, changedElements] = [memo.changedMarks("chains"), memo.changedMarks("elements")];
  const ofChains = changedChains.look({ items: wanted.chains, markOf }, { items: chains, markOf });
  const ofElements = changedElements.look(
    { items: set.elements, markOf: markOfElement },
    { items: listed.elements, markOf: markOfElement },
  );
  const marks = ofChains === null || ofElements === null ? null : new Set([0, ...ofChains, ...ofElements]);
  const isChanged = (mark: number) => marks === null || marks.has(mark);
  const isElementChanged = (element: Element) => isChanged(markOfElement(element));
  const elements = listed.elements.filter(isElementChanged);
  const changes = diffTable(
    METRICS_TABLE,
    {
      ...wanted,
      sets: [{ ...set, elements: set.elements.filter(isElementChanged) }],
      chains: [HITS, ...wanted.chains.filter((chain) => chain !== HITS && isChanged(markOf(chain)))],
    },
    {
      flags: actual.flags,
      sets: new Map(actual.sets).set(MARK_MAP, { ...listed, elements }),
      chains: new Map(chains.filter((chain) => isChanged(markOf(chain))).map((chain) => [chain.chain, chain])),
    },
    memo,
  );
  const all = [...changes.additions, ...changes.queueing, ...changes.removals];
  if (all.some(({ command }) => command.kind === "deleteTable")) return diffTable(METRICS_TABLE, wanted, actual, memo);
  changedChains.done(all.flatMap(marksOf));
  changedElements.done([]);
  return changes;
}

const markOfElement = ({ key }: Element) => readMark(key);

function markOf({ chain }: { readonly chain: string }): number {
  return fwmarkOfChain(chain) ?? 0;
}

/** Marks that a change is about; 0 for one that is about none. */
function marksOf({ command }: NftChange): readonly number[] {
  if ("elements" in command) return command.elements.map(markOfElement);
  return ["chain" in command ? markOf(command) : 0];
}

const CHAIN_PREFIX = "fwmark-";

/** The fwmark that a chain counts for, or null. */
export function fwmarkOfChain(chain: string): number | null {
  const digits = chain.startsWith(CHAIN_PREFIX) ? chain.slice(CHAIN_PREFIX.length) : "";
  const fwmark = Number(digits);
  return String(fwmark) === digits ? fwmark : null;
}
