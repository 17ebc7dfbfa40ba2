import { formatAddress, isIpv4, type Prefix } from "#model";
import { formatByteMatch } from "./byte-match.js";
import { formatPorts } from "./ports.js";
import type { FlowRule } from "./rule.js";

/**
 * One object of `flow-list`, in nfqlb's exact layout: field order, indentation, addresses as glibc's inet_ntop writes
 * them with the 128-bit prefix length, priority unsigned. Fields that match anything are left out.
 * @param matches the rule's counter
 * @param isTraceRule a trace rule has no table, so no `user_ref`
 */
export function formatFlowRule(rule: FlowRule, matches: number, isTraceRule = false): string {
  const list = (key: string, items: readonly string[] | null) =>
    items === null
      ? []
      : [
          `  "${key}": [${items.map((item) => `\n    ${JSON.stringify(item)}`).join(",")}${items.length > 0 ? "\n  " : ""}]`,
        ];
  const unlessEmpty = <T>(items: readonly T[]) => (items.length === 0 ? null : items);
  const fields = [
    `  "name": ${JSON.stringify(rule.name)}`,
    `  "priority": ${rule.priority >>> 0}`,
    ...(rule.protocols.length === 0 ? [] : [`  "protocols": [ ${rule.protocols.map((p) => `"${p}"`).join(", ")} ]`]),
    ...list("dests", unlessEmpty(rule.destinations)?.map(formatMapped) ?? null),
    ...list("dports", rule.destinationPorts?.map(formatPorts) ?? null),
    ...list("srcs", unlessEmpty(rule.sources)?.map(formatMapped) ?? null),
    ...list("sports", rule.sourcePorts?.map(formatPorts) ?? null),
    ...list("match", unlessEmpty(rule.byteMatches)?.map(formatByteMatch) ?? null),
    ...(rule.udpEncapPort === 0 ? [] : [`  "udpencap": ${rule.udpEncapPort}`]),
    `  "matches_count": ${matches}`,
    ...(isTraceRule ? [] : [`  "user_ref": ${JSON.stringify(rule.target === "" ? "NULL" : rule.target)}`]),
  ];
  return `{\n${fields.join(",\n")}\n}`;
}

/** A prefix as inet_ntop(AF_INET6) writes its address: the last 4 bytes dotted behind 80 zero bits and ffff or 0. */
function formatMapped({ address, bits }: Prefix): string {
  if (isIpv4(address)) return `::ffff:${formatAddress(address)}/${bits}`;
  const isCompatible = address.subarray(0, 12).every((byte) => byte === 0) && (address[12] !== 0 || address[13] !== 0);
  return `${isCompatible ? `::${address.subarray(12).join(".")}` : formatAddress(address)}/${bits}`;
}
