/**
 * Layout of a compiled classifier: one Int32Array of words, position independent. References between nodes count
 * words from its start, so it can lie anywhere in shared memory. See docs/tables.md and decision 0013.
 *
 * Words 0 and 1 are the header, then the roots of each part, one per family and protocol class; the rest is nodes in any
 * order.
 */
export const HEADER_RULES = 0; // number of rules
export const HEADER_PARTS = 1; // number of parts, usually 1
export const HEADER_WORDS = 2;
/** A part decides among some of the rules; of several answers the rule that is asked first counts. */

/**
 * A reference to a node: its type in bits 0…2, which 32-bit word of the packet's key it looks at in bits 3…6, its word
 * index above. What the walk needs first stands in the reference, so that a step costs one dependent load. 0 is no node.
 */
export const TYPE_MASK = 7;
export const KEY_SHIFT = 3;
export const KEY_MASK = 15;
export const INDEX_SHIFT = 7;
/** Words a program may have so that every reference fits, 128 MiB. */
export const MAX_PROGRAM_WORDS = 1 << 25;

/** Node types; in brackets the node's words. The walk goes on at the types up to NODE_FIELD, the others are answers. */
export const NODE_TABLE = 0; // [children], on a cache line of its own; see TABLE_*
export const NODE_TRIE = 1; // see TRIE_*
export const NODE_PATH = 2; // see PATH_*
export const NODE_PORTS = 3; // see PORTS_*
export const NODE_FIELD = 4; // see FIELD_*
export const NODE_LEAF = 5; // [n, n × entry], in evaluation order
export const NODE_VECTOR = 6; // see VECTOR_*
export const NODE_SET = 7; // see SET_*; only inside of a vector node's look-ups

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

/** Looks at a field of the L4 header, as byte matches do: a hash table of its values. */
export const FIELD_TEST = 0; // 5 words: protocol, offset, size, mask, minimal header
export const FIELD_IGNORED = 5; // node for packets of another protocol
export const FIELD_FAILED = 6; // node where the packet is too short, or no value fits
export const FIELD_FACTOR = 7; // multiplier of the hash
export const FIELD_SHIFT = 8; // 32 - log2(slots): the hash's upper bits number the slot
export const FIELD_PROBES = 9; // slots to look at, at most
export const FIELD_SLOTS = 10; // slots + probes × (value, node; 0 = empty)

/** Rules as bit sets: which of them fit in each dimension is looked up, the sets are intersected. */
export const VECTOR_BLOCKS = 0; // blocks of 1024 rules
export const VECTOR_ENTRIES = 1; // word index of the entries, one per rule
export const VECTOR_ALL = 2; // reference to the set of all rules
export const VECTOR_DIMENSIONS = 3; // destination, source, destination port, source port: root or 0
/** A set: per block a summary (bit i: word i is not 0) and the word index of its words that are not 0. */
export const SET_BLOCK_WORDS = 2;
export const BLOCK_RULES = 1024;

/** A rule as lists have it: everything that a match needs lies together, for the cache's sake. */
export const ENTRY_WORDS = 8;
export const ENTRY_CONTROL = 0; // see CONTROL_*
export const ENTRY_RULE = 1; // index in evaluation order
export const ENTRY_STREAM = 2; // index of the table's name, -1 in a helper rule
export const ENTRY_SLOT = 3; // counter slot
export const ENTRY_DPORTS = 4; // destination ports that fit: first << 16 | last
export const ENTRY_MASK = 5; // (key word & mask) = value has to hold
export const ENTRY_VALUE = 6;
export const ENTRY_LONG = 7; // word index of LONG_*, where CONTROL_IS_LONG
/** Protocol classes that fit are bits 0…4 of an entry's control; then: the rule has no table; there is more to test. */
export const CONTROL_IS_HELPER = 1 << 5;
export const CONTROL_IS_LONG = 1 << 6;
/** Which word of the packet's key is compared; UDP port of encapsulated SCTP or 0. */
export const CONTROL_KEY_SHIFT = 7;
export const CONTROL_ENCAP_SHIFT = 16;
/** What only some rules have. */
export const LONG_SPORTS = 0; // source ports that fit: first << 16 | last
export const LONG_MATCHES = 1; // word index of the byte matches, 0 = none
export const LONG_WHOLE = 2; // word index of the whole rule as a test, 0 = the other words tell all that is not known

/** All ports, as ENTRY_DPORTS has them. */
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

/** Protocol classes, in the order of a part's roots. */
export const CLASS_TCP = 0;
export const CLASS_UDP = 1;
export const CLASS_SCTP = 2;
export const CLASS_OTHER = 3;
/** Echo requests under promiscuous ping: flows match them by addresses alone. */
export const CLASS_PING = 4;
export const CLASSES = 5;
/** A part's roots: of IPv4 packets by protocol class, then of IPv6 packets. */
export const PART_WORDS = 2 * CLASSES;
