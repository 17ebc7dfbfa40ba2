/**
 * Layout of a compiled classifier: one Int32Array of words, position independent. References between nodes count
 * words from its start, so it can lie anywhere in shared memory. See docs/tables.md and decision 0051.
 *
 * The header is followed by one record per rule in evaluation order, so that of two records the one that lies first is
 * asked first; the rest is nodes in any order. Nothing begins at word 0 but the header.
 */
export const HEADER_RULES = 0; // number of rules
export const HEADER_HAS_HELPERS = 1; // 1: there are helper rules
export const HEADER_ROOTS = 2; // of the rules with a table: of IPv4 packets by protocol class, then of IPv6 packets
export const HEADER_HELPER_ROOTS = 12; // of the helper rules
export const HEADER_ASKS_SOURCES = 22; // 1: some rule asks for sources; 0: packets to IPv4 addresses are IPv4 packets whatever theirs is
export const FIRST_RECORD = 32;

/**
 * A reference to a node: its type in bits 0…2, which 32-bit word of the packet's key it looks at in bits 3…6, its word
 * index above. What the walk needs first stands in the reference, so that a step costs one dependent load.
 */
export const TYPE_MASK = 7;
export const KEY_SHIFT = 3;
export const KEY_MASK = 15;
export const INDEX_SHIFT = 7;
/** Words a program may have so that every reference fits, 128 MiB. */
export const MAX_PROGRAM_WORDS = 1 << 25;

/** Node types; in brackets the node's words. A node below NODE_RULE looks at the key and leads to one of its children. */
export const NODE_TABLE = 0; // [children], on a cache line of its own; see TABLE_*
export const NODE_TRIE = 1; // see TRIE_*
export const NODE_PATH = 2; // see PATH_*
export const NODE_PORTS = 3; // see PORTS_*
export const NODE_HASH = 4; // see HASH_*
export const NODE_RULE = 5; // a record; see RULE_*
export const NODE_LIST = 6; // see LIST_*
/** Rarer ones, told apart by MORE_* where the others have the key word. */
const NODE_MORE = 7;
const MORE_NONE = 0; // no rule; the only one without words
export const MORE_CHAIN = 1; // see CHAIN_*
export const MORE_CLASS = 2; // [node by protocol class]
export const MORE_FIELD = 3; // see FIELD_*

/** No rule. */
export const NONE = (MORE_NONE << KEY_SHIFT) | NODE_MORE;

/**
 * What of a rule the way to it has not told, so that it has to be tested: bits of a reference to a rule (from OPEN_SHIFT on) and of
 * a list's control (from bit 0 on). Bits 0…3 are the dimensions of rule-code.ts. The protocol is tested always.
 */
const OPEN_BITS = 5;
export const OPEN_DESTINATION = 1;
export const OPEN_SOURCE = 2;
export const OPEN_DPORT = 4;
export const OPEN_SPORT = 8;
export const OPEN_MATCHES = 16;
export const OPEN_MASK = (1 << OPEN_BITS) - 1;
export const OPEN_SHIFT = 7;
/** A reference to a rule: what is open from OPEN_SHIFT on, above it the record's word index in units of 16 words. */
export const RULE_INDEX_SHIFT = OPEN_SHIFT + OPEN_BITS;
export const RECORD_SHIFT = 4;
export const RECORD_WORDS = 1 << RECORD_SHIFT;

/** Rules that are asked in evaluation order: the control, then n × LIST_ENTRY. */
export const LIST_COUNT_SHIFT = 5; // control: OPEN_* in the lower bits, n above
export const LIST_ENTRY_WORDS = 2; // word index of the record, and its RECORD_DPORTS: most that do not fit need no look at the record
export const LIST_FIRST = 1;

/** One node, and then another; the better answer of both counts. */
export const CHAIN_NODE = 0;
export const CHAIN_NEXT = 1;
export const CHAIN_LEAST = 2; // word index of the first record that NEXT may lead to

/**
 * A table goes on at the child that some bits of the key word number. All it takes to find that child stands in the
 * reference: shift in bits 7…11, number of bits in bits 12…15, above it the word index in units of 16 words. Beyond
 * that reach a trie node that compares nothing does the same.
 */
export const TABLE_SHIFT = 7;
export const TABLE_WIDTH_SHIFT = 12;
export const TABLE_WIDTH_MASK = 15;
export const TABLE_INDEX_SHIFT = 16;
export const TABLE_UNIT_SHIFT = 4;

/**
 * Looks at one big-endian word of the packet's key: where (word & mask) = value goes on at the child that the bits
 * above a shift number, else at TRIE_ELSE. Word 0, the control: the shift in bits 0…4, above it the mask of the child's number.
 */
export const TRIE_MASK = 1;
export const TRIE_VALUE = 2;
export const TRIE_ELSE = 3;
export const TRIE_CHILDREN = 4;
export const SHIFT_MASK = 31;
export const CHILD_SHIFT = 5;

/**
 * Counts for how many bits one big-endian word of the key agrees with PATH_VALUE, up to an end, and goes on at the child
 * of that number. Word 0, the control: the first bit in bits 0…4, the number of further bits above.
 */
export const PATH_VALUE = 1;
export const PATH_CHILDREN = 2;
export const FIRST_MASK = 31;
export const COUNT_SHIFT = 5;

/**
 * Ports in blocks of 2^shift from `base` on. Child 0 is for ports below, the last for those above. Word 0, the control: the block's
 * shift in bits 0…4, 16 in bit 4 more where it is the source port (upper half of the key word), number of blocks above.
 */
export const PORTS_BASE = 1;
export const PORTS_CHILDREN = 2;
export const BLOCK_MASK = 15;
export const SOURCE_PORT_BIT = 16;

/**
 * A hash table of whole key words, open addressing: the word times a factor, shifted right, is the first of the slots to
 * look at, PROBES at most. FIELD nodes have the same table of the values of a field.
 */
export const HASH_FACTOR = 0;
export const HASH_SHIFT = 1; // 32 - log2(slots)
export const HASH_PROBES = 2;
export const HASH_ELSE = 3; // node for other words
export const HASH_SLOTS = 4; // slots + probes × (word, node; 0 = empty: it and those behind it do not have the word)

/** Looks at a field of the L4 header, as byte matches do. */
export const FIELD_TEST = 0; // 5 words: protocol, offset, size, mask, minimal header
export const FIELD_IGNORED = 5; // node for packets of another protocol
export const FIELD_HASH = 6; // HASH_*; its ELSE also where the packet is too short

/** A rule: all that most packets need of it is one cache line. */
export const RECORD_CONTROL = 0; // see CONTROL_*
export const RECORD_STREAM = 1; // index of the table's name, -1 in a helper rule
export const RECORD_SLOT = 2; // counter slot
export const RECORD_DPORTS = 3; // first << 16 | last of all ranges
export const RECORD_SPORTS = 4;
export const RECORD_DESTINATION_MASK = 5; // (last word of the address & mask) = value holds for every IPv4 address that fits
export const RECORD_DESTINATION_VALUE = 6;
export const RECORD_SOURCE_MASK = 7;
export const RECORD_SOURCE_VALUE = 8;
export const RECORD_LONG = 9; // word index of LONG_*, 0 = the other words tell all that a test needs
export const RECORD_RANGES = 10; // destination ports, up to 6 ranges: first << 16 | last, ascending
export const MAX_RANGES = RECORD_WORDS - RECORD_RANGES;
/** Protocol classes that fit are bits 0…4 of the control. */
export const CONTROL_IS_HELPER = 1 << 5; // the rule has no table
export const CONTROL_ASKS_SHIFT = 6; // OPEN_*: what the rule asks for beyond its destination ports' first and last
export const CONTROL_RANGES_SHIFT = 11; // number of RANGES, 0: they are in LONG_DPORTS
export const CONTROL_RANGES_MASK = 7;
export const CONTROL_ENCAP_SHIFT = 16; // UDP port of encapsulated SCTP or 0

/** What only some rules have: word indices of lists (match.ts), written where a way to the rule leaves them open; 0 = none. */
export const LONG_DESTINATION4 = 0;
export const LONG_DESTINATION6 = 1;
export const LONG_SOURCE4 = 2;
export const LONG_SOURCE6 = 3;
export const LONG_DPORTS = 4;
export const LONG_SPORTS = 5;
export const LONG_MATCHES = 6;
export const LONG_WORDS = 7;

/** All ports, as a record has them. */
export const ANY_PORTS = 0xffff;
/** No port. */
export const NO_PORTS = 0xffff << 16;

/** The reference to the node of that type at a word index. */
export function reference(type: number, index: number, keyWord = 0): number {
  return (index << INDEX_SHIFT) | (keyWord << KEY_SHIFT) | type;
}

/** The reference to a table of 2^width children at a word index, a multiple of 16, or null where that is out of reach. */
export function tableReference(index: number, keyWord: number, shift: number, width: number): number | null {
  const unit = index >> TABLE_UNIT_SHIFT;
  if (unit > 0xffff) return null;
  return (
    (unit << TABLE_INDEX_SHIFT) |
    (width << TABLE_WIDTH_SHIFT) |
    (shift << TABLE_SHIFT) |
    (keyWord << KEY_SHIFT) |
    NODE_TABLE
  );
}

/** The reference to one of the rarer nodes. */
export function moreReference(kind: number, index: number): number {
  return reference(NODE_MORE, index, kind);
}

/** Word index of a rule's record. */
export function recordAt(rule: number): number {
  return FIRST_RECORD + (rule << RECORD_SHIFT);
}

/** Protocol classes, in the order of the roots. */
export const CLASS_TCP = 0;
export const CLASS_UDP = 1;
export const CLASS_SCTP = 2;
export const CLASS_OTHER = 3;
/** Echo requests under promiscuous ping: flows match them by addresses alone. */
export const CLASS_PING = 4;
export const CLASSES = 5;
