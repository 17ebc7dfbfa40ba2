import { concat } from "#bytes";
import type { Request } from "../connection.js";
import { NLM_F_APPEND, NLM_F_CREATE } from "../message.js";
import { type ChainHook, hookFields, NF_ACCEPT } from "./chain.js";
import {
  chainAttributes,
  elementListAttributes,
  NFNL_SUBSYS_NFTABLES,
  NFT_MSG_DELCHAIN,
  NFT_MSG_DELRULE,
  NFT_MSG_DELSET,
  NFT_MSG_DELSETELEM,
  NFT_MSG_DELTABLE,
  NFT_MSG_NEWCHAIN,
  NFT_MSG_NEWRULE,
  NFT_MSG_NEWSET,
  NFT_MSG_NEWSETELEM,
  NFT_MSG_NEWTABLE,
  nfgenmsg,
  ruleAttributes,
  setAttributes,
  tableAttributes,
} from "./codecs.js";
import type { Expression } from "./expressions.js";
import { writeComment } from "./rule.js";
import { type Element, elementFields, type SetType, setFields } from "./set.js";

export const NFPROTO_INET = 1;

/** A change, as data; all tables are of family inet. */
export type NftCommand =
  | { readonly kind: "addTable" | "deleteTable"; readonly table: string }
  | { readonly kind: "addChain"; readonly table: string; readonly chain: string; readonly hook?: ChainHook | null }
  | {
      /** `acceptByDefault`: sets the policy of a base chain. */
      readonly kind: "deleteChain" | "flushChain" | "acceptByDefault";
      readonly table: string;
      readonly chain: string;
    }
  | {
      /** Takes effect behind all other commands of a transaction: until then those call the chain by its old name. */
      readonly kind: "renameChain";
      readonly table: string;
      readonly chain: string;
      /** The chain's, as listed: the kernel knows it by that. */
      readonly handle: bigint;
      readonly newName: string;
    }
  | {
      readonly kind: "addRule";
      readonly table: string;
      readonly chain: string;
      readonly expressions: readonly Expression[];
      readonly comment: string;
    }
  | { readonly kind: "addSet"; readonly table: string; readonly set: string; readonly type: SetType }
  | { readonly kind: "deleteSet"; readonly table: string; readonly set: string }
  | {
      readonly kind: "addElements" | "deleteElements";
      readonly table: string;
      readonly set: string;
      readonly elements: readonly Element[];
    };

/** The requests of a command. Most are one; elements are cut into requests that fit a netlink attribute. */
export function toRequests(command: NftCommand): readonly Request[] {
  if (command.kind !== "addElements" && command.kind !== "deleteElements") return [toRequest(command)];
  const { elements } = command;
  const parts: Request[] = [];
  for (let at = 0; at < elements.length; at += ELEMENTS_PER_REQUEST) {
    parts.push(toRequest({ ...command, elements: elements.slice(at, at + ELEMENTS_PER_REQUEST) }));
  }
  return parts;
}

/** A nested attribute has a length of 16 bits; a bound of an IPv6 interval takes 36 bytes, a mark's jump some 60. */
const ELEMENTS_PER_REQUEST = 512;

function toRequest(command: NftCommand): Request {
  const { table } = command;
  const request = (message: number, flags: number, attributes: Uint8Array, what = ""): Request => ({
    type: (NFNL_SUBSYS_NFTABLES << 8) | message,
    flags,
    body: concat([nfgenmsg.encode({ family: NFPROTO_INET, version: 0, resourceId: 0 }, ""), attributes]),
    operation: `nftables ${command.kind} ${table}${what === "" ? "" : ` ${what}`}`,
  });
  switch (command.kind) {
    case "addTable":
      return request(NFT_MSG_NEWTABLE, NLM_F_CREATE, tableAttributes.encode({ name: table, flags: 0 }, ""));
    case "deleteTable":
      return request(NFT_MSG_DELTABLE, 0, tableAttributes.encode({ name: table }, ""));
    case "addChain": {
      const { chain, hook } = command;
      const fields = { table, name: chain, ...(hook == null ? {} : hookFields(hook)) };
      return request(NFT_MSG_NEWCHAIN, NLM_F_CREATE, chainAttributes.encode(fields, ""), chain);
    }
    case "acceptByDefault": {
      const fields = { table, name: command.chain, policy: NF_ACCEPT };
      return request(NFT_MSG_NEWCHAIN, 0, chainAttributes.encode(fields, ""), command.chain);
    }
    case "renameChain": {
      const fields = { table, name: command.newName, handle: command.handle };
      return request(NFT_MSG_NEWCHAIN, 0, chainAttributes.encode(fields, ""), command.chain);
    }
    case "deleteChain": {
      const fields = { table, name: command.chain };
      return request(NFT_MSG_DELCHAIN, 0, chainAttributes.encode(fields, ""), command.chain);
    }
    case "flushChain": {
      const fields = { table, chain: command.chain };
      return request(NFT_MSG_DELRULE, 0, ruleAttributes.encode(fields, ""), command.chain);
    }
    case "addRule": {
      const { chain, comment } = command;
      const expressions = command.expressions.map(({ name, data }) => (data.length === 0 ? { name } : { name, data }));
      const fields = { table, chain, expressions, ...(comment === "" ? {} : { userData: writeComment(comment) }) };
      return request(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, ruleAttributes.encode(fields, ""), chain);
    }
    case "addSet": {
      const fields = { table, name: command.set, id: 1, ...setFields(command.type) };
      return request(NFT_MSG_NEWSET, NLM_F_CREATE, setAttributes.encode(fields, ""), command.set);
    }
    case "deleteSet":
      return request(NFT_MSG_DELSET, 0, setAttributes.encode({ table, name: command.set }, ""), command.set);
    case "addElements":
    case "deleteElements": {
      const { set, elements, kind } = command;
      const isAdding = kind === "addElements";
      const attributes = elementListAttributes.encode({ table, set, elements: elementFields(elements) }, "");
      const message = isAdding ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM;
      return request(message, isAdding ? NLM_F_CREATE : 0, attributes, set);
    }
  }
}
