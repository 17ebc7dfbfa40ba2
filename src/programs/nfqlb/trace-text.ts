import { OUTCOME } from "#dataplane";
import { Packet, parse, RC_ICMP_ERROR, RC_UDP_ENCAP } from "#packet";
import { SELECTION, type TraceRecord } from "#tables";
import type { Explanation } from "./decision.js";

/** A packet that a trace shows. */
export type TracedPacket = {
  readonly explanation: Explanation;
  readonly record: TraceRecord;
  readonly queue: number;
  /** Name of the trace rule that took it, or null. */
  readonly trace: string | null;
};

const ICMP_NAMES: ReadonlyMap<number, string> = new Map([
  [3, "ICMP_DEST_UNREACH"],
  [4, "ICMP_SOURCE_QUENCH"],
  [5, "ICMP_REDIRECT"],
  [11, "ICMP_TIME_EXCEEDED"],
  [12, "ICMP_PARAMETERPROB"],
]);
const ICMPV6_NAMES: ReadonlyMap<number, string> = new Map([
  [1, "ICMPV6_DEST_UNREACH"],
  [2, "ICMPV6_PKT_TOOBIG"],
  [3, "ICMPV6_TIME_EXCEED"],
  [4, "ICMPV6_PARAMPROB"],
]);
const FRAGMENTATION_NEEDED = 4;
const PACKET_TOO_BIG = 2;

/** Names of the selections in a mask, in the order of their bits. */
export function selectionNames(mask: number): readonly string[] {
  return Object.entries(SELECTION).flatMap(([name, bit]) => ((mask & bit) === 0 ? [] : [name]));
}

/** Time of a record in UTC, as RFC 3339 writes it, with nine digits. */
export function formatTime({ seconds, nanoseconds }: TraceRecord): string {
  const whole = new Date(seconds * 1000).toISOString().slice(0, 19);
  return `${whole}.${String(nanoseconds).padStart(9, "0")}Z`;
}

/** One packet in nfqlb's form, with what it leaves out on the last lines; a blank line stands before it. */
export function formatTracedPacket({ explanation: e, record, queue, trace }: TracedPacket): string {
  const selection = selectionNames(record.selection).join(",");
  const end = (address: string | null, port: number | null) =>
    address === null ? "?" : `${mapped(address)} ${port ?? 0}`;
  const lines = [
    trace === null ? `Selected: ${selection}` : `Match for trace-flow: ${trace}`,
    ...icmpLines(record),
    `proto=${e.proto ?? "?"}, len=${record.length}, ${end(e.src, e.sport)} -> ${end(e.dst, e.dport)}`,
    ...encapsulationLines(record),
    answerLine(e, record.outcome),
    ...(e.hash === null
      ? []
      : [`flow=${e.flow ?? "-"}, hash=${e.hash}, lookupindex=${e.lookupindex}, activeindex=${e.activeindex}`]),
    `${e.verdict}: ${e.reason}; queue=${queue}, selection=${selection}, ${formatTime(record)}`,
  ];
  return `\n${lines.join("\n")}\n`;
}

/** The same as one JSON object: `explain --json` and what only a trace knows. */
export function tracedPacketJson({ explanation, record, queue, trace }: TracedPacket): string {
  const selection = selectionNames(record.selection);
  return JSON.stringify({ ...explanation, time: formatTime(record), queue, trace, len: record.length, selection });
}

/** nfqlb's line about the target. */
function answerLine({ target, fwmark }: Explanation, outcome: number): string {
  if (outcome === OUTCOME.forwarded) return `target=${target ?? "-"}, fwmark=${fwmark}`;
  if (outcome === OUTCOME.noFlow) return `NO target, fwmark=${fwmark}`;
  if (outcome === OUTCOME.noTarget) return `NO servers, target=${target ?? "-"}, fwmark=${fwmark}`;
  return `fwmark=${fwmark}`;
}

function icmpLines(record: TraceRecord): readonly string[] {
  if (record.rc < 0 || (record.rc & RC_ICMP_ERROR) === 0) return [];
  const { l4Offset, isV4 } = parsed(record);
  const { bytes } = record;
  if (l4Offset < 0 || l4Offset + 8 > bytes.length) return [];
  const [type = 0, code = 0] = bytes.subarray(l4Offset);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const name = (isV4 ? ICMP_NAMES : ICMPV6_NAMES).get(type) ?? `ICMP ${type}`;
  if (!isV4 && type === PACKET_TOO_BIG) return [`${name}: mtu=${view.getUint32(l4Offset + 4)}`];
  if (isV4 && type === 3 && code === FRAGMENTATION_NEEDED) {
    return [`${name}/FRAG_NEEDED: mtu=${view.getUint16(l4Offset + 6)}`];
  }
  return [`${name}: code=${code}`];
}

function encapsulationLines(record: TraceRecord): readonly string[] {
  if (record.rc < 0 || (record.rc & RC_UDP_ENCAP) === 0) return [];
  const { l4Offset } = parsed(record);
  const { bytes } = record;
  return l4Offset + 4 > bytes.length ? [] : [`udpencap=${(bytes[l4Offset + 2]! << 8) | bytes[l4Offset + 3]!}`];
}

function parsed({ bytes, etherType }: TraceRecord): Packet {
  const packet = new Packet();
  parse(bytes, 0, bytes.length, etherType, 0, packet);
  return packet;
}

/** An address as nfqlb prints it: IPv4 as ::ffff:a.b.c.d. */
function mapped(address: string): string {
  return address.includes(":") ? address : `::ffff:${address}`;
}
