import type { Element, ListedChain } from "#netlink/nftables";
import { diffElements } from "./intervals.js";
import type { Memo } from "./memo.js";
import { formatNftCommand, readMark } from "./nft-format.js";
import type { ActualChain, ActualTable, NftChange, WantedChain, WantedSet, WantedTable } from "./nft-objects.js";

/** What to change in one table, by when: as in Plan. Each list is one transaction. */
export type TableChanges = {
  readonly additions: readonly NftChange[];
  readonly queueing: readonly NftChange[];
  readonly removals: readonly NftChange[];
};

type Command = NftChange["command"];
const change = (command: Command, ruleText?: string): NftChange => ({
  command,
  text: formatNftCommand(command, ruleText),
});

/**
 * What turns the actual table into the wanted one, whatever made them differ: a new configuration, an earlier run, or
 * somebody's hand. null: there shall be, or there is, no such table. Pure.
 *
 * A chain whose rules differ is emptied and filled anew, in one transaction and without its hook being taken away: for
 * that the kernel drops every packet that waits in an NFQUEUE (nf_queue_nf_hook_drop, net/netfilter/nf_queue.c, v6.18).
 * For the same reason a base chain that nobody wants any more is only emptied, and the next one at its hook is made of
 * it: so there are never more than two configurations want together, and the kernel allows 1024 at a hook.
 */
export function diffTable(
  table: string,
  wanted: WantedTable | null,
  actual: ActualTable | null,
  memo: Memo,
): TableChanges {
  const deletion = change({ kind: "deleteTable", table });
  if (wanted === null) return { additions: [], queueing: [], removals: actual === null ? [] : [deletion] };
  if (actual !== null && isMisshapen(wanted, actual)) {
    const anew = diffTable(table, wanted, null, memo);
    return { ...anew, additions: [deletion, ...anew.additions] };
  }
  const present = actual ?? { flags: 0, sets: new Map(), chains: new Map() };
  const removals: NftChange[] = [];
  const elements = wanted.sets.map((set) => diffSet(table, set, present));
  const spare = spareChains(wanted, present);
  removals.push(...elements.flatMap((changes) => changes.removals), ...removeSurplus(wanted, present));
  const additions = [
    ...wanted.sets
      .filter(({ set }) => !present.sets.has(set))
      .map(({ set, type }) => change({ kind: "addSet", table, set, type })),
    ...wanted.chains.flatMap((chain) => makeChain(table, chain, present.chains.get(chain.chain) ?? spare(chain), memo)),
    ...elements.flatMap((changes) => changes.additions),
  ];
  if (actual === null || actual.flags !== 0) additions.unshift(change({ kind: "addTable", table })); // or wakes it
  return { additions, queueing: elements.flatMap((changes) => changes.queueing), removals };
}

/**
 * NFT_TABLE_F_DORMANT, include/uapi/linux/netfilter/nf_tables.h (v6.18): no chain is called until the table is added once
 * more. The other flags stay as long as the table (nf_tables_updtable, net/netfilter/nf_tables_api.c).
 */
const DORMANT = 1;

/** Whether something has our name and another form, which cannot be changed where it is. */
function isMisshapen(wanted: WantedTable, actual: ActualTable): boolean {
  const isOtherSet = ({ set, type }: WantedSet) => {
    const listed = actual.sets.get(set);
    return listed !== undefined && listed.type !== type;
  };
  const isOtherChain = ({ chain, hook }: WantedChain) => {
    const listed = actual.chains.get(chain);
    return listed !== undefined && listed.hook !== hook && hookText(listed.hook) !== hookText(hook);
  };
  return (actual.flags & ~DORMANT) !== 0 || wanted.sets.some(isOtherSet) || wanted.chains.some(isOtherChain);
}

const hookText = (hook: ListedChain["hook"]) => (hook === null ? "" : `${hook.type} ${hook.hook} ${hook.priority}`);

function makeChain(
  table: string,
  wanted: WantedChain,
  actual: ActualChain | undefined,
  memo: Memo,
): readonly NftChange[] {
  if (actual !== undefined && memo.isSameChain(actual, wanted)) return [];
  const { chain, hook, rules } = wanted;
  const hasRules =
    actual?.rules.length === rules.length && rules.every((rule, i) => memo.isSameRule(actual.rules[i]!, rule));
  const changes: NftChange[] = [];
  const name = actual?.chain ?? chain;
  if (actual === undefined) changes.push(change({ kind: "addChain", table, chain, hook }));
  else if (!actual.isAccepting) changes.push(change({ kind: "acceptByDefault", table, chain }));
  if (!hasRules) {
    if (actual !== undefined && actual.rules.length > 0) changes.push(change({ kind: "flushChain", table, chain }));
    for (const { text, expressions, comment } of rules) {
      changes.push(change({ kind: "addRule", table, chain: name, expressions, comment }, text));
    }
  }
  if (actual !== undefined && name !== chain)
    changes.push(change({ kind: "renameChain", table, chain: name, handle: actual.handle, newName: chain }));
  if (actual !== undefined && changes.length === 0) memo.setSameChain(actual, wanted);
  return changes;
}

/** Gives each chain that is not there an empty one at the same hook that nobody wants, while there is one. */
function spareChains({ chains }: WantedTable, actual: ActualTable): (wanted: WantedChain) => ActualChain | undefined {
  const names = new Set(chains.map(({ chain }) => chain));
  const spare = [...actual.chains.values()].filter(
    ({ chain, hook, rules, isAccepting }) => hook !== null && !names.has(chain) && rules.length === 0 && isAccepting,
  );
  return ({ hook }) => {
    if (hook === null) return undefined;
    const at = spare.findIndex((chain) => hookText(chain.hook) === hookText(hook));
    return at < 0 ? undefined : spare.splice(at, 1)[0];
  };
}

function diffSet(
  table: string,
  { set, type, elements, isQueueing = false }: WantedSet,
  actual: ActualTable,
): TableChanges {
  const present = actual.sets.get(set)?.elements ?? [];
  const changes = (kind: "addElements" | "deleteElements", some: readonly Element[]) =>
    some.length === 0 ? [] : [change({ kind, table, set, elements: some })];
  if (type === "markToVerdict") {
    const { added, changed, surplus } = diffMap(elements, present);
    return {
      additions: [...changes("deleteElements", changed), ...changes("addElements", added)],
      queueing: [],
      removals: changes("deleteElements", surplus),
    };
  }
  const { added, deleted } = diffElements(elements, present);
  const both = [...changes("deleteElements", deleted), ...changes("addElements", added)];
  return { additions: isQueueing ? [] : both, queueing: isQueueing ? both : [], removals: [] };
}

/** `changed`: elements whose key is wanted with another jump. */
function diffMap(wanted: readonly Element[], present: readonly Element[]) {
  const keyOf = ({ key }: Element) => readMark(key);
  const presentJumps = new Map(present.map((element) => [keyOf(element), element.jump]));
  const wantedJumps = new Map(wanted.map((element) => [keyOf(element), element.jump]));
  return {
    added: wanted.filter((element) => presentJumps.get(keyOf(element)) !== element.jump),
    changed: present.filter((element) => {
      const jump = wantedJumps.get(keyOf(element));
      return jump !== undefined && jump !== element.jump;
    }),
    surplus: present.filter((element) => !wantedJumps.has(keyOf(element))),
  };
}

/** Chains and sets of this table that nobody wants. Rules before the sets they look at, sets before the chains they lead to. */
function removeSurplus({ table, sets, chains }: WantedTable, actual: ActualTable): readonly NftChange[] {
  const wantedChains = new Set(chains.map(({ chain }) => chain));
  const wantedSets = new Set(sets.map(({ set }) => set));
  const surplus = [...actual.chains.values()].filter(({ chain }) => !wantedChains.has(chain));
  const gone = surplus.filter(({ hook }) => hook === null);
  return [
    ...surplus.filter(({ rules }) => rules.length > 0).map(({ chain }) => change({ kind: "flushChain", table, chain })),
    ...surplus
      .filter(({ hook, isAccepting }) => hook !== null && !isAccepting)
      .map(({ chain }) => change({ kind: "acceptByDefault", table, chain })),
    ...[...actual.sets.keys()]
      .filter((set) => !wantedSets.has(set))
      .map((set) => change({ kind: "deleteSet", table, set })),
    ...gone.map(({ chain }) => change({ kind: "deleteChain", table, chain })),
  ];
}
