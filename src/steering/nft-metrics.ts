import { compare, counter, type Element, meta, verdictOf } from "#netlink/nftables";
import { markKey } from "./nft-format.js";
import { makeRule, type WantedChain, type WantedTable } from "./nft-objects.js";

export const METRICS_TABLE = "meridio-metrics";
const MARK_MAP = "fwmark-verdict";
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
 * @param known counters of earlier tables; becomes those of this one
 */
export function metricsTable(fwmarks: readonly number[], known: Map<number, TargetCounter>): WantedTable {
  const counters = fwmarks.map((fwmark) => known.get(fwmark) ?? targetCounter(fwmark));
  known.clear();
  for (const [i, fwmark] of fwmarks.entries()) known.set(fwmark, counters[i]!);
  return {
    table: METRICS_TABLE,
    sets: [{ set: MARK_MAP, type: "markToVerdict", elements: counters.map(({ element }) => element) }],
    chains: [HITS, ...counters.map(({ chain }) => chain)],
  };
}

function targetCounter(fwmark: number): TargetCounter {
  const chain = `fwmark-${fwmark}`;
  return { element: { key: markKey(fwmark), jump: chain }, chain: { chain, hook: null, rules: COUNTING } };
}

/** The fwmark that a chain counts for, or null. */
export function fwmarkOfChain(chain: string): number | null {
  const digits = /^fwmark-([0-9]+)$/.exec(chain)?.[1];
  return digits === undefined ? null : Number(digits);
}
