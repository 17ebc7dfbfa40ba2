// Forms of the nf_tables messages we use; include/uapi/linux/netfilter/nf_tables.h (v6.18). Numbers are mostly in network
// order; the data of a compare is what stands in the register: packet bytes, or a mark in host order.
import { attr, attributes, be16, be32, be32s, be64, list, nested, raw, struct, text, u8 } from "#bytes";

export const NFNL_SUBSYS_NFTABLES = 10;
export const NFNL_MSG_BATCH_BEGIN = 0x10;
export const NFNL_MSG_BATCH_END = 0x11;
export const NFT_MSG_NEWTABLE = 0;
export const NFT_MSG_GETTABLE = 1;
export const NFT_MSG_DELTABLE = 2;
export const NFT_MSG_NEWCHAIN = 3;
export const NFT_MSG_GETCHAIN = 4;
export const NFT_MSG_DELCHAIN = 5;
export const NFT_MSG_NEWRULE = 6;
export const NFT_MSG_GETRULE = 7;
export const NFT_MSG_DELRULE = 8;
export const NFT_MSG_NEWSET = 9;
export const NFT_MSG_GETSET = 10;
export const NFT_MSG_DELSET = 11;
export const NFT_MSG_NEWSETELEM = 12;
export const NFT_MSG_GETSETELEM = 13;
export const NFT_MSG_DELSETELEM = 14;
export const NFT_MSG_NEWGEN = 15;
export const NFT_MSG_GETGEN = 16;

/** `struct nfgenmsg`. */
export const nfgenmsg = struct("nfgenmsg", { family: u8, version: u8, resourceId: be16 });

/** `NFTA_TABLE_*`. */
export const tableAttributes = attributes("NFTA_TABLE", { name: attr(1, text), flags: attr(2, be32) });

const hookAttributes = attributes("NFTA_HOOK", { hook: attr(1, be32), priority: attr(2, be32s) });

/** `NFTA_CHAIN_*`. */
export const chainAttributes = attributes("NFTA_CHAIN", {
  table: attr(1, text),
  name: attr(3, text),
  handle: attr(2, be64),
  hook: nested(4, hookAttributes),
  policy: attr(5, be32),
  type: attr(7, text),
});

/** `NFTA_EXPR_*`; the data is encoded apart, by its expression. */
const expressionAttributes = attributes("NFTA_EXPR", { name: attr(1, text), data: nested(2, raw) });
const NFTA_LIST_ELEM = 1;

/** `NFTA_RULE_*`. */
export const ruleAttributes = attributes("NFTA_RULE", {
  table: attr(1, text),
  chain: attr(2, text),
  handle: attr(3, be64),
  expressions: nested(4, list(NFTA_LIST_ELEM, expressionAttributes)),
  userData: attr(7, raw),
});

/** `NFTA_SET_*`. */
export const setAttributes = attributes("NFTA_SET", {
  table: attr(1, text),
  name: attr(2, text),
  flags: attr(3, be32),
  keyType: attr(4, be32),
  keyLength: attr(5, be32),
  dataType: attr(6, be32),
  dataLength: attr(7, be32),
  id: attr(10, be32),
  userData: attr(13, raw),
});

const verdictAttributes = attributes("NFTA_VERDICT", { code: attr(1, be32), chain: attr(2, text) });
/** `NFTA_DATA_*`. */
const dataAttributes = attributes("NFTA_DATA", { value: attr(1, raw), verdict: nested(2, verdictAttributes) });

const elementAttributes = attributes("NFTA_SET_ELEM", {
  key: nested(1, dataAttributes),
  data: nested(2, dataAttributes),
  flags: attr(3, be32),
});

/** `NFTA_SET_ELEM_LIST_*`. */
export const elementListAttributes = attributes("NFTA_SET_ELEM_LIST", {
  table: attr(1, text),
  set: attr(2, text),
  elements: nested(3, list(NFTA_LIST_ELEM, elementAttributes)),
});

/** `NFTA_GEN_*`. */
export const generationAttributes = attributes("NFTA_GEN", { id: attr(1, be32) });

// Of expressions: `register` is where a value goes, `source` where it comes from. A statement has a source only.
export const metaAttributes = attributes("NFTA_META", {
  register: attr(1, be32),
  key: attr(2, be32),
  source: attr(3, be32),
});
export const compareAttributes = attributes("NFTA_CMP", {
  register: attr(1, be32),
  operation: attr(2, be32),
  data: nested(3, dataAttributes),
});
export const payloadAttributes = attributes("NFTA_PAYLOAD", {
  register: attr(1, be32),
  base: attr(2, be32),
  offset: attr(3, be32),
  length: attr(4, be32),
  source: attr(5, be32),
  checksumType: attr(6, be32),
  checksumOffset: attr(7, be32),
  checksumFlags: attr(8, be32),
});
export const rangeAttributes = attributes("NFTA_RANGE", {
  source: attr(1, be32),
  operation: attr(2, be32),
  from: nested(3, dataAttributes),
  to: nested(4, dataAttributes),
});
export const bitwiseAttributes = attributes("NFTA_BITWISE", {
  source: attr(1, be32),
  register: attr(2, be32),
  length: attr(3, be32),
  mask: nested(4, dataAttributes),
  xor: nested(5, dataAttributes),
  operation: attr(6, be32),
});
export const immediateAttributes = attributes("NFTA_IMMEDIATE", {
  register: attr(1, be32),
  data: nested(2, dataAttributes),
});
export const conntrackAttributes = attributes("NFTA_CT", {
  register: attr(1, be32),
  key: attr(2, be32),
});
export const lookupAttributes = attributes("NFTA_LOOKUP", {
  set: attr(1, text),
  source: attr(2, be32),
  destination: attr(3, be32),
  setId: attr(4, be32),
  flags: attr(5, be32),
});
export const counterAttributes = attributes("NFTA_COUNTER", { bytes: attr(1, be64), packets: attr(2, be64) });
export const queueAttributes = attributes("NFTA_QUEUE", {
  first: attr(1, be16),
  total: attr(2, be16),
  flags: attr(3, be16),
});
export const targetAttributes = attributes("NFTA_TARGET", {
  name: attr(1, text),
  revision: attr(2, be32),
  info: attr(3, raw),
});

/** The data of an expression by its name, of those we use. */
export const expressionCodecs = {
  meta: metaAttributes,
  cmp: compareAttributes,
  payload: payloadAttributes,
  range: rangeAttributes,
  bitwise: bitwiseAttributes,
  immediate: immediateAttributes,
  ct: conntrackAttributes,
  lookup: lookupAttributes,
  counter: counterAttributes,
  queue: queueAttributes,
  target: targetAttributes,
} as const;
