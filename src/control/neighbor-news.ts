import { formatGateway, type KernelEvent } from "#steering";
import type { KnownTargets } from "./targets.js";

type Neighbor = (KernelEvent & { readonly kind: "neighbor" })["neighbor"];

/** `NUD_*` as `neighbor update` names them; INCOMPLETE, 1, is told after a question in vain only. */
const STATES: Readonly<Record<number, "REACHABLE" | "FAILED">> = { 1: "FAILED", 2: "REACHABLE", 32: "FAILED" };

/** What was told of a neighbor last. */
type Told = { readonly state: "REACHABLE" | "FAILED"; readonly mac: string };

/** A failure that is not told yet: it may turn out to be the deletion of an entry. */
type Open = { readonly key: string; readonly linkIndex: number; readonly ip: string };

/** Tells of a neighbor; `mac` only when it is another one than before. */
type Tell = (ip: string, linkIndex: number, state: string, more: { readonly mac?: string }) => void;

/**
 * Which of the kernel's words about targets' neighbors are news: the first one, a change between FAILED and REACHABLE, and
 * another MAC address, as in the reference. That a neighbor answers our questions every few seconds is none.
 *
 * An entry that is deleted, by us or anybody, is told as FAILED and directly after that as gone (neigh_delete,
 * net/core/neighbour.c, v6.18). So a failure is told with the next event or turn, unless that is the entry's end.
 */
export class NeighborNews {
  readonly #tell: Tell;
  readonly #told = new Map<string, Told>();
  #known: KnownTargets = new Map();
  /** Addresses of the known targets; null: to be made. */
  #addresses: ReadonlySet<string> | null = null;
  #failure: Open | null = null;

  constructor(tell: Tell) {
    this.#tell = tell;
  }

  take(change: "new" | "deleted", { state, linkIndex, address, linkLayerAddress }: Neighbor): void {
    const ip = formatGateway(address);
    const key = `${linkIndex} ${ip}`;
    if (change === "deleted" && this.#failure?.key === key) this.#failure = null;
    this.#settle();
    const name = STATES[state];
    if (change === "deleted" || name === undefined || !this.#isTarget(ip)) return;
    if (name === "FAILED") {
      this.#failure = { key, linkIndex, ip };
      return;
    }
    const last = this.#told.get(key);
    const mac = Buffer.from(linkLayerAddress ?? [])
      .toString("hex")
      .replace(/..(?=.)/g, "$&:");
    const isOther = last !== undefined && last.mac !== "" && last.mac !== mac;
    this.#told.set(key, { state: name, mac });
    if (isOther || last?.state !== name) this.#tell(ip, linkIndex, name, isOther ? { mac } : {});
  }

  /** A turn has ended: whatever the kernel told before it was heard. */
  turn(known: KnownTargets): void {
    this.#settle();
    if (known !== this.#known) this.#addresses = null;
    this.#known = known;
  }

  /** The failure that waits is one. */
  #settle(): void {
    if (this.#failure === null) return;
    const { key, linkIndex, ip } = this.#failure;
    this.#failure = null;
    const last = this.#told.get(key);
    this.#told.set(key, { state: "FAILED", mac: last?.mac ?? "" });
    if (last?.state !== "FAILED") this.#tell(ip, linkIndex, "FAILED", {});
  }

  #isTarget(ip: string): boolean {
    if (this.#addresses === null) {
      const addresses = new Set([...this.#known.values()].flatMap(({ target }) => target.addresses));
      for (const key of this.#told.keys()) if (!addresses.has(key.slice(key.indexOf(" ") + 1))) this.#told.delete(key);
      this.#addresses = addresses;
    }
    return this.#addresses.has(ip);
  }
}
