/**
 * Layout of a compiled classifier: one Int32Array of words, position independent. References between nodes are word
 * indices from its start, so it can lie anywhere in shared memory.
 *
 * Header: words 0…7, see HEADER_*. Then one record of RULE_WORDS per rule, then nodes and tests in any order.
 */
export const HEADER_WORDS = 8;
export const HEADER_RULES = 0; // number of rules
export const HEADER_ROOT4 = 1; // node where IPv4 packets begin
export const HEADER_ROOT6 = 2; // node where IPv6 packets begin

/** A rule's record begins at HEADER_WORDS + rule * RULE_WORDS. */
export const RULE_WORDS = 8;
export const RULE_STREAM = 0; // index of the table's name, -1 in a helper rule
export const RULE_SLOT = 1; // counter slot
export const RULE_ENCAP = 2; // UDP port of encapsulated SCTP or 0
export const RULE_MATCHES = 3; // word index of the byte matches, 0 = none
export const RULE_FULL = 4; // word index of the whole rule as a test, 0 = none (see FULL below)

/** Node types, the first word of a node. */
export const NODE_COMPARE = 1; // [type, key index, n, equal, else, n bytes]
export const NODE_SPARSE = 2; // [type, key index, n, else, n × (byte, node)]
export const NODE_DENSE = 3; // [type, key index, 256 nodes]
export const NODE_PROTOCOL = 4; // [type, node per protocol class]
export const NODE_PORT_SEARCH = 5; // [type, which, n, node 0, (n - 1) × (first port, node)]
export const NODE_PORT_TABLE = 6; // [type, which, 256 × node of a whole page, or -page]; a page is 256 nodes
export const NODE_LEAF = 7; // [type, n, n × rule]; addresses, protocol and ports are known to fit
export const NODE_FULL = 8; // [type, n, n × rule]; each rule has to be tested as a whole

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
