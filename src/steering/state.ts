import type { Element, NftCommand, QueueRange } from "#netlink/nftables";
import type { Family, Route, Rule } from "#netlink/route";

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
};

/** Nothing of ours: what diff against it leaves is the clean-up. */
export const NOTHING_DESIRED: DesiredKernel = { targets: [], vips: [], queue: null };

/** Contents of one of our nftables tables; null = there is no such table. */
export type ActualTable = {
  /** Comment of each rule, by chain in order; our comments tell what a rule does. */
  readonly rules: readonly { readonly chain: string; readonly comment: string }[];
  readonly sets: ReadonlyMap<string, readonly Element[]>;
} | null;

/** What the kernel holds of ours at one moment. */
export type ActualKernel = {
  readonly rules: readonly Rule[];
  readonly routes: readonly Route[];
  readonly queueTable: ActualTable;
  readonly metricsTable: ActualTable;
  /** How packets can be queued here. */
  readonly queueStatement: "native" | "compat";
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

/** A step that the kernel refused. */
export type Failure = {
  readonly step: Step;
  /** Symbolic errno, for example ENETUNREACH. */
  readonly errno: string;
  readonly message: string;
  /** The target it concerns, or null. */
  readonly fwmark: number | null;
};
