import { addressKey, type NeighborEntry, type NeighborKey, NeighborState, tellsFailure } from "#netlink/route";

/** States in which the kernel knows that the neighbor is there, or was told so by an administrator. */
const CONFIRMED: readonly number[] = [NeighborState.reachable, NeighborState.permanent, NeighborState.noarp];
/** States that an administrator chose: such an entry is left as it is. */
const FIXED: readonly number[] = [NeighborState.permanent, NeighborState.noarp];
/** States without a link-layer address. */
const UNKNOWN: readonly number[] = [NeighborState.none, NeighborState.incomplete, NeighborState.failed];
/** The kernel is asking already. */
const ASKING: readonly number[] = [NeighborState.incomplete, NeighborState.delay, NeighborState.probe];

/**
 * `failure`: it failed, or came back; `heard`: its link-layer address is known now, which matters only where it was lost;
 * `moved`: it has another one than before, which matters to people alone.
 */
export type NeighborNews = "failure" | "heard" | "moved" | "nothing";

type Known = {
  state: number;
  /** The last one known, 0 = none. */
  mac: number;
  isFailed: boolean;
  /** Number of the event that told its failure. */
  failedBy: number;
  /** We have dropped the entry; the kernel calls it failed before it tells that it is gone. */
  isDropped: boolean;
};

/**
 * Neighbor entries, and which neighbors do not answer. A neighbor has failed from the moment the kernel says that it asked
 * in vain until it says that it is reachable: what comes in between (asked again, entry dropped as garbage) is no news of it.
 *
 * An entry that somebody deletes is told as FAILED too, directly followed by its end (neigh_delete, net/core/neighbour.c,
 * v6.18); that says nothing of the neighbor. So is one whose question is open and has packets waiting, as INCOMPLETE, and it
 * does not end: the same error of the kernel's has begun the question anew.
 */
export class Neighbors {
  /** By link, then by the address's key. */
  readonly #known = new Map<number, Map<string, Known>>();
  #events = 0;

  /**
   * Takes a change of an entry.
   * @param key of its address, see `addressKey`; so with all of these
   * @param mac as a number, 0 = none is told
   * @returns whether by it the neighbor failed or came back, was heard of first, or moved
   */
  take(change: "new" | "deleted", linkIndex: number, key: string, state: number, mac = 0): NeighborNews {
    this.#events++;
    const link = this.#linkOf(linkIndex);
    const known = link.get(key) ?? newlyKnown();
    const wasFailed = known.isFailed;
    if (change === "deleted") {
      const isDeletedByHand = known.failedBy === this.#events - 1;
      if (known.isDropped || !wasFailed || isDeletedByHand) link.delete(key);
      else known.state = NeighborState.none;
      return wasFailed && isDeletedByHand ? "failure" : "nothing";
    }
    const isInVain = tellsFailure(state);
    if (known.isDropped && isInVain) {
      known.isDropped = state === NeighborState.failed; // else it stays, and is asked
      known.state = state;
      return "nothing";
    }
    known.isFailed = isInVain || (wasFailed && !CONFIRMED.includes(state));
    if (isInVain && !wasFailed) known.failedBy = this.#events;
    const wasUnknown = UNKNOWN.includes(known.state);
    const hasMoved = mac !== 0 && known.mac !== 0 && mac !== known.mac;
    if (mac !== 0) known.mac = mac;
    known.state = state;
    known.isDropped = false;
    link.set(key, known);
    if (known.isFailed !== wasFailed) return "failure";
    if (wasUnknown && !UNKNOWN.includes(state)) return "heard";
    return hasMoved ? "moved" : "nothing";
  }

  /** Puts what was read in the place of all entries; failures of neighbors that are gone are kept for links that live. */
  replace(entries: readonly NeighborEntry[], isLink: (index: number) => boolean): void {
    for (const [index, link] of this.#known) {
      for (const [key, known] of link) {
        if (!known.isFailed) link.delete(key);
        else known.state = NeighborState.none;
      }
      if (!isLink(index)) this.#known.delete(index);
    }
    for (const { linkIndex, key, state } of entries) {
      if (state !== NeighborState.incomplete) this.take("new", linkIndex, key, state);
      else this.#setAsking(linkIndex, key);
    }
  }

  #setAsking(linkIndex: number, key: string): void {
    const link = this.#linkOf(linkIndex);
    const known = link.get(key) ?? newlyKnown();
    known.state = NeighborState.incomplete;
    link.set(key, known);
  }

  /** Whether the kernel has asked this neighbor in vain. */
  isFailed(linkIndex: number, key: string): boolean {
    return this.#known.get(linkIndex)?.get(key)?.isFailed === true;
  }

  /** Whether the kernel has no link-layer address of it: packets would have to wait for an answer first. */
  isUnknown(linkIndex: number, key: string): boolean {
    return UNKNOWN.includes(this.#stateOf(linkIndex, key));
  }

  /** Whether asking would say something new: the kernel is not at it, and nobody has fixed the answer. */
  isWorthProbing(linkIndex: number, key: string): boolean {
    const state = this.#stateOf(linkIndex, key);
    return !FIXED.includes(state) && !ASKING.includes(state);
  }

  /** Forgets what is known of an address, on every link. @returns the entries that can be dropped from the kernel too */
  forget(address: Uint8Array, linkIndices: Iterable<number>): readonly NeighborKey[] {
    const dropped: NeighborKey[] = [];
    const family = address.length === 4 ? 4 : 6;
    const key = addressKey(address);
    for (const linkIndex of linkIndices) {
      const link = this.#linkOf(linkIndex);
      const known = link.get(key);
      // Dropped already: by now it may be a new one with packets waiting, whose question would begin anew.
      if (known === undefined || known.isDropped || FIXED.includes(known.state)) continue;
      if (known.state === NeighborState.none) link.delete(key);
      else dropped.push({ family, linkIndex, address });
      Object.assign(known, { isFailed: false, isDropped: true });
    }
    return dropped;
  }

  #linkOf(linkIndex: number): Map<string, Known> {
    const known = this.#known.get(linkIndex);
    if (known !== undefined) return known;
    const link = new Map<string, Known>();
    this.#known.set(linkIndex, link);
    return link;
  }

  #stateOf(linkIndex: number, key: string): number {
    return this.#known.get(linkIndex)?.get(key)?.state ?? NeighborState.none;
  }
}

function newlyKnown(): Known {
  return { state: NeighborState.none, mac: 0, isFailed: false, failedBy: 0, isDropped: false };
}
