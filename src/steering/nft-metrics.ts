import { compare, counter, meta, verdictOf } from "#netlink/nftables";
import { markKey } from "./nft-format.js";
import { makeRule, type WantedTable } from "./nft-objects.js";

export const METRICS_TABLE = "meridio-metrics";
const MARK_MAP = "fwmark-verdict";
/** Of all four bytes: a compare is as long as its data, and one byte would not see marks that are multiples of 256. */
const ANY_MARK = makeRule(`meta mark != 0x00000000 meta mark vmap @${MARK_MAP}`, [
  meta("mark"),
  compare("!=", new Uint8Array(4)),
  meta("mark"),
  verdictOf(MARK_MAP),
]);
const COUNT = makeRule("counter", [counter()]);

/** The table that counts what each target gets. */
export function metricsTable(fwmarks: readonly number[]): WantedTable {
  return {
    table: METRICS_TABLE,
    sets: [
      {
        set: MARK_MAP,
        type: "markToVerdict",
        elements: fwmarks.map((fwmark) => ({ key: markKey(fwmark), jump: `fwmark-${fwmark}` })),
      },
    ],
    chains: [
      { chain: "target-hits", hook: { type: "filter", hook: "postrouting", priority: 0 }, rules: [ANY_MARK] },
      ...fwmarks.map((fwmark) => ({ chain: `fwmark-${fwmark}`, hook: null, rules: [COUNT] })),
    ],
  };
}

/** The fwmark that a chain counts for, or null. */
export function fwmarkOfChain(chain: string): number | null {
  const digits = /^fwmark-([0-9]+)$/.exec(chain)?.[1];
  return digits === undefined ? null : Number(digits);
}
