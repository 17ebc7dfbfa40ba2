/**
 * Layout of the trace region (kind 4, docs/tables.md): the data plane's log level, the selections of those who watch, and
 * rings of records. Image 0 holds one block per ring: ring k < workers is written by queue worker k, the last one by the
 * data plane's main thread. Image 1 is not used.
 */

/** Sizes in the header. */
export const SIZE_RINGS = 0;
/** Records of a ring, a power of two. */
export const SIZE_RECORDS = 1;
/** Log level, 0…7. Any process sets it. */
export const SIZE_LEVEL = 2;
/** Union of the selections of all live watchers; 0 = nobody watches. */
export const SIZE_MASK = 3;

/** A block: HEAD_BYTES of head, the counters of the trace rules (f64), the records. A multiple of a page. */
export const HEAD_BYTES = 4096;
/** Counter slots of trace rules; half of them may be in use. */
export const TRACE_RULE_SLOTS = 1024;
export const RECORD_BYTES = 384;
export const RECORD_WORDS = RECORD_BYTES / 4;
/** Bytes of a packet that a record holds at most. */
export const PACKET_BYTES = 256;

/** Words of a block's head: records written so far (u32, wraps), then per selection the records that the rate forbade. */
export const HEAD_NEXT = 0;
export const HEAD_SUPPRESSED = 1;

/** What a watcher can select; nfqlb's mask bits. */
export const SELECTION = {
  /** Lines of the data plane's log. */
  log: 1,
  /** Every packet. */
  packet: 2,
  /** Fragments, first and later ones. */
  frag: 4,
  /** Changes of flow rules. */
  "flow-conf": 8,
  /** SCTP, also the one inside UDP. */
  sctp: 16,
  /** Packets for which a stream's table was asked. */
  target: 32,
  /** Packets that a trace rule takes. */
  flows: 64,
} as const;
export const SELECTIONS = 7;

/** Words of a record. The packet's hash key stands at KEY_AT, its first bytes at PACKET_AT, both counted in bytes. */
export const RECORD = {
  selection: 0,
  seconds: 1,
  nanoseconds: 2,
  etherType: 3,
  /** Why the packet got its fwmark; the log level in a record of the main thread. */
  outcome: 4,
  fwmark: 5,
  /** Index of the flow rule in evaluation order, or -1, in the rules of that generation. */
  rule: 6,
  ruleGeneration: 7,
  traceRule: 8,
  traceGeneration: 9,
  /** Index of the table that was asked, or -1: then hash and positions mean nothing. */
  stream: 10,
  hash: 11,
  lookupIndex: 12,
  activeIndex: 13,
  /** nfqlb's return code of the key builder; -1 = unusable. */
  rc: 14,
  /** Bytes of the packet as the kernel had it, and bytes that the record holds. */
  length: 15,
  copied: 16,
} as const;
export const KEY_AT = 88;
export const KEY_BYTES = 40;
export const PACKET_AT = 128;

/** Bytes of a block. */
export function blockBytes(records: number): number {
  return HEAD_BYTES + TRACE_RULE_SLOTS * 8 + records * RECORD_BYTES;
}
