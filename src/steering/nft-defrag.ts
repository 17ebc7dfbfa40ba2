import { accept, bitAnd, compare, conntrackState, meta, notrack } from "#netlink/nftables";
import { makeRule, type WantedTable } from "./nft-objects.js";

export const DEFRAG_TABLE = "meridio-defrag";
/** NF_CT_STATE_UNTRACKED_BIT, include/uapi/linux/netfilter/nf_conntrack_common.h (v6.18), in host order. */
const UNTRACKED = new Uint8Array(new Uint32Array([64]).buffer);
const SCTP = 132;

/**
 * The table that has the kernel reassemble what comes from outside, since flows look at ports and only the first fragment
 * has them, and that keeps connection tracking out of everything. Reassembly (at -400) comes with connection tracking,
 * and that with `ct state`; a packet that is not tracked before -400 is not reassembled.
 * @param targetInterfaces how names of interfaces to targets begin: what comes from there stays in fragments, so that the
 * sender's path MTU stays visible
 * @param needsSctp a port NAT of SCTP is there: its checksum covers the whole packet, so that is reassembled from everywhere
 */
export function defragTable(targetInterfaces: string, needsSctp: boolean): WantedTable {
  const fromTargets = [meta("iifname"), compare("==", new TextEncoder().encode(targetInterfaces))];
  const butSctp = [meta("l4proto"), compare("!=", new Uint8Array([SCTP]))];
  const notTracked = makeRule("notrack", [notrack()]);
  return {
    table: DEFRAG_TABLE,
    sets: [],
    chains: [
      {
        chain: "pre-defrag",
        hook: { type: "filter", hook: "prerouting", priority: -500 },
        rules: [
          needsSctp
            ? makeRule(`iifname "${targetInterfaces}*" meta l4proto != sctp notrack`, [
                ...fromTargets,
                ...butSctp,
                notrack(),
              ])
            : makeRule(`iifname "${targetInterfaces}*" notrack`, [...fromTargets, notrack()]),
        ],
      },
      {
        chain: "in",
        hook: { type: "filter", hook: "prerouting", priority: -300 },
        rules: [
          notTracked,
          makeRule("ct state untracked accept", [
            conntrackState(),
            bitAnd(UNTRACKED),
            compare("!=", new Uint8Array(4)),
            accept(),
          ]),
        ],
      },
      { chain: "out", hook: { type: "filter", hook: "output", priority: -300 }, rules: [notTracked] },
    ],
  };
}
