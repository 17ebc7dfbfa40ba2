import { NftConnection } from "#netlink/nftables";
import { diffElements, intervalElements } from "./intervals.js";
import { QUEUE_CHAIN, QUEUE_TABLE, VIP_SETS } from "./nft-nfqlb.js";

/**
 * Whether the kernel hands packets to all of these VIPs to a queue, as our table has it do. Reads only.
 * @param vips CIDR text of both families
 * @throws {NetlinkError} EPERM: CAP_NET_ADMIN is missing
 */
export function isQueueing(vips: readonly string[]): boolean {
  using nft = new NftConnection();
  const rules = nft.rules(QUEUE_TABLE) ?? [];
  if (!rules.some(({ chain }) => chain === QUEUE_CHAIN)) return false;
  return ([4, 6] as const).every((family) => {
    const actual = nft.elements(QUEUE_TABLE, VIP_SETS[family]);
    return diffElements(intervalElements(vips, family), actual).added.length === 0;
  });
}
