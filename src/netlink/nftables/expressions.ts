import {
  compareAttributes,
  counterAttributes,
  lookupAttributes,
  metaAttributes,
  payloadAttributes,
  queueAttributes,
  targetAttributes,
} from "./codecs.js";

/** One expression of a rule: its name and its encoded attributes. */
export type Expression = { readonly name: string; readonly data: Uint8Array };

const REGISTER_1 = 1;
const REGISTER_VERDICT = 0;
const NFT_CMP_EQ = 0;
const NFT_CMP_NEQ = 1;
const META_KEYS = { mark: 3, nfproto: 15, l4proto: 16 } as const;
const NFT_PAYLOAD_NETWORK_HEADER = 1;
const NFQUEUE_REVISION = 3;
const FLAG_BYPASS = 1;
const FLAG_FANOUT = 2;

/** Loads a property of the packet: `mark` (u32, host order), `nfproto` (2 IPv4, 10 IPv6) or `l4proto`. */
export function meta(key: keyof typeof META_KEYS): Expression {
  return { name: "meta", data: metaAttributes.encode({ register: REGISTER_1, key: META_KEYS[key] }, "meta") };
}

/** Goes on if what was loaded equals, or differs from, `value`: all of its bytes are compared, so give all. */
export function compare(operation: "==" | "!=", value: Uint8Array): Expression {
  const number = operation === "==" ? NFT_CMP_EQ : NFT_CMP_NEQ;
  return {
    name: "cmp",
    data: compareAttributes.encode({ register: REGISTER_1, operation: number, data: { value } }, "cmp"),
  };
}

/** Loads `length` bytes at `offset` of the IP header. */
export function networkHeader(offset: number, length: number): Expression {
  const fields = { register: REGISTER_1, base: NFT_PAYLOAD_NETWORK_HEADER, offset, length };
  return { name: "payload", data: payloadAttributes.encode(fields, "payload") };
}

/** Goes on if what was loaded is in the set. */
export function inSet(set: string): Expression {
  return { name: "lookup", data: lookupAttributes.encode({ set, source: REGISTER_1 }, "lookup") };
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

/** What a counter expression of a listed rule has counted. */
export function decodeCounter(data: Uint8Array): { readonly packets: number; readonly bytes: number } {
  const { packets, bytes } = counterAttributes.decode(data, "counter");
  return { packets: Number(packets ?? 0n), bytes: Number(bytes ?? 0n) };
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
