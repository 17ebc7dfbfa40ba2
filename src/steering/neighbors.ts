import { type Neighbor, type NeighborKey, NeighborState } from "#netlink/route";
import { formatGateway } from "./nft-format.js";

/** States in which the kernel knows that the neighbor is there, or was told so by an administrator. */
const CONFIRMED: readonly number[] = [NeighborState.reachable, NeighborState.permanent, NeighborState.noarp];
/** States that an administrator chose: such an entry is left as it is. */
const FIXED: readonly number[] = [NeighborState.permanent, NeighborState.noarp];
/** States without a link-layer address. */
const UNKNOWN: readonly number[] = [NeighborState.none, NeighborState.incomplete, NeighborState.failed];
/** The kernel is asking already. */
const ASKING: readonly number[] = [NeighborState.incomplete, NeighborState.delay, NeighborState.probe];

type Known = {
  readonly key: NeighborKey;
  state: number;
  isFailed: boolean;
  /** Number of the event that told its failure. */
  failedBy: number;
  /** We have dropped the entry; the kernel calls it failed before it tells that it is gone. */
  isDropped: boolean;
};

/**
 * Neighbor entries, and which neighbors do not answer. A neighbor has failed from the moment the kernel says FAILED until
 * it says that it is reachable: what comes in between (asked again, entry dropped as garbage) is no news of it.
 *
 * An entry that somebody deletes is told as FAILED too, directly followed by its end (neigh_delete, net/core/neighbour.c,
 * v6.18); that says nothing of the neighbor.
 */
export class Neighbors {
  readonly #known = new Map<string, Known>();
  #events = 0;

  /** Takes a change of an entry. @returns whether by it the neighbor failed, or came back, or was heard of first */
  take(change: "new" | "deleted", { family, linkIndex, address, state }: Neighbor): boolean {
    this.#events++;
    const text = textOf(linkIndex, address);
    const known = this.#known.get(text) ?? {
      key: { family, linkIndex, address },
      state: NeighborState.none,
      isFailed: false,
      failedBy: 0,
      isDropped: false,
    };
    const wasFailed = known.isFailed;
    if (change === "deleted") {
      const isDeletedByHand = known.failedBy === this.#events - 1;
      if (known.isDropped || !wasFailed || isDeletedByHand) this.#known.delete(text);
      else known.state = NeighborState.none;
      return wasFailed && isDeletedByHand;
    }
    if (known.isDropped && state === NeighborState.failed) return false;
    known.isFailed = state === NeighborState.failed || (wasFailed && !CONFIRMED.includes(state));
    if (state === NeighborState.failed && !wasFailed) known.failedBy = this.#events;
    const wasUnknown = UNKNOWN.includes(known.state);
    known.state = state;
    known.isDropped = false;
    this.#known.set(text, known);
    return known.isFailed !== wasFailed || (wasUnknown && !UNKNOWN.includes(state));
  }

  /** Puts what was read in the place of all entries; failures of neighbors that are gone are kept for links that live. */
  replace(entries: readonly Neighbor[], isLink: (index: number) => boolean): void {
    const failed = [...this.#known].filter(([, { isFailed, key }]) => isFailed && isLink(key.linkIndex));
    this.#known.clear();
    for (const [text, known] of failed) this.#known.set(text, { ...known, state: NeighborState.none });
    for (const entry of entries) this.take("new", entry);
  }

  /** Whether the kernel has asked this neighbor in vain. */
  isFailed(linkIndex: number, address: Uint8Array): boolean {
    return this.#known.get(textOf(linkIndex, address))?.isFailed === true;
  }

  /** Whether the kernel has no link-layer address of it: packets would have to wait for an answer first. */
  isUnknown(linkIndex: number, address: Uint8Array): boolean {
    return UNKNOWN.includes(this.#known.get(textOf(linkIndex, address))?.state ?? NeighborState.none);
  }

  /** Whether asking would say something new: the kernel is not at it, and nobody has fixed the answer. */
  isWorthProbing(linkIndex: number, address: Uint8Array): boolean {
    const state = this.#known.get(textOf(linkIndex, address))?.state ?? NeighborState.none;
    return !FIXED.includes(state) && !ASKING.includes(state);
  }

  /** Forgets what is known of an address, on every link. @returns the entries that can be dropped from the kernel too */
  forget(address: Uint8Array, linkIndices: Iterable<number>): readonly NeighborKey[] {
    const dropped: NeighborKey[] = [];
    for (const linkIndex of linkIndices) {
      const text = textOf(linkIndex, address);
      const known = this.#known.get(text);
      if (known === undefined || FIXED.includes(known.state)) continue;
      if (known.state === NeighborState.none) this.#known.delete(text);
      else dropped.push(known.key);
      Object.assign(known, { isFailed: false, isDropped: true });
    }
    return dropped;
  }
}

function textOf(linkIndex: number, address: Uint8Array): string {
  return `${linkIndex} ${formatGateway(address)}`;
}
