import { formatPrefix, type Prefix, parsePrefix } from "#model";

/** An interface with the host's addresses on it. */
export type TargetInterface = {
  readonly index: number;
  readonly name: string;
  readonly isUp: boolean;
  /** Addresses with the length of what is on the link, CIDR text. */
  readonly prefixes: readonly string[];
};

/** An interface that has to be set down, and why. */
export type Surplus = { readonly index: number; readonly name: string; readonly reason: string };

/**
 * Interfaces to targets that have to be set down: all of them while no frontend is there, so that nobody is answered; and
 * those of a subnet in which there is a newer one, since the old one's routes would take the targets' packets (R22,
 * Meridio #392). Newer is the higher index, as the kernel numbers them. Addresses of the link itself make no subnet. Pure.
 * @param namePrefix how the names of interfaces to targets begin
 */
export function surplusInterfaces(
  interfaces: readonly TargetInterface[],
  namePrefix: string,
  isBlocked: boolean,
): readonly Surplus[] {
  const up = interfaces.filter(
    ({ name, isUp, prefixes }) => isUp && prefixes.length > 0 && name.startsWith(namePrefix),
  );
  if (isBlocked) return up.map(({ index, name }) => ({ index, name, reason: "no frontend is announced" }));
  const newest = new Map<string, TargetInterface>();
  for (const one of up.toSorted((a, b) => a.index - b.index)) for (const net of subnetsOf(one)) newest.set(net, one);
  return up.flatMap((one) => {
    const successor = subnetsOf(one)
      .map((net) => newest.get(net)!)
      .find(({ index }) => index > one.index);
    return successor === undefined
      ? []
      : [{ index: one.index, name: one.name, reason: `replaced by ${successor.name} in the same subnet` }];
  });
}

function subnetsOf({ prefixes }: TargetInterface): readonly string[] {
  return prefixes.filter((text) => !text.startsWith("fe80:")).map((text) => formatPrefix(networkOf(parsePrefix(text))));
}

function networkOf({ address, bits }: Prefix): Prefix {
  const network = address.map((byte, i) => byte & (0xff00 >> Math.min(8, Math.max(0, bits - i * 8))));
  return { address: network, bits };
}
