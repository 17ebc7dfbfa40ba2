import type { Element, NftCommand } from "#netlink/nftables";
import type { ActualChain, ActualSet, ActualTable } from "./nft-objects.js";

type Tables = ReadonlyMap<string, ActualTable>;
type OpenTable = { readonly sets: Map<string, ActualSet>; readonly chains: Map<string, ActualChain> };

/**
 * What the kernel holds after a transaction of ours that it took, given what it held before: what reading it would say,
 * up to order and handles. Tables, sets and chains that no command names stay the same objects. Pure.
 */
export function afterCommands(before: Tables, commands: readonly NftCommand[]): Tables {
  const after = new Map(before);
  const open = new Map<string, OpenTable>();
  for (const command of commands) {
    const { table } = command;
    if (command.kind === "deleteTable") {
      after.delete(table);
      open.delete(table);
      continue;
    }
    const present = open.get(table) ?? copyOf(after.get(table));
    open.set(table, present);
    after.set(table, present);
    change(present, command);
  }
  return after;
}

/** Whether what comes of a command can be known: a new base chain's handle, by which it may be renamed, cannot. */
export function isDeducible(command: NftCommand): boolean {
  return command.kind !== "renameChain" && !(command.kind === "addChain" && command.hook != null);
}

function copyOf(table: ActualTable | undefined): OpenTable {
  return { sets: new Map(table?.sets), chains: new Map(table?.chains) };
}

function change({ sets, chains }: OpenTable, command: Exclude<NftCommand, { kind: "deleteTable" }>): void {
  switch (command.kind) {
    case "addTable":
      break;
    case "addChain": {
      const { table, chain, hook = null } = command; // its handle is not known; see isDeducible
      if (!chains.has(chain)) chains.set(chain, { table, chain, hook, isAccepting: true, rules: [], handle: 0n });
      break;
    }
    case "renameChain":
      throw new Error("a renamed chain has to be read");
    case "deleteChain":
      chains.delete(command.chain);
      break;
    case "acceptByDefault":
      chains.set(command.chain, { ...chains.get(command.chain)!, isAccepting: true });
      break;
    case "flushChain":
      chains.set(command.chain, { ...chains.get(command.chain)!, rules: [] });
      break;
    case "addRule": {
      const { comment, expressions } = command;
      const chain = chains.get(command.chain)!;
      chains.set(command.chain, { ...chain, rules: [...chain.rules, { comment, expressions }] });
      break;
    }
    case "addSet":
      if (!sets.has(command.set)) sets.set(command.set, { type: command.type, elements: [] });
      break;
    case "deleteSet":
      sets.delete(command.set);
      break;
    case "addElements":
    case "deleteElements": {
      const set = sets.get(command.set)!;
      const named = new Set(command.elements.map(keyOf));
      const others = set.elements.filter((element) => !named.has(keyOf(element)));
      const elements = command.kind === "addElements" ? [...others, ...command.elements] : others;
      sets.set(command.set, { ...set, elements });
      break;
    }
  }
}

/** An interval's end is an element of its own beside the beginning of the next one. */
const keyOf = ({ key, isEnd }: Element) => `${Buffer.from(key).toString("latin1")}${isEnd === true ? "-" : ""}`;
