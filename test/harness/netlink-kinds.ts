// What the netlink vectors are of: the codecs of every kind of message that has some.
import { type Codec, message } from "#bytes";
import {
  chainAttributes,
  elementListAttributes,
  expressionCodecs,
  generationAttributes,
  nfgenmsg,
  ruleAttributes,
  setAttributes,
  tableAttributes,
} from "../../src/netlink/nftables/codecs.js";
import { configMessage } from "../../src/netlink/queue/codecs.js";
import { addressMessage, decodeAddress } from "../../src/netlink/route/address.js";
import { decodeLink, linkMessage } from "../../src/netlink/route/link.js";
import { decodeNeighbor, neighborMessage } from "../../src/netlink/route/neighbor.js";
import { decodeRoute, routeMessage } from "../../src/netlink/route/route.js";
import { decodeRule, ruleMessage } from "../../src/netlink/route/rule.js";

// biome-ignore lint/suspicious/noExplicitAny: one table for codecs of all kinds of values
type AnyCodec = Codec<any>;
export type Kind = {
  readonly codec: AnyCodec;
  readonly read?: (bytes: Uint8Array) => unknown;
  readonly attributesAt: number;
};

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

/** By the name of their vectors. */
export const kinds: Readonly<Record<string, Kind>> = {
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
