import { NetlinkError, UnsupportedError } from "../error.js";
import type { NftConnection } from "./connection.js";
import { compatQueue, type Expression, immediate, nativeQueue, notrack, writePayload } from "./expressions.js";

/** What this kernel's nf_tables can do of what kernels differ in. */
export type NftFeatures = {
  /** The `queue` expression, or the xt NFQUEUE target through the compat expression. */
  readonly queueStatement: "native" | "compat";
  /** `notrack` and `ct state` (CONFIG_NFT_CT); without it there is no connection tracking to be kept out of. */
  readonly hasConntrack: boolean;
  /** A payload write can renew SCTP's checksum (since Linux 5.10). */
  readonly hasSctpChecksum: boolean;
};

/** @throws {UnsupportedError} packets cannot be queued; {NetlinkError} EPERM: CAP_NET_ADMIN is missing */
export function probeNftables(connection: NftConnection): NftFeatures {
  const sctp = [immediate(new Uint8Array(2)), writePayload("transport", 2, 2, { type: "sctp", offset: 8 })];
  return {
    queueStatement: probeQueue(connection),
    hasConntrack: isAccepted(connection, [notrack()]),
    hasSctpChecksum: isAccepted(connection, sctp),
  };
}

function probeQueue(connection: NftConnection): NftFeatures["queueStatement"] {
  const range = { first: 0, last: 0, isFanout: false };
  if (isAccepted(connection, [nativeQueue(range)])) return "native";
  if (isAccepted(connection, [compatQueue(range)])) return "compat";
  const advice = "it needs CONFIG_NFT_QUEUE, or CONFIG_NFT_COMPAT and CONFIG_NETFILTER_XT_TARGET_NFQUEUE";
  throw new UnsupportedError("nftables queue statement", advice);
}

/**
 * Whether the kernel takes a rule: tried in a transaction that always fails at its last command, so nothing stays.
 * The chain has no hook on purpose: when a hook is taken away, as that failure would do, the kernel drops every packet
 * that waits in any NFQUEUE of the namespace (nf_queue_nf_hook_drop, net/netfilter/nf_queue.c, v6.18).
 */
function isAccepted(connection: NftConnection, expressions: readonly Expression[]): boolean {
  const table = `probe-${process.pid}`;
  const chain = { table, chain: "probe" };
  try {
    connection.transaction([
      { kind: "addTable", table },
      { kind: "addChain", ...chain },
      { kind: "addRule", ...chain, expressions, comment: "" },
      { kind: "deleteChain", table, chain: "there-is-no-such-chain" },
    ]);
    return true;
  } catch (error) {
    if (!(error instanceof NetlinkError)) throw error;
    if (error.operation.includes("there-is-no-such-chain")) return true;
    if (error.errno === "EPERM") throw error;
    return false;
  }
}
