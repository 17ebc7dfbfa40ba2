import type { Element, NftCommand } from "#netlink/nftables";
import type { ActualChain, ActualSet, ActualTable } from "./nft-objects.js";

type Tables = ReadonlyMap<string, ActualTable>;
type OpenTable = { flags: number; readonly sets: Map<string, ActualSet>; readonly chains: Map<string, ActualChain> };

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
  return { flags: table?.flags ?? 0, sets: new Map(table?.sets), chains: new Map(table?.chains) };
}

function change(table: OpenTable, command: Exclude<NftCommand, { kind: "deleteTable" }>): void {
  const { sets, chains } = table;
  switch (command.kind) {
    case "addTable":
      table.flags = 0;
      break;
    case "addChain": {
      const { chain, hook = null } = command; // its handle is not known; see isDeducible
      if (!chains.has(chain))
        chains.set(chain, { table: command.table, chain, handle: 0n, hook, isAccepting: true, rules: [] });
      break;
    }
    case "renameChain":
      throw new Error("a renamed chain has to be read");
    case "deleteChain":
      chains.delete(command.chain);
      break;
    case "acceptByDefault":
      chains.set(command.chain, changed(chains.get(command.chain)!, { isAccepting: true }));
      break;
    case "flushChain":
      chains.set(command.chain, changed(chains.get(command.chain)!, { rules: [] }));
      break;
    case "addRule": {
      const { comment, expressions } = command;
      const chain = chains.get(command.chain)!;
      chains.set(command.chain, changed(chain, { rules: [...chain.rules, { comment, expressions }] }));
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

/** Field by field: see decision 0080. */
function changed(before: ActualChain, change: Partial<Pick<ActualChain, "isAccepting" | "rules">>): ActualChain {
  const { table, chain, handle, hook } = before;
  const { isAccepting = before.isAccepting, rules = before.rules } = change;
  return { table, chain, handle, hook, isAccepting, rules };
}

/** An interval's end is an element of its own beside the beginning of the next one. Marks and IPv4 addresses have 4 bytes. */
function keyOf({ key, isEnd }: Element): string | number {
  if (key.length !== 4) return `${Buffer.from(key).toString("latin1")}${isEnd === true ? "-" : ""}`;
  return (key[0]! + key[1]! * 2 ** 8 + key[2]! * 2 ** 16 + key[3]! * 2 ** 24) * 2 + Number(isEnd === true);
}
