/**
 * Layout of a compiled classifier: one Int32Array of words, position independent. References between nodes count
 * words from its start, so it can lie anywhere in shared memory.
 *
 * Header: words 0…7, see HEADER_*; the rest is nodes and tests in any order.
 */
export const HEADER_WORDS = 8;
export const HEADER_RULES = 0; // number of rules
export const HEADER_ROOT4 = 1; // node where IPv4 packets begin
export const HEADER_ROOT6 = 2; // node where IPv6 packets begin

/** A rule as a leaf lists it: everything a match needs lies together, for the cache's sake. */
export const ENTRY_WORDS = 6;
export const ENTRY_RULE = 0; // index in evaluation order
export const ENTRY_STREAM = 1; // index of the table's name, -1 in a helper rule
export const ENTRY_SLOT = 2; // counter slot
export const ENTRY_ENCAP = 3; // UDP port of encapsulated SCTP or 0
export const ENTRY_MATCHES = 4; // word index of the byte matches, 0 = none
export const ENTRY_WHOLE = 5; // word index of the whole rule as a test

/**
 * A reference to a node: type in bits 0…3, argument in bits 4…8, word index of the node in bits 9…31. Type and argument
 * stand in the reference, not in the node, so that a step costs one dependent load.
 */
export const TYPE_MASK = 15;
export const ARGUMENT_SHIFT = 4;
export const ARGUMENT_MASK = 31;
export const INDEX_SHIFT = 9;
/** Words a program may have so that every reference fits. */
export const MAX_PROGRAM_WORDS = 1 << 23;

/** Node types; in brackets the node's words, behind "arg" the meaning of the reference's argument. */
export const NODE_COMPARE = 1; // [n, equal, else, n bytes], arg: key index
export const NODE_SPARSE = 2; // [n, else, n × (byte, node)], arg: key index
export const NODE_DENSE = 3; // [256 nodes], arg: key index
export const NODE_PROTOCOL = 4; // [node per protocol class]
export const NODE_PORT_SEARCH = 5; // [n, node 0, (n - 1) × (first port, node)], arg: which port
export const NODE_PORT_TABLE = 6; // [256 × node of a whole page, or reference to a page], arg: which port
export const NODE_LEAF = 7; // [n, n × entry]; addresses, protocol and ports are known to fit
export const NODE_FULL = 8; // [n, n × entry]; each rule has to be tested as a whole
export const NODE_PAGE = 9; // [256 nodes], only inside a port table

/** The reference to the node of that type at a word index. */
export function reference(type: number, argument: number, index: number): number {
  return (index << INDEX_SHIFT) | (argument << ARGUMENT_SHIFT) | type;
}

/** Protocol classes, in the order of a protocol node's children. */
export const CLASS_TCP = 0;
export const CLASS_UDP = 1;
export const CLASS_SCTP = 2;
export const CLASS_OTHER = 3;
/** Echo requests under promiscuous ping: flows match them by addresses alone. */
export const CLASS_PING = 4;
export const CLASSES = 5;

/** Which port a port node asks for. */
export const DESTINATION_PORT = 0;
export const SOURCE_PORT = 1;
