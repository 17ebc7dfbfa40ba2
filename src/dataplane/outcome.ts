/**
 * Why a packet got its fwmark: every packet is counted under exactly one of these. The numbers are indices into the
 * worker's counters and are part of the counter file's layout: add at the end, never renumber.
 */
export const OUTCOME = {
  forwarded: 0,
  /** A later fragment that follows its first one, or an error about one that follows the error about the first. */
  fragment: 1,
  /** Handed to the balancer of the tier that owns the packet's addresses. */
  tier: 2,
  noFlow: 3,
  noTarget: 4,
  unusable: 5,
  /** A later fragment whose first one is not on record. */
  unknownFragment: 6,
  /** The same, but a copy is held; it comes back when the first one has, and is counted once more then. */
  heldFragment: 7,
} as const;
export type Outcome = (typeof OUTCOME)[keyof typeof OUTCOME];

/** One sentence for people per outcome, in the order of {@link OUTCOME}. */
export const OUTCOME_TEXT: readonly string[] = [
  "forwarded to a target",
  "later fragment, follows its first fragment",
  "handed to another load balancer of the tier",
  "no flow matches",
  "the flow's stream has no active target",
  "unusable packet: too short, malformed or not IP",
  "later fragment without a first fragment on record",
  "later fragment, held until its first fragment comes",
];
