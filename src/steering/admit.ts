import { parsePrefix, prefixContains } from "#model";
import type { NftFeatures } from "#netlink/nftables";
import { Memo } from "./memo.js";
import { natName } from "./nft-nat.js";
import type { DesiredKernel, DesiredNat, Refusal } from "./state.js";

/**
 * What can be served of what is desired, and the rest with its reason; each object is judged alone. Pure.
 *
 * A target has one address per family at most: its routing table has one default route, and two next hops in it would
 * send the packets of one connection to either by a hash that only this kernel knows.
 */
export function admit(
  desired: DesiredKernel,
  features: NftFeatures,
  memo = new Memo(),
): { readonly admitted: DesiredKernel; readonly refusals: readonly Refusal[] } {
  const refusals: Refusal[] = [];
  const gateways = memo.gatewaysOf(desired.targets);
  const ambiguous = desired.targets.filter((_, i) => gateways[i]!.isAmbiguous);
  const targets = // the same list where all are clear
    ambiguous.length === 0 ? desired.targets : desired.targets.filter((_, i) => !gateways[i]!.isAmbiguous);
  for (const { fwmark, addresses } of ambiguous) {
    const reason = "several addresses of one family: only one default route fits into a target's routing table";
    refusals.push({ what: "target", name: addresses.join(","), reason, fwmark });
  }
  const portNats: DesiredNat[] = [];
  for (const nat of desired.portNats) {
    const reason = natObstacle(nat, portNats, features);
    if (reason === null) portNats.push(nat);
    else refusals.push({ what: "port NAT", name: natName(nat), reason, fwmark: null });
  }
  return { admitted: { ...desired, targets, portNats }, refusals };
}

/** Why a port NAT cannot be served beside those that are, or null. */
function natObstacle(nat: DesiredNat, others: readonly DesiredNat[], { hasSctpChecksum }: NftFeatures): string | null {
  if (nat.protocol === "sctp" && !hasSctpChecksum)
    return "this kernel cannot renew the checksum of SCTP (Linux 5.10 can)";
  const other = others.find((one) => one.protocol === nat.protocol && shareVips(one, nat) && isAmbiguous(one, nat));
  return other === undefined ? null : `it would translate the same packets, or once more, as ${natName(other)}`;
}

/** Two translate one packet, or one translates what the other has made; which one is first is up to the kernel's history. */
function isAmbiguous(a: DesiredNat, b: DesiredNat): boolean {
  return a.port === b.port || a.targetPort === b.targetPort || a.targetPort === b.port || a.port === b.targetPort;
}

function shareVips(a: DesiredNat, b: DesiredNat): boolean {
  if (natName(a) === natName(b)) return true;
  const others = b.vips.map(parsePrefix);
  return a.vips
    .map(parsePrefix)
    .some((one) => others.some((other) => prefixContains(one, other.address) || prefixContains(other, one.address)));
}
