import {
  compare,
  compatQueue,
  counter,
  immediate,
  meta,
  type NftFeatures,
  nativeQueue,
  setMark,
  transportHeader,
  writePayload,
} from "#netlink/nftables";
import type { Family } from "#netlink/route";
import { intervalElements } from "./intervals.js";
import { makeRule, type WantedChain, type WantedRule, type WantedSet, type WantedTable } from "./nft-objects.js";
import {
  addressIn,
  be16,
  byte,
  FAMILIES,
  IP,
  ofFamily,
  ofProtocol,
  QUOTED,
  quotedAddressIn,
  transportIs,
} from "./nft-rules.js";
import type { DesiredKernel } from "./state.js";

export const QUEUE_TABLE = "meridio-nfqlb";
/** Where packets to VIPs are queued. */
export const QUEUE_CHAIN = "nfqlb";
export const VIP_SETS = { 4: "ipv4-vips", 6: "ipv6-vips" } as const;
const NO_MARK = new Uint8Array(4);

/** The table that hands packets to the data plane, and sees to it that our own path-MTU answers come from the VIP. */
export function queueTable(
  vips: readonly string[],
  queue: NonNullable<DesiredKernel["queue"]>,
  { queueStatement }: NftFeatures,
): WantedTable {
  const statement = queueStatement === "native" ? nativeQueue(queue) : compatQueue(queue);
  const flags = [...(queue.isFanout ? ["fanout"] : []), ...(queue.isBypass === true ? ["bypass"] : [])];
  const end = {
    text: `counter queue to ${queue.first}-${queue.last}${flags.length > 0 ? ` ${flags.join(",")}` : ""}`,
    expressions: [counter(), statement],
  };
  const toVip = (family: Family) => addressIn(family, "destination", VIP_SETS[family]);
  const chains: WantedChain[] = [
    {
      chain: QUEUE_CHAIN,
      hook: { type: "filter", hook: "prerouting", priority: 0 },
      rules: FAMILIES.map((family) => {
        const expressions = [...ofFamily(family), ...toVip(family).expressions, ...end.expressions];
        return makeRule(`${toVip(family).text} ${end.text}`, expressions);
      }),
    },
    {
      chain: "nfqlb-local",
      hook: { type: "filter", hook: "output", priority: 0 },
      rules: FAMILIES.map((family) => {
        const { icmp, icmpName } = IP[family];
        const expressions = [
          ...ofProtocol(icmp),
          ...ofFamily(family),
          ...toVip(family).expressions,
          ...end.expressions,
        ];
        return makeRule(`meta l4proto ${icmpName} ${toVip(family).text} ${end.text}`, expressions);
      }),
    },
    {
      chain: "snat-local",
      hook: { type: "route", hook: "output", priority: -300 },
      rules: FAMILIES.map(sourceRewrite),
    },
  ];
  const sets = FAMILIES.map((family): WantedSet => {
    const elements = intervalElements(vips, family);
    return { set: VIP_SETS[family], type: IP[family].setType, elements, isQueueing: true };
  });
  return { table: QUEUE_TABLE, sets, chains };
}

/**
 * "Packet too big" of this host about a packet to a VIP gets that VIP as source: a client may not believe anybody else.
 * It has the mark of the packet that caused it (sysctl fwmark_reflect), which would lead it to a target, so that is
 * taken off and it is routed anew. The IPv6 source is in the checksum of ICMPv6.
 */
function sourceRewrite(family: Family): WantedRule {
  const { icmp, icmpName, addressBytes, source, destination, name } = IP[family];
  const vips = VIP_SETS[family];
  const isTooBig = family === 4 ? transportIs(0, be16(0x0304)) : transportIs(0, byte(2));
  const at = QUOTED + destination;
  const conditions = [
    addressIn(family, "destination", vips, false),
    addressIn(family, "source", vips, false),
    quotedAddressIn(family, "destination", vips),
  ];
  const checksum =
    family === 4
      ? ({ type: "internet", offset: 10, isTransport: true } as const)
      : ({ type: "none", isTransport: true } as const);
  return makeRule(
    `meta l4proto ${icmpName} ${isTooBig.text} meta mark != 0x00000000 ${conditions.map(({ text }) => text).join(" ")} counter ${name} saddr set @th,${at * 8},${addressBytes * 8} meta mark set 0x00000000`,
    [
      ...ofFamily(family),
      ...ofProtocol(icmp),
      ...isTooBig.expressions,
      meta("mark"),
      compare("!=", NO_MARK),
      ...conditions.flatMap(({ expressions }) => expressions),
      counter(),
      transportHeader(at, addressBytes),
      writePayload("network", source, addressBytes, checksum),
      immediate(NO_MARK),
      setMark(),
    ],
  );
}
