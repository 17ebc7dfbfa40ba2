import type { NftCommand, NftFeatures, QueueRange } from "#netlink/nftables";
import type { Family, Route, Rule } from "#netlink/route";
import type { Memo } from "./memo.js";
import type { ActualTable } from "./nft-objects.js";

/** Routing protocol number of everything of ours among rules and routes; nobody else's in iproute2's rt_protos. */
export const OUR_PROTOCOL = 90;

/** The kernel state one instance wants. */
export type DesiredKernel = {
  /** Marked packets go to these: one address per family at most, plain text. The fwmark names the routing table too. */
  readonly targets: readonly { readonly fwmark: number; readonly addresses: readonly string[] }[];
  /** Prefixes whose packets are queued. */
  readonly vips: readonly string[];
  /** null: no packet is queued. */
  readonly queue: QueueRange | null;
  readonly portNats: readonly DesiredNat[];
  /** How names of interfaces to targets begin; null: fragments are left to the data plane, and tracking as it is. */
  readonly targetInterfaces: string | null;
};

/** Packets to these VIPs and that port reach their target at another port. */
export type DesiredNat = {
  readonly protocol: "tcp" | "udp" | "sctp";
  readonly port: number;
  readonly targetPort: number;
  /** Prefixes; none: nothing is translated. */
  readonly vips: readonly string[];
};

/** Nothing of ours: what diff against it leaves is the clean-up. */
export const NOTHING_DESIRED: DesiredKernel = {
  targets: [],
  vips: [],
  queue: null,
  portNats: [],
  targetInterfaces: null,
};

/** What the kernel holds of ours at one moment. */
export type ActualKernel = {
  readonly rules: readonly Rule[];
  readonly routes: readonly Route[];
  /** Whether a route leads out by another link than the kernel chose when we made it. */
  readonly isAstray: (route: Route) => boolean;
  /** Our nftables tables that are there, by name. */
  readonly tables: ReadonlyMap<string, ActualTable>;
  readonly features: NftFeatures;
  readonly memo: Memo;
};

/** One change of the kernel, as data. */
export type Step =
  | { readonly kind: "addRule" | "deleteRule"; readonly rule: Rule; readonly fwmark: number | null }
  | { readonly kind: "replaceRoute"; readonly family: Family; readonly table: number; readonly gateway: string }
  | { readonly kind: "deleteRoute"; readonly route: Route }
  | { readonly kind: "nft"; readonly commands: readonly NftCommand[]; readonly text: readonly string[] };

/**
 * What to do, in order: `additions` make the new beside the old, then tables are published, then `vips` change what is
 * queued, and `removals` take away what nobody uses any more.
 */
export type Plan = {
  readonly additions: readonly Step[];
  readonly vips: readonly Step[];
  readonly removals: readonly Step[];
};

/** Something desired that is not even tried, because it cannot be right. It stays so until the configuration changes. */
export type Refusal = {
  readonly what: "target" | "port NAT";
  /** What it is about: a target's addresses, or a port NAT's name. */
  readonly name: string;
  readonly reason: string;
  /** The target's, or null. */
  readonly fwmark: number | null;
};

/** A step that the kernel refused. */
export type Failure = {
  readonly step: Step;
  /** Symbolic errno, for example ENETUNREACH. */
  readonly errno: string;
  readonly message: string;
  /** The target it concerns, or null. */
  readonly fwmark: number | null;
};
