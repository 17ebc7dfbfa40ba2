import { type Codec, concat } from "#bytes";
import { expressionCodecs, ruleAttributes } from "./codecs.js";
import type { Expression } from "./expressions.js";

/** A rule as the kernel lists it. */
export type ListedRule = {
  readonly chain: string;
  /** Tells this rule from its neighbors in a request. */
  readonly handle: bigint;
  readonly comment: string;
  readonly expressions: readonly Expression[];
};

/** @param attributes what follows nfgenmsg @throws {DecodeError} */
export function decodeRule(attributes: Uint8Array): ListedRule {
  const { chain = "", handle = 0n, userData, expressions = [] } = ruleAttributes.decode(attributes, "nfgenmsg");
  return {
    chain,
    handle,
    comment: readComment(userData),
    expressions: expressions.map(({ name, data }) => ({ name: name ?? "", data: data ?? new Uint8Array(0) })),
  };
}

/**
 * Whether a listed rule does what expressions of ours do, by what they say and not by their bytes: the kernel tells
 * attributes in another order, tells the zeroes that we leave out, and tells what a counter has counted.
 */
export function doesTheSame(listed: readonly Expression[], wanted: readonly Expression[]): boolean {
  return listed.length === wanted.length && wanted.every((one, i) => isSame(one, listed[i]!));
}

function isSame(a: Expression, b: Expression): boolean {
  if (a.name !== b.name) return false;
  if (a.name === "counter" || Buffer.compare(a.data, b.data) === 0) return true;
  const codec = (expressionCodecs as Readonly<Record<string, Codec<object>>>)[a.name];
  return codec !== undefined && meaning(codec.decode(a.data, a.name)) === meaning(codec.decode(b.data, b.name));
}

/** What an expression says, for people: its attributes by name, bytes in hex; none of one that we do not declare. */
export function describeExpression({ name, data }: Expression): Readonly<Record<string, unknown>> {
  const codec = (expressionCodecs as Readonly<Record<string, Codec<object>>>)[name];
  return codec === undefined ? {} : describe(codec.decode(data, name));
}

function describe(value: object): Readonly<Record<string, unknown>> {
  const known = Object.entries(value).filter(([key, one]) => key !== "unknown" && one !== undefined);
  return Object.fromEntries(
    known.map(([key, one]: [string, unknown]) => {
      if (one instanceof Uint8Array) return [key, Buffer.from(one).toString("hex")];
      if (typeof one === "object" && one !== null) return [key, describe(one)];
      return [key, typeof one === "bigint" ? Number(one) : one];
    }),
  );
}

/** Attributes that mean the same when they are 0 and when they are not there. */
const ZERO_BY_DEFAULT = ["flags", "operation", "checksumType", "checksumOffset", "checksumFlags"];

/** Equal for values that mean the same to the kernel. What we do not declare says nothing. */
function meaning(value: object): string {
  const parts = Object.entries(value).flatMap(([key, one]): string[] => {
    if (one === undefined || key === "setId" || key === "unknown") return [];
    if (one === 0 && ZERO_BY_DEFAULT.includes(key)) return [];
    if (one instanceof Uint8Array) return [`${key} ${Buffer.from(one).toString("hex")}`];
    return [`${key} ${typeof one === "object" ? meaning(one as object) : String(one)}`];
  });
  return `{${parts.toSorted().join()}}`;
}

/** Comment as the nft tool keeps it: user data of type 0 (NFTNL_UDATA_RULE_COMMENT), length, text with a zero byte. */
export function writeComment(comment: string): Uint8Array {
  const bytes = new TextEncoder().encode(`${comment}\0`);
  return concat([new Uint8Array([0, bytes.length]), bytes]);
}

function readComment(userData: Uint8Array | undefined): string {
  if (userData === undefined || userData.length < 2 || userData[0] !== 0) return "";
  return new TextDecoder().decode(userData.subarray(2, 2 + userData[1]!)).replace(/\0.*$/, "");
}
