import { createHash } from "node:crypto";
import type { ChainHook, Element, Expression, ListedChain, ListedRule, NftCommand, SetType } from "#netlink/nftables";

const COMMENT_PREFIX = "stateless-lb";

/** A rule that shall be there. `text` is what follows `nft add rule inet TABLE CHAIN`. */
export type WantedRule = {
  readonly text: string;
  readonly expressions: readonly Expression[];
  /** Shown by nft; changes with what the rule does. */
  readonly comment: string;
};

/** A chain that shall hold exactly these rules, in this order. `hook` null: it is called by jumps. */
export type WantedChain = {
  readonly chain: string;
  readonly hook: ChainHook | null;
  readonly rules: readonly WantedRule[];
};

/** A set that shall hold exactly these elements. */
export type WantedSet = {
  readonly set: string;
  readonly type: SetType;
  readonly elements: readonly Element[];
  /** Its elements decide what is queued, so they change when the data plane serves and the lookup tables are published. */
  readonly isQueueing?: boolean;
};

/** A table of family inet that shall hold exactly this. */
export type WantedTable = {
  readonly table: string;
  readonly sets: readonly WantedSet[];
  readonly chains: readonly WantedChain[];
};

/** A rule as the kernel has it. */
export type ActualRule = Pick<ListedRule, "comment" | "expressions">;

/** A chain as the kernel has it. */
export type ActualChain = ListedChain & { readonly rules: readonly ActualRule[] };

/** A set as the kernel has it. */
export type ActualSet = { readonly type: SetType | null; readonly elements: readonly Element[] };

/** A table as the kernel has it. */
export type ActualTable = {
  /** NFT_TABLE_F_*; ours have none. */
  readonly flags: number;
  readonly sets: ReadonlyMap<string, ActualSet>;
  readonly chains: ReadonlyMap<string, ActualChain>;
};

/** A change and the nft command for the same, without `nft`. */
export type NftChange = { readonly command: NftCommand; readonly text: string };

/** A rule with its comment: by it an operator knows a rule of ours from one that was put among them. */
export function makeRule(text: string, expressions: readonly Expression[]): WantedRule {
  const hash = createHash("sha256").update(text);
  for (const { name, data } of expressions) hash.update(name).update(data);
  return { text, expressions, comment: `${COMMENT_PREFIX} ${hash.digest("hex").slice(0, 16)}` };
}
