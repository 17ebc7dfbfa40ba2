import type { Random } from "../harness/random.js";

/**
 * One input of a target: numbers that say how it is set up, and byte strings that go in one after the other. A case means
 * the same wherever and whenever it is checked: a target keeps nothing from one case to the next.
 */
export type FuzzCase = { readonly settings: readonly number[]; readonly parts: readonly Uint8Array[] };

/** Something that takes bytes from outside, with a slow second opinion on what it must make of them. */
export type FuzzTarget = {
  /** How many things have happened, for a run that exercises nothing must fail. */
  readonly seen: Readonly<Record<string, number>>;
  /** A case as `random` wants it: the same numbers give the same case. */
  generate(random: Random): FuzzCase;
  /** What is wrong, or null. Whatever it throws is wrong too. Takes any settings and any bytes. */
  check(given: FuzzCase): string | null;
  /** How many cases this one counts as; 1 where it is not given. */
  weigh?(given: FuzzCase): number;
  /** How many times the time of one case it may take, where that is more than 1. */
  allowance?(given: FuzzCase): number;
};

/** Makes a target. @param folder an empty one, for its files @param root of the project */
export type TargetMaker = (folder: string, root: string) => FuzzTarget;

/** A case as the files of the corpus hold it. */
export type SavedCase = {
  readonly target: string;
  /** What the case is, in a sentence. */
  readonly about: string;
  readonly settings: readonly number[];
  /** Hex. */
  readonly parts: readonly string[];
};

export function saveCase(target: string, about: string, { settings, parts }: FuzzCase): SavedCase {
  return { target, about, settings, parts: parts.map((part) => Buffer.from(part).toString("hex")) };
}

export function loadCase({ settings, parts }: SavedCase): FuzzCase {
  return { settings, parts: parts.map((part) => new Uint8Array(Buffer.from(part, "hex"))) };
}

/** What `check` says, thrown errors included. */
export function problemWith(target: FuzzTarget, given: FuzzCase): string | null {
  try {
    return target.check(given);
  } catch (error) {
    return `threw ${(error as Error).stack ?? String(error)}`;
  }
}

/** What differs, or null when both are the same as JSON. Of long ones the place where they do. */
export function differ(what: string, got: unknown, want: unknown): string | null {
  const [left, right] = [JSON.stringify(got) ?? "nothing", JSON.stringify(want) ?? "nothing"];
  if (left === right) return null;
  let at = 0;
  while (left[at] === right[at]) at++;
  const near = (text: string) => (text.length < 400 ? text : `…${text.slice(Math.max(0, at - 100), at + 200)}…`);
  return `${what}: got ${near(left)}, want ${near(right)}`;
}
