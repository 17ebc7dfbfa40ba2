/** Isolated network domain; one instance serves one conduit of one trench. */
export type Trench = { readonly name: string };

/** One load-balanced path in a trench. */
export type Conduit = { readonly name: string; readonly trench: string; readonly portNats: readonly PortNat[] };

/** Rewrites a VIP's destination port. Ports 1…65535. */
export type PortNat = {
  readonly protocol: Protocol;
  readonly port: number;
  readonly targetPort: number;
  readonly vips: readonly Vip[];
};

export const PROTOCOLS = ["tcp", "udp", "sctp"] as const;
export type Protocol = (typeof PROTOCOLS)[number];

/** Virtual address or prefix, the packets' destination. `prefix` is CIDR text without host bits, for example `10.0.0.1/32`. */
export type Vip = { readonly name: string; readonly prefix: string };

/** Group of flows that share a set of targets; owns one lookup table. `maxTargets` 1…10000. */
export type Stream = { readonly name: string; readonly conduit: string; readonly maxTargets: number };

/**
 * Classification rule of a stream. Higher `priority` wins. An empty list of VIPs, prefixes or port ranges means any;
 * `protocols` lists the protocols it takes. Port ranges are text, `80` or `100-200`; byte matches as nfqlb writes them.
 */
export type Flow = {
  readonly name: string;
  readonly stream: string;
  readonly priority: number;
  readonly protocols: readonly Protocol[];
  readonly vips: readonly Vip[];
  readonly sourcePrefixes: readonly string[];
  readonly destinationPorts: readonly string[];
  readonly sourcePorts: readonly string[];
  readonly byteMatches: readonly string[];
};

/**
 * An endpoint registered in a stream. `identifier` is 1…maxTargets of its stream. `addresses` are plain addresses
 * without prefix length, at most one per family.
 */
export type Target = {
  readonly stream: string;
  readonly identifier: number;
  readonly addresses: readonly string[];
  /** The addresses as they were registered, with prefix lengths, in that order: for people and for labels of metrics. */
  readonly ips?: readonly string[];
};

/** Everything one instance needs to know, as one value. Streams, flows and targets of other conduits are left out. */
export type Configuration = {
  readonly conduit: Conduit;
  readonly vips: readonly Vip[];
  readonly streams: readonly Stream[];
  readonly flows: readonly Flow[];
  readonly targets: readonly Target[];
};
