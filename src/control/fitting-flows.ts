import { isDeepStrictEqual } from "node:util";
import type { FlowRule } from "#flow";
import { mergeFlows } from "./desired.js";

/** What became of rules that were to be put in force. */
export type FittedFlows = {
  readonly changed: boolean;
  /** Those of ours in force. */
  readonly kept: readonly FlowRule[];
  /** By name, why a rule is not in force, or still as it was. */
  readonly refused: ReadonlyMap<string, string>;
};

/**
 * Puts our rules in force. Where they cannot be compiled together the change that is too much is refused: of the rules that are
 * new or changed those that ask for most are left out, one, two, four and so on until the others fit. A changed one that
 * is left out stays as it was, and so does everything else in force.
 * @param update makes the change that `change` asks for, as `updateFlows`
 * @throws as `update`
 */
export function fitFlows(
  wanted: readonly FlowRule[],
  update: (change: (present: readonly FlowRule[]) => readonly FlowRule[]) => { readonly changed: boolean },
): FittedFlows {
  let reason = "";
  for (let leave = 0; ; leave = Math.max(1, 2 * leave)) {
    let left: readonly FlowRule[] = [];
    let kept = wanted;
    try {
      const { changed } = update((present) => {
        left = leave === 0 ? [] : largestNews(wanted, present).slice(0, leave);
        kept = without(wanted, left, present);
        return mergeFlows(present, kept);
      });
      return { changed, kept, refused: new Map(left.map(({ name }) => [name, reason])) };
    } catch (error) {
      const { code, message } = error as { code?: string; message: string };
      if (code !== "ERR_TOO_MANY_RULES" || left.length < leave) throw error; // there is nothing more to leave out
      reason ||= message;
    }
  }
}

/** Rules that are not in force, or otherwise, those that ask for most first. */
function largestNews(wanted: readonly FlowRule[], present: readonly FlowRule[]): readonly FlowRule[] {
  const before = new Map(present.map((rule) => [rule.name, rule]));
  return wanted
    .filter((rule) => !isDeepStrictEqual(before.get(rule.name), rule))
    .toSorted((a, b) => sizeOf(b) - sizeOf(a));
}

function sizeOf({ destinations, sources, destinationPorts, sourcePorts, byteMatches }: FlowRule): number {
  const lists = [destinations, sources, destinationPorts ?? [], sourcePorts ?? [], byteMatches];
  return lists.reduce((sum, { length }) => sum + length, 0);
}

/** The rules without those left out; of these what is in force stays. */
function without(
  wanted: readonly FlowRule[],
  left: readonly FlowRule[],
  present: readonly FlowRule[],
): readonly FlowRule[] {
  if (left.length === 0) return wanted;
  const names = new Set(left.map(({ name }) => name));
  const before = new Map(present.map((rule) => [rule.name, rule]));
  return wanted.flatMap((rule) => (names.has(rule.name) ? (before.get(rule.name) ?? []) : rule));
}
