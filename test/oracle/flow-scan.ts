// The plain reading of the rules: asks one after the other, in evaluation order. Slow, and written apart from the compiler.
import type { FlowRule } from "#flow";
import { prefixContains } from "#model";
import type { Packet } from "#packet";

const NUMBERS: Record<string, number> = { tcp: 6, udp: 17, sctp: 132 };
const HEADERS: Record<string, number> = { tcp: 20, udp: 8, sctp: 12 };

export type ScanResult = { readonly rule: number; readonly udpEncapPort: number; readonly hits: readonly number[] };

/** What of a packet decides which rule takes it. */
export type ScannedPacket = Pick<
  Packet,
  "key" | "protocol" | "sourcePort" | "destinationPort" | "isEchoRequest" | "l4Offset" | "l4Protocol"
>;

/** What `classify` has to answer, with the indices of the rules that are counted. */
export function scan(
  rules: readonly FlowRule[],
  packet: ScannedPacket,
  bytes: Uint8Array,
  end: number,
  isPromiscuousPing: boolean,
): ScanResult {
  const hits: number[] = [];
  let udpEncapPort = 0;
  const isPing = isPromiscuousPing && packet.isEchoRequest;
  for (const [index, rule] of rules.entries()) {
    if (!isInside(rule.destinations, packet.key.slice(16, 32)) || !isInside(rule.sources, packet.key.slice(0, 16)))
      continue;
    if (!isPing) {
      if (rule.protocols.length > 0 && !rule.protocols.some((name) => NUMBERS[name] === packet.protocol)) continue;
      if (!isPort(rule.destinationPorts, packet.destinationPort) || !isPort(rule.sourcePorts, packet.sourcePort))
        continue;
      if (!rule.byteMatches.every((match) => holds(match, packet, bytes.subarray(0, end)))) continue;
      udpEncapPort = rule.udpEncapPort;
    }
    hits.push(index);
    if (rule.target !== "") return { rule: index, udpEncapPort, hits };
  }
  return { rule: -1, udpEncapPort, hits };
}

function isInside(prefixes: FlowRule["sources"], address: Uint8Array): boolean {
  return prefixes.length === 0 || prefixes.some((prefix) => prefixContains(prefix, address));
}

function isPort(ranges: FlowRule["sourcePorts"], port: number): boolean {
  return ranges === null || ranges.some(({ first, last }) => first <= port && port <= last);
}

function holds(match: FlowRule["byteMatches"][number], packet: ScannedPacket, bytes: Uint8Array): boolean {
  const isEncapsulated = packet.l4Protocol === 17 && packet.protocol === 132;
  const protocol = isEncapsulated ? 132 : packet.l4Protocol;
  if (NUMBERS[match.protocol] !== protocol) return true;
  const l4 = packet.l4Offset + (isEncapsulated ? 8 : 0);
  if (l4 + HEADERS[match.protocol]! > bytes.length) return false;
  let field = 0n;
  for (let i = 0; i < match.size; i++) field = field * 256n + BigInt(bytes[l4 + match.offset + i]!);
  return (match.mask === 0 ? field : field & BigInt(match.mask)) === BigInt(match.value);
}
