import { type Decider, OUTCOME, OUTCOME_TEXT } from "#dataplane";
import { formatAddress } from "#model";
import { RC_ICMP_ERROR, RC_LATER_FRAGMENT } from "#packet";
import { protocolName } from "./tuple.js";

/** How a packet's fwmark came about, as the decider leaves it and as a trace record holds it. */
export type Decision = {
  /** nfqlb's return code of the key builder; -1 = unusable. */
  readonly rc: number;
  /** The 40 bytes that are hashed; mean nothing when the packet is unusable. */
  readonly key: Uint8Array;
  readonly outcome: number;
  /** Index of the table that was asked, or -1: then hash and positions mean nothing. */
  readonly stream: number;
  readonly hash: number;
  readonly lookupIndex: number;
  readonly activeIndex: number;
  readonly fwmark: number;
};

/** A decision as `--json` prints it, one object per packet and line. */
export type Explanation = {
  readonly n: number;
  /** `tcp`, `udp`, `sctp`, `icmp`, `icmpv6` or the protocol's number; null where the packet does not tell. */
  readonly proto: string | null;
  readonly src: string | null;
  readonly sport: number | null;
  readonly dst: string | null;
  readonly dport: number | null;
  /** Name of the flow rule that took the packet. */
  readonly flow: string | null;
  /** Name of the stream's table, nfqlb's `target`. */
  readonly target: string | null;
  readonly hash: number | null;
  readonly lookupindex: number;
  readonly activeindex: number;
  readonly fwmark: number;
  readonly verdict: "accept" | "drop";
  readonly reason: string;
};

/** The decision that a decider has just made; its key is a view. */
export function decisionOf(decider: Decider, fwmark: number): Decision {
  const { packet, outcome, stream, hash, lookupIndex, activeIndex } = decider;
  return { rc: packet.rc, key: packet.key, outcome, stream, hash, lookupIndex, activeIndex, fwmark };
}

/** @param n number of the packet, from 1 */
export function describeDecision(
  n: number,
  { rc, key, outcome, stream, hash, lookupIndex, activeIndex, fwmark }: Decision,
  flow: string | null,
  target: string | null,
): Explanation {
  const isParsed = rc >= 0;
  const hasPorts = isParsed && (rc & RC_LATER_FRAGMENT) === 0;
  // An unusable packet that follows a fragment is an error about a later one.
  const isError = isParsed ? (rc & RC_ICMP_ERROR) !== 0 : outcome === OUTCOME.fragment;
  const quoted = isError ? " (ICMP error, by the packet it quotes)" : "";
  const view = new DataView(key.buffer, key.byteOffset, key.byteLength);
  return {
    n,
    proto: hasPorts ? protocolName(view.getUint16(34, true)) : null,
    src: isParsed ? formatAddress(key.slice(0, 16)) : null,
    sport: hasPorts ? view.getUint16(36) : null,
    dst: isParsed ? formatAddress(key.slice(16, 32)) : null,
    dport: hasPorts ? view.getUint16(38) : null,
    flow,
    target,
    hash: stream < 0 ? null : hash,
    lookupindex: lookupIndex,
    activeindex: activeIndex,
    fwmark,
    verdict: fwmark < 0 ? "drop" : "accept",
    reason: `${OUTCOME_TEXT[outcome] ?? `outcome ${outcome}`}${quoted}`,
  };
}

/** The text of `explain`: who to whom, by which path, and what becomes of it. */
export function formatExplanation(explanation: Explanation): string {
  const path = formatPath(explanation);
  return (
    `${explanation.n}: ${formatEnds(explanation)}\n${path === "" ? "" : `  ${path}\n`}` +
    `  ${formatVerdict(explanation)}\n`
  );
}

/** The same in one line, without the packet's number and its ends. */
export function summarizeExplanation(explanation: Explanation): string {
  const path = formatPath(explanation);
  return `${path === "" ? "" : `${path}; `}${formatVerdict(explanation)}`;
}

function formatEnds(e: Explanation): string {
  const endpoint = (address: string | null, port: number | null) =>
    address === null
      ? "?"
      : port === null
        ? address
        : address.includes(":")
          ? `[${address}]:${port}`
          : `${address}:${port}`;
  return `${e.proto ?? "?"} ${endpoint(e.src, e.sport)} -> ${endpoint(e.dst, e.dport)}`;
}

function formatPath(e: Explanation): string {
  if (e.hash === null) return "";
  return `flow ${e.flow ?? "-"}, target ${e.target ?? "-"}: hash ${e.hash} -> position ${e.lookupindex} -> index ${e.activeindex}`;
}

function formatVerdict(e: Explanation): string {
  return `${e.verdict}${e.fwmark < 0 ? "" : ` with fwmark ${e.fwmark}`}: ${e.reason}`;
}
