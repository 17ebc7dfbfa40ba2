import type { Family, Rule } from "#netlink/route";
import { OUR_PROTOCOL } from "./state.js";

/**
 * Layout of our `ip rule` entries. The kernel walks rules one by one for every packet, so many targets stand in a tree:
 *
 *     2 (or 4)   fwmark BASE/MASK goto BLOCK     one per block of marks
 *     3 (or 5)   goto 95                         packets without a mark of ours leave here
 *     10…49 (or 50…89)  fwmark M lookup M        the members of a block, all at its priority
 *     90         fwmark M lookup M               instead of the tree: few targets, one flat list
 *     95         nop                             where the gotos lead; a goto needs an existing rule
 *
 * All priorities are below 100, ahead of a frontend's rules. There are two places for a tree so that one with another
 * block size can be built beside the one in force. A member stands nowhere but under its exact mark, so a packet that
 * falls through from one block into the next can only ever be found, never misled.
 */
const FLAT_PRIORITY = 90;
const END_PRIORITY = 95;
const TREES = {
  A: { gotoPriority: 2, firstBlock: 10 },
  B: { gotoPriority: 4, firstBlock: 50 },
} as const;
type TreeName = keyof typeof TREES;
const BLOCKS_PER_TREE = 40;
/** Blocks of a fresh tree at most, so that it can grow for a while. */
const FRESH_BLOCKS = 30;
const SMALLEST_BLOCK = 64;
/** Above so many targets the flat list becomes a tree, below the other a tree becomes flat; between them what is stays. */
const MOST_FLAT = 64;
const FEWEST_IN_TREE = 32;

/** The rules wanted: `first`, one member for each mark, and `last`, in the order in which they may be added. */
export type RuleLayout = {
  readonly first: readonly Rule[];
  readonly memberOf: (fwmark: number) => Rule;
  /** With the terminator, which comes only after the tables are published. */
  readonly last: readonly Rule[];
  /** Whether a rule belongs to this layout's tree or list, or to another one that it replaces. */
  readonly owns: (rule: Rule) => boolean;
  /** Packets are steered by it already; else it is built beside what is. */
  readonly isInForce: boolean;
  /** Another one whenever a member may be another one. */
  readonly text: string;
};

/** The mark whose member a rule is, by its form; 0: it is none. */
export function markOfRule({ action, fwmark, fwmask }: Rule): number {
  return action === "table" && fwmark !== null && fwmask === 0xffffffff ? fwmark : 0;
}

/** Whether a rule is a tree's way out for packets without a mark of ours. It hides every rule up to the end. */
export function isTerminator({ action, fwmark, selectors }: Rule): boolean {
  return action === "goto" && fwmark === null && selectors === undefined;
}

/**
 * The rules that send each mark to its table. Depends on what is there so that little changes: a tree in force keeps its
 * place, its block size and its blocks' priorities as long as the marks fit.
 * @param fwmarks 1…2³¹−1, distinct, ascending
 * @param actual our rules of that family; members are not looked at
 */
export function layOutRules(family: Family, fwmarks: readonly number[], actual: readonly Rule[]): RuleLayout {
  const current = currentTree(actual);
  if (fwmarks.length <= (current === null ? MOST_FLAT : FEWEST_IN_TREE)) return flat(family, current === null);
  const keepsTree = current !== null && blocksOf(fwmarks, current.blockSize).length <= BLOCKS_PER_TREE;
  const name: TreeName = current === null ? "A" : keepsTree ? current.name : current.name === "A" ? "B" : "A";
  const blockSize = keepsTree ? current.blockSize : freshBlockSize(fwmarks);
  const known: ReadonlyMap<number, number> = keepsTree ? current.blocks : new Map();
  return { ...tree(family, blocksOf(fwmarks, blockSize), name, blockSize, known), isInForce: keepsTree };
}

function flat(family: Family, isInForce: boolean): RuleLayout {
  return {
    first: [],
    memberOf: (fwmark) => member(family, FLAT_PRIORITY, fwmark),
    last: [],
    owns: ({ priority }) => priority === FLAT_PRIORITY,
    isInForce,
    text: "flat",
  };
}

function tree(
  family: Family,
  bases: readonly number[],
  name: TreeName,
  blockSize: number,
  known: ReadonlyMap<number, number>,
): Omit<RuleLayout, "isInForce"> {
  const { gotoPriority, firstBlock } = TREES[name];
  const taken = new Set(bases.flatMap((base) => known.get(base) ?? []));
  const free = Array.from({ length: BLOCKS_PER_TREE }, (_, i) => firstBlock + i).filter(
    (priority) => !taken.has(priority),
  );
  const priorities = new Map(bases.map((base) => [base, known.get(base) ?? free.shift()!]));
  const basic = { family, table: 0, protocol: OUR_PROTOCOL } as const;
  const mask = (0xffffffff & ~(blockSize - 1)) >>> 0;
  return {
    first: [{ ...basic, priority: END_PRIORITY, fwmark: null, fwmask: 0xffffffff, action: "nop", goto: null }],
    memberOf: (fwmark) => member(family, priorities.get(baseOf(fwmark, blockSize))!, fwmark),
    last: [
      ...bases.map(
        (base): Rule => ({
          ...basic,
          priority: gotoPriority,
          fwmark: base,
          fwmask: mask,
          action: "goto",
          goto: priorities.get(base)!,
        }),
      ),
      { ...basic, priority: gotoPriority + 1, fwmark: null, fwmask: 0xffffffff, action: "goto", goto: END_PRIORITY },
    ],
    owns: ({ priority }) =>
      priority === gotoPriority ||
      priority === gotoPriority + 1 ||
      priority === END_PRIORITY ||
      (priority >= firstBlock && priority < firstBlock + BLOCKS_PER_TREE),
    text: `${blockSize} ${[...priorities].join(" ")}`,
  };
}

function member(family: Family, priority: number, fwmark: number): Rule {
  return {
    family,
    priority,
    fwmark,
    fwmask: 0xffffffff,
    action: "table",
    table: fwmark,
    goto: null,
    protocol: OUR_PROTOCOL,
  };
}

type Tree = { readonly name: TreeName; readonly blockSize: number; readonly blocks: ReadonlyMap<number, number> };

/**
 * The tree in force, if there is one, and the priorities of its blocks by base. While one takes over from another,
 * both may be there: the one with a way out has taken over, and where neither has, both are complete.
 */
function currentTree(actual: readonly Rule[]): Tree | null {
  const trees = (["A", "B"] as const).flatMap((name) => {
    const { gotoPriority } = TREES[name];
    const gotos = actual.filter(
      (rule) => rule.priority === gotoPriority && rule.action === "goto" && !isTerminator(rule),
    );
    const [first] = gotos;
    if (first === undefined) return [];
    const ofSize = gotos.filter(({ fwmask }) => fwmask === first.fwmask);
    const blocks = new Map(ofSize.map((rule) => [rule.fwmark!, rule.goto!]));
    const hasWayOut = actual.some((rule) => rule.priority === gotoPriority + 1 && isTerminator(rule));
    return [{ name, blockSize: (~first.fwmask >>> 0) + 1, blocks, hasWayOut }];
  });
  return trees.find(({ hasWayOut }) => hasWayOut) ?? trees[0] ?? null;
}

const baseOf = (fwmark: number, blockSize: number) => fwmark - (fwmark % blockSize);

/** First marks of the blocks that hold these, ascending as they are. */
function blocksOf(fwmarks: readonly number[], blockSize: number): readonly number[] {
  const bases: number[] = [];
  for (const fwmark of fwmarks) {
    const base = baseOf(fwmark, blockSize);
    if (base !== bases.at(-1)) bases.push(base);
  }
  return bases;
}

function freshBlockSize(fwmarks: readonly number[]): number {
  let size = SMALLEST_BLOCK;
  while (blocksOf(fwmarks, size).length > FRESH_BLOCKS) size *= 2;
  return size;
}
