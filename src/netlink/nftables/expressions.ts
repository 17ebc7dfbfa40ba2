import {
  bitwiseAttributes,
  compareAttributes,
  conntrackAttributes,
  counterAttributes,
  immediateAttributes,
  lookupAttributes,
  metaAttributes,
  payloadAttributes,
  queueAttributes,
  rangeAttributes,
  targetAttributes,
} from "./codecs.js";

/** One expression of a rule: its name and its encoded attributes. What is loaded stands in the one register we use. */
export type Expression = { readonly name: string; readonly data: Uint8Array };

const REGISTER_1 = 1;
const REGISTER_VERDICT = 0;
const COMPARE_OPERATIONS = { "==": 0, "!=": 1, "<=": 3, ">=": 5 } as const;
const NFT_RANGE_NEQ = 1;
const META_KEYS = { mark: 3, iifname: 6, nfproto: 15, l4proto: 16 } as const;
const NFT_LOOKUP_F_INV = 1;
const NFT_CT_STATE = 0;
const NF_ACCEPT = 1;
const PAYLOAD_BASES = { network: 1, transport: 2 } as const;
const NFQUEUE_REVISION = 3;
const FLAG_BYPASS = 1;
const FLAG_FANOUT = 2;

/** Loads a property of the packet: `mark` (u32, host order), `iifname` (16 bytes), `nfproto` (2 IPv4, 10 IPv6) or `l4proto`. */
export function meta(key: keyof typeof META_KEYS): Expression {
  return { name: "meta", data: metaAttributes.encode({ register: REGISTER_1, key: META_KEYS[key] }, "meta") };
}

/** Sets the packet's mark to what was loaded. */
export function setMark(): Expression {
  return { name: "meta", data: metaAttributes.encode({ key: META_KEYS.mark, source: REGISTER_1 }, "meta") };
}

/** Goes on if what was loaded compares so with `value`: only as many bytes as `value` has are compared, so give all. */
export function compare(operation: keyof typeof COMPARE_OPERATIONS, value: Uint8Array): Expression {
  const fields = { register: REGISTER_1, operation: COMPARE_OPERATIONS[operation], data: { value } };
  return { name: "cmp", data: compareAttributes.encode(fields, "cmp") };
}

/** Goes on unless what was loaded lies in `from` … `to`. */
export function outsideRange(from: Uint8Array, to: Uint8Array): Expression {
  const fields = { source: REGISTER_1, operation: NFT_RANGE_NEQ, from: { value: from }, to: { value: to } };
  return { name: "range", data: rangeAttributes.encode(fields, "range") };
}

/** Takes the bits of `mask` of what was loaded. */
export function bitAnd(mask: Uint8Array): Expression {
  const fields = {
    source: REGISTER_1,
    register: REGISTER_1,
    length: mask.length,
    mask: { value: mask },
    xor: { value: new Uint8Array(mask.length) },
    operation: 0, // NFT_BITWISE_BOOL
  };
  return { name: "bitwise", data: bitwiseAttributes.encode(fields, "bitwise") };
}

/** Loads bytes that stand in the rule. */
export function immediate(value: Uint8Array): Expression {
  const fields = { register: REGISTER_1, data: { value } };
  return { name: "immediate", data: immediateAttributes.encode(fields, "immediate") };
}

/** Ends this chain: the packet goes on to the next hook. */
export function accept(): Expression {
  const fields = { register: REGISTER_VERDICT, data: { verdict: { code: NF_ACCEPT } } };
  return { name: "immediate", data: immediateAttributes.encode(fields, "immediate") };
}

/** Loads the bits of the connection tracking state (u32, host order); it makes the kernel track, and with that reassemble. */
export function conntrackState(): Expression {
  return { name: "ct", data: conntrackAttributes.encode({ register: REGISTER_1, key: NFT_CT_STATE }, "ct") };
}

/** Connection tracking leaves the packet alone. */
export function notrack(): Expression {
  return { name: "notrack", data: new Uint8Array(0) };
}

/** Loads `length` bytes at `offset` of the IP header. */
export function networkHeader(offset: number, length: number): Expression {
  return loadPayload("network", offset, length);
}

/**
 * Loads `length` bytes at `offset` of what follows the IP headers. The rule ends here for a packet that is too short, and
 * for all fragments but the first.
 */
export function transportHeader(offset: number, length: number): Expression {
  return loadPayload("transport", offset, length);
}

function loadPayload(base: keyof typeof PAYLOAD_BASES, offset: number, length: number): Expression {
  const fields = { register: REGISTER_1, base: PAYLOAD_BASES[base], offset, length };
  return { name: "payload", data: payloadAttributes.encode(fields, "payload") };
}

/**
 * How a write keeps checksums right. `internet`: the one at `offset` from the same base, corrected by the difference.
 * `sctp`: CRC32c of the whole packet, renewed. `isTransport`: the kernel corrects the checksum of TCP, UDP (unless it is
 * zero) or ICMPv6 wherever it stands; to be asked for when what is written is in it, be it by the pseudo-header.
 */
export type Checksum = {
  readonly type: "none" | "internet" | "sctp";
  readonly offset?: number;
  readonly isTransport?: boolean;
};
const CHECKSUM_TYPES = { none: 0, internet: 1, sctp: 2 } as const;
const NFT_PAYLOAD_L4CSUM_PSEUDOHDR = 1;

/** Writes what was loaded over `length` bytes at `offset`. The rule ends here for a packet that is too short. */
export function writePayload(
  base: keyof typeof PAYLOAD_BASES,
  offset: number,
  length: number,
  { type, offset: checksumOffset = 0, isTransport = false }: Checksum,
): Expression {
  const fields = {
    base: PAYLOAD_BASES[base],
    offset,
    length,
    source: REGISTER_1,
    checksumType: CHECKSUM_TYPES[type],
    checksumOffset,
    checksumFlags: isTransport ? NFT_PAYLOAD_L4CSUM_PSEUDOHDR : 0,
  };
  return { name: "payload", data: payloadAttributes.encode(fields, "payload") };
}

/** Goes on if what was loaded is in the set. */
export function inSet(set: string): Expression {
  return { name: "lookup", data: lookupAttributes.encode({ set, source: REGISTER_1 }, "lookup") };
}

/** Goes on if what was loaded is not in the set. */
export function notInSet(set: string): Expression {
  const fields = { set, source: REGISTER_1, flags: NFT_LOOKUP_F_INV };
  return { name: "lookup", data: lookupAttributes.encode(fields, "lookup") };
}

/** Does what the verdict map says of what was loaded; goes on if it says nothing. */
export function verdictOf(map: string): Expression {
  const fields = { set: map, source: REGISTER_1, destination: REGISTER_VERDICT };
  return { name: "lookup", data: lookupAttributes.encode(fields, "lookup") };
}

/** Counts packets and bytes, from 0. */
export function counter(): Expression {
  return { name: "counter", data: counterAttributes.encode({ bytes: 0n, packets: 0n }, "counter") };
}

/** Queues first … last. */
export type QueueRange = {
  readonly first: number;
  readonly last: number;
  /** Which queue a packet takes follows from the processor it is on, not from a hash of its addresses. */
  readonly isFanout: boolean;
  /** Without a listener packets pass, without a mark, instead of being dropped. */
  readonly isBypass?: boolean;
};

/** `NFT_QUEUE_FLAG_*` and `NFQ_FLAG_*` are the same numbers (nf_tables.h, xt_NFQUEUE.h, v6.18). */
function queueFlags({ isFanout, isBypass = false }: QueueRange): number {
  return (isFanout ? FLAG_FANOUT : 0) | (isBypass ? FLAG_BYPASS : 0);
}

/** The `queue` expression (CONFIG_NFT_QUEUE). */
export function nativeQueue(range: QueueRange): Expression {
  const { first, last } = range;
  const fields = { first, total: last - first + 1, flags: queueFlags(range) };
  return { name: "queue", data: queueAttributes.encode(fields, "queue") };
}

/**
 * The xt NFQUEUE target through nf_tables' compat expression (CONFIG_NFT_COMPAT, CONFIG_NETFILTER_XT_TARGET_NFQUEUE).
 * `struct xt_NFQ_info_v3`, include/uapi/linux/netfilter/xt_NFQUEUE.h (v6.18): three u16 in host order, padded to 8.
 */
export function compatQueue(range: QueueRange): Expression {
  const { first, last } = range;
  const info = new Uint8Array(new Uint16Array([first, last - first + 1, queueFlags(range), 0]).buffer);
  return {
    name: "target",
    data: targetAttributes.encode({ name: "NFQUEUE", revision: NFQUEUE_REVISION, info }, "target"),
  };
}
