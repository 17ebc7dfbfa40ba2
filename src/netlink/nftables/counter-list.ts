// The counters of a table with thousands of rules: read by hand, since decoding whole rules takes four times as long.
// The declared codecs (codecs.ts) are the oracle. Numbers of attributes: include/uapi/linux/netfilter/nf_tables.h (v6.18).

const NFTA_RULE_CHAIN = 2;
const NFTA_RULE_EXPRESSIONS = 4;
const NFTA_EXPR_NAME = 1;
const NFTA_EXPR_DATA = 2;
const NFTA_COUNTER_BYTES = 1;
const NFTA_COUNTER_PACKETS = 2;
/** nla_type without NLA_F_NESTED and NLA_F_NET_BYTEORDER. */
const TYPE_MASK = 0x3fff;
const HEADER_BYTES = 4;
const COUNTER = "counter";

/** What the counter of a rule has counted. */
export type RuleCounter = { readonly chain: string; readonly packets: number; readonly bytes: number };

/**
 * The first counter among the attributes of a NFT_MSG_NEWRULE, or null when the rule has none. The attributes are the bytes
 * [start, end). @throws {RangeError} they are cut short
 */
export function readRuleCounter(bytes: Buffer, start: number, end: number): RuleCounter | null {
  let chain = "";
  for (let at = start; at < end; at = next(bytes, at)) {
    if (typeAt(bytes, at) === NFTA_RULE_CHAIN) chain = textAt(bytes, at);
    if (typeAt(bytes, at) !== NFTA_RULE_EXPRESSIONS) continue;
    const expressionsEnd = endOf(bytes, at);
    for (let expression = at + HEADER_BYTES; expression < expressionsEnd; expression = next(bytes, expression)) {
      const counter = readCounter(bytes, expression, chain);
      if (counter !== null) return counter;
    }
  }
  return null;
}

/** @param at a list element: name and data of an expression */
function readCounter(bytes: Buffer, at: number, chain: string): RuleCounter | null {
  const end = endOf(bytes, at);
  let isCounter = false;
  for (let part = at + HEADER_BYTES; part < end; part = next(bytes, part)) {
    if (typeAt(bytes, part) === NFTA_EXPR_NAME) isCounter = textAt(bytes, part) === COUNTER;
    if (!isCounter || typeAt(bytes, part) !== NFTA_EXPR_DATA) continue;
    const found = { chain, packets: 0, bytes: 0 };
    const dataEnd = endOf(bytes, part);
    for (let field = part + HEADER_BYTES; field < dataEnd; field = next(bytes, field)) {
      const type = typeAt(bytes, field);
      if (type === NFTA_COUNTER_BYTES) found.bytes = be64At(bytes, field);
      if (type === NFTA_COUNTER_PACKETS) found.packets = be64At(bytes, field);
    }
    return found;
  }
  return null;
}

const typeAt = (bytes: Buffer, at: number) => bytes.readUInt16LE(at + 2) & TYPE_MASK;
const endOf = (bytes: Buffer, at: number) => at + bytes.readUInt16LE(at);
/** The next attribute; an impossible length ends the loop. */
const next = (bytes: Buffer, at: number) => at + Math.max(HEADER_BYTES, (bytes.readUInt16LE(at) + 3) & ~3);
/** Text of an attribute, without its zero byte. */
const textAt = (bytes: Buffer, at: number) => bytes.toString("latin1", at + HEADER_BYTES, endOf(bytes, at) - 1);
const be64At = (bytes: Buffer, at: number) =>
  bytes.readUInt32BE(at + HEADER_BYTES) * 2 ** 32 + bytes.readUInt32BE(at + HEADER_BYTES + 4);
