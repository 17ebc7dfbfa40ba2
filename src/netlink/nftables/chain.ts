import { chainAttributes } from "./codecs.js";

const NF_DROP = 0;
export const NF_ACCEPT = 1;
/** Hooks of family inet by their numbers, NF_INET_*. */
const HOOKS = ["prerouting", "input", "forward", "output", "postrouting"] as const;

/** Where a base chain is called. `priority`: lower ones are called first. */
export type ChainHook = {
  /** `route`: a packet whose mark or addresses the chain changed is routed anew. */
  readonly type: "filter" | "route";
  readonly hook: (typeof HOOKS)[number];
  readonly priority: number;
};

/** A chain as the kernel lists it; one without hook is called by jumps. */
export type ListedChain = {
  readonly table: string;
  readonly chain: string;
  /** The kernel's number of it, which a new name leaves as it is. */
  readonly handle: bigint;
  /** As in ChainHook; types and hooks that we do not know by their kernel name or number. */
  readonly hook: { readonly type: string; readonly hook: string; readonly priority: number } | null;
  /** Whether packets that no rule decides pass. */
  readonly isAccepting: boolean;
};

/** The attributes of a chain that is called at `hook` and accepts what no rule decides. */
export function hookFields({ type, hook, priority }: ChainHook) {
  return { hook: { hook: HOOKS.indexOf(hook), priority }, policy: NF_ACCEPT, type };
}

/** @param attributes what follows nfgenmsg @throws {DecodeError} */
export function decodeChain(attributes: Uint8Array): ListedChain {
  const {
    table = "",
    name = "",
    handle = 0n,
    hook,
    policy,
    type = "",
  } = chainAttributes.decode(attributes, "nfgenmsg");
  const number = hook?.hook ?? -1;
  return {
    table,
    chain: name,
    handle,
    hook: hook === undefined ? null : { type, hook: HOOKS[number] ?? `hook ${number}`, priority: hook.priority ?? 0 },
    isAccepting: policy !== NF_DROP,
  };
}
