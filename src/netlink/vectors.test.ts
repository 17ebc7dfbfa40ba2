// Bytes made by ip, nft, libnetfilter_queue and the kernel (scripts/netlink-vectors.mjs), and the laws of every codec.
import { readdirSync } from "node:fs";
import { expect, test } from "vitest";
import { type Codec, message } from "#bytes";
import { bytesOf } from "../../test/fakes/fake-kernel.js";
import { fromPlain, toPlain, vectorsOf } from "../../test/vectors/netlink/vectors.js";
import {
  chainAttributes,
  elementListAttributes,
  expressionCodecs,
  generationAttributes,
  nfgenmsg,
  ruleAttributes,
  setAttributes,
  tableAttributes,
} from "./nftables/codecs.js";
import { configMessage } from "./queue/codecs.js";
import { addressMessage, decodeAddress } from "./route/address.js";
import { decodeLink, linkMessage } from "./route/link.js";
import { decodeNeighbor, neighborMessage } from "./route/neighbor.js";
import { decodeRoute, routeMessage } from "./route/route.js";
import { decodeRule, ruleMessage } from "./route/rule.js";

// biome-ignore lint/suspicious/noExplicitAny: one table for codecs of all kinds of values
type AnyCodec = Codec<any>;
type Kind = { readonly codec: AnyCodec; readonly read?: (bytes: Uint8Array) => unknown; readonly attributesAt: number };

/** The data of a rule's expressions decoded too, by the expression's name. */
const nftRule: AnyCodec = {
  encode: (value, path) => nftRuleMessage.encode(mapExpressions(value, "encode", path), path),
  decode: (bytes, path) => mapExpressions(nftRuleMessage.decode(bytes, path), "decode", path),
};
const nftRuleMessage: AnyCodec = message(nfgenmsg, ruleAttributes);

// biome-ignore lint/suspicious/noExplicitAny: an expression's value depends on its name
function mapExpressions(value: any, direction: "encode" | "decode", path: string): unknown {
  const { expressions, ...others } = value.attributes;
  if (expressions === undefined) return value;
  const mapped = expressions.map((expression: { name?: string; data?: unknown }) => {
    const codec: AnyCodec | undefined = (expressionCodecs as Readonly<Record<string, AnyCodec>>)[expression.name ?? ""];
    if (codec === undefined || expression.data === undefined) return expression;
    const { data } = expression;
    return {
      ...expression,
      data: direction === "encode" ? codec.encode(data, path) : codec.decode(data as Uint8Array, path),
    };
  });
  return { ...value, attributes: { ...others, expressions: mapped } };
}

const kinds: Readonly<Record<string, Kind>> = {
  rule: { codec: ruleMessage, read: decodeRule, attributesAt: 12 },
  route: { codec: routeMessage, read: decodeRoute, attributesAt: 12 },
  link: { codec: linkMessage, read: decodeLink, attributesAt: 16 },
  address: { codec: addressMessage, read: decodeAddress, attributesAt: 8 },
  neighbor: { codec: neighborMessage, read: decodeNeighbor, attributesAt: 12 },
  "nft-table": { codec: message(nfgenmsg, tableAttributes), attributesAt: 4 },
  "nft-chain": { codec: message(nfgenmsg, chainAttributes), attributesAt: 4 },
  "nft-set": { codec: message(nfgenmsg, setAttributes), attributesAt: 4 },
  "nft-generation": { codec: message(nfgenmsg, generationAttributes), attributesAt: 4 },
  "nft-setelem": { codec: message(nfgenmsg, elementListAttributes), attributesAt: 4 },
  "nft-rule": { codec: nftRule, attributesAt: 4 },
  "queue-config": { codec: configMessage, attributesAt: 4 },
};

const hexOf = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
const folder = new URL("../../test/vectors/netlink/", import.meta.url);
const files = readdirSync(folder)
  .filter((file) => file.endsWith(".json"))
  .map((file) => file.replace(/\.json$/, ""))
  .map((kind) => [kind, vectorsOf(kind)] as const);

/** An attribute that no kernel has, its last byte without padding. */
const UNKNOWN = { type: 0x3abc, payload: bytesOf("0102030405") };
const UNKNOWN_BYTES = bytesOf("0900bc3a0102030405");

/** Whether `bytes` decode, or are refused as they should be. */
function expectDecodesOrRefuses(kind: Kind, bytes: Uint8Array): void {
  for (const decode of [() => kind.codec.decode(bytes, "x"), () => kind.read?.(bytes)]) {
    try {
      decode();
    } catch (error) {
      if ((error as { code?: unknown }).code === "ERR_DECODE") continue;
      throw new Error(`${hexOf(bytes)}: not ERR_DECODE`, { cause: error });
    }
  }
}

test("every kind of message has bytes of a tool and of a kernel, and none was made by hand", () => {
  expect(files.map(([kind]) => kind).toSorted()).toEqual(Object.keys(kinds).toSorted());
  for (const [kind, vectors] of files) {
    const directions = new Set(vectors.map(({ direction }) => direction));
    // The kernel never tells a queue's configuration over netlink.
    expect([...directions].toSorted(), kind).toEqual(
      kind === "queue-config" ? ["request"] : ["from-kernel", "request"],
    );
    expect(vectors.filter(({ made, kernel }) => made === "" || kernel === "")).toEqual([]);
    expect(vectors.filter(({ synthetic }) => synthetic === true)).toEqual([]);
  }
});

for (const [name, vectors] of files) {
  const kind = kinds[name]!;
  const { codec, attributesAt } = kind;

  test.for(vectors)(`${name}: $made: $name`, ({ hex, value: plain, order }) => {
    const bytes = bytesOf(hex);
    const value = fromPlain(plain);
    expect(toPlain(codec.decode(bytes, name))).toEqual(plain);
    const encoded = codec.encode(value, name);
    if (order === undefined) expect(hexOf(encoded)).toBe(hex);
    else expect(toPlain(codec.decode(encoded, name))).toEqual(plain);
    expect(encoded.length).toBe((bytes.length + 3) & ~3);
    // deterministic, and leaves its input alone
    expect(hexOf(codec.encode(value, name))).toBe(hexOf(encoded));
    expect(toPlain(value)).toEqual(plain);
    expect(hexOf(bytes)).toBe(hex);
  });

  test(`${name}: every proper prefix, and every single changed byte, decodes or is ERR_DECODE`, () => {
    for (const { hex } of vectors) {
      const bytes = bytesOf(hex);
      for (let length = 0; length < bytes.length; length++) expectDecodesOrRefuses(kind, bytes.subarray(0, length));
      for (const [at, byte] of bytes.entries()) {
        for (const other of [0, 0x7f, 0xff, byte ^ 1, byte ^ 0x80]) expectDecodesOrRefuses(kind, bytes.with(at, other));
      }
    }
  });

  test(`${name}: a message that ends within its header is ERR_DECODE`, () => {
    const bytes = bytesOf(vectors[0]!.hex);
    for (let length = 0; length < attributesAt; length++) {
      const decode = () => codec.decode(bytes.subarray(0, length), name);
      expect(decode).toThrowError(expect.objectContaining({ code: "ERR_DECODE" }));
    }
  });

  test(`${name}: an unknown attribute is kept, sent back, and not fatal`, () => {
    for (const { hex } of vectors) {
      const bytes = bytesOf(hex);
      const more = new Uint8Array(((bytes.length + 3) & ~3) + UNKNOWN_BYTES.length);
      more.set(bytes);
      more.set(UNKNOWN_BYTES, (bytes.length + 3) & ~3);
      const value = codec.decode(more, name);
      expect(value.attributes.unknown.at(-1)).toEqual(UNKNOWN);
      expect(hexOf(codec.encode(value, name))).toContain(hexOf(UNKNOWN_BYTES));
    }
  });
}
