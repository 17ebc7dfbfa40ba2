import { readFileSync } from "node:fs";
import { bytesOf } from "../../fakes/fake-kernel.js";

/** Bytes of one message's body, without nlmsghdr, and what they say. */
export type Vector = {
  /** The command, and which of its messages. */
  readonly name: string;
  /** The tool and its version. */
  readonly made: string;
  readonly kernel: string;
  readonly direction: "request" | "from-kernel";
  /** Message type, for people. */
  readonly type: number;
  /** Only of bytes made by hand. */
  readonly synthetic?: true;
  readonly hex: string;
  /** The same attributes as we send, but in another order or without NLA_F_NESTED. */
  readonly order?: "other";
  /** Bytes are `hex:…`, a bigint is digits and `n`. */
  readonly value: unknown;
};

/** The vectors of a kind of message: `rule`, `nft-set` … */
export function vectorsOf(kind: string): readonly Vector[] {
  return JSON.parse(readFileSync(new URL(`${kind}.json`, import.meta.url), "utf8")) as readonly Vector[];
}

/** The bytes of the vector of that name. */
export function bytesNamed(kind: string, name: string): Uint8Array {
  const found = vectorsOf(kind).find((vector) => vector.name === name);
  if (found === undefined) throw new Error(`no vector ${kind}: ${name}`);
  return bytesOf(found.hex);
}

/** A value as the files have it. */
export function toPlain(value: unknown): unknown {
  if (value instanceof Uint8Array) return `hex:${Buffer.from(value).toString("hex")}`;
  if (typeof value === "bigint") return `${value}n`;
  if (Array.isArray(value)) return value.map(toPlain);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, toPlain(one)]));
}

/** What the files have, as a value. */
export function fromPlain(value: unknown): unknown {
  if (typeof value === "string" && value.startsWith("hex:")) return bytesOf(value.slice(4));
  if (typeof value === "string" && /^[0-9]+n$/.test(value)) return BigInt(value.slice(0, -1));
  if (Array.isArray(value)) return value.map(fromPlain);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, fromPlain(one)]));
}
