import { isIpv4, parseAddress, parsePrefix } from "#model";
import { NetlinkError } from "#netlink";
import { NftConnection, type NftFeatures, probeNftables, watchNftables } from "#netlink/nftables";
import { defaultRoute, type Link, type NeighborKey, type Route, RouteConnection } from "#netlink/route";
import { formatStep } from "./format.js";
import { Memo } from "./memo.js";
import { KernelMirror, type MirrorListeners, routeChange, ruleChange, type Verification } from "./mirror.js";
import { formatGateway } from "./nft-format.js";
import { fwmarkOfChain, METRICS_TABLE } from "./nft-metrics.js";
import { QUEUE_TABLE } from "./nft-nfqlb.js";
import { NftReader } from "./nft-read.js";
import { foreignFault, type PathFault, pathFault } from "./paths.js";
import { type ActualKernel, type Failure, OUR_PROTOCOL, type Step } from "./state.js";

/** Outcomes that are as good as success, with the reason. */
const SETTLED: Readonly<Record<Step["kind"], readonly string[]>> = {
  addRule: ["EEXIST"], // the same rule is there: somebody was faster
  deleteRule: ["ENOENT"], // gone already
  replaceRoute: ["EEXIST"], // the same route is there
  deleteRoute: ["ESRCH", "ENOENT"], // gone already, for example with its link
  nft: [],
};

/** A link with the host's addresses on it, in CIDR text. */
export type Interface = Link & { readonly prefixes: readonly string[] };

/** Packets and bytes that went to a target. */
export type Hits = { packets: number; bytes: number };

/** The kernel of the network namespace it was opened in, as far as it is ours. Synchronous. */
export class Steering implements Disposable {
  readonly #route = new RouteConnection();
  readonly #nft = new NftConnection();
  readonly #reader = new NftReader(this.#nft);
  readonly memo = new Memo();
  /** While the kernel is watched: what it holds, without asking for it. */
  #mirror: KernelMirror | null = null;
  #broken: ReadonlyMap<number, PathFault> = new Map();
  /** What the kernel can do. */
  readonly features: NftFeatures;

  /** @throws {UnsupportedError} packets cannot be queued; {NetlinkError} EPERM: CAP_NET_ADMIN is missing */
  constructor() {
    try {
      this.features = probeNftables(this.#nft);
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** What the kernel holds of ours now. */
  read(): ActualKernel {
    const families = [4, 6] as const;
    this.#mirror?.settle();
    return {
      rules:
        this.#mirror?.rules ??
        families.flatMap((family) => this.#route.rules(family).filter(({ protocol }) => protocol === OUR_PROTOCOL)),
      routes: this.#mirror?.routes.routes ?? families.flatMap((family) => this.#route.routes(family, OUR_PROTOCOL)),
      isAstray: (route) => this.#mirror?.routes.isAstray(route) ?? false,
      tables: this.#reader.read(),
      features: this.features,
      memo: this.memo,
    };
  }

  /** Applies steps in order; one that fails is told and the others go on. */
  apply(steps: readonly Step[]): readonly Failure[] {
    const failures: Failure[] = [];
    let own: ReadonlySet<string> | null = null;
    const ownAddresses = () => {
      own ??= this.#ownAddresses();
      return own;
    };
    for (const step of steps) {
      try {
        this.#applyStep(step, ownAddresses);
      } catch (error) {
        if (!(error instanceof NetlinkError)) throw error;
        if (SETTLED[step.kind].includes(error.errno)) continue;
        failures.push({
          step,
          errno: error.errno,
          message: `${formatStep(step)[0]}: ${error.message}`,
          fwmark: fwmarkOf(step),
        });
      }
    }
    return failures;
  }

  /** @param ownAddresses this host's addresses as text, read at most once per apply */
  #applyStep(step: Step, ownAddresses: () => ReadonlySet<string>): void {
    switch (step.kind) {
      case "addRule":
        this.#route.addRule(step.rule);
        this.#mirror?.expect(ruleChange("new", step.rule));
        break;
      case "deleteRule":
        this.#route.deleteRule(step.rule);
        this.#mirror?.expect(ruleChange("deleted", step.rule));
        break;
      case "replaceRoute": {
        const { table, gateway } = step;
        // The kernel takes such a route on IPv4 and refuses it on IPv6; it never leads to a target.
        if (ownAddresses().has(gateway)) {
          throw new NetlinkError(`route via ${gateway}`, "EADDRINUSE", "the target's address is one of this host");
        }
        const address = parseAddress(gateway);
        const bytes = isIpv4(address) ? address.slice(12) : address;
        this.#route.replaceRoute(defaultRoute(table, bytes, OUR_PROTOCOL));
        this.#mirror?.expectRoute(step);
        this.#renewNeighbor(bytes);
        break;
      }
      case "deleteRoute":
        this.#route.deleteRoute(step.route);
        this.#expectDeletion(step.route);
        break;
      case "nft":
        this.#reader.apply(step.commands);
        break;
    }
  }

  /**
   * Takes the queue rules out of their chains and leaves the chains: taking away a hook would drop every packet that
   * still waits in a queue (nf_queue_nf_hook_drop, net/netfilter/nf_queue.c, v6.18).
   */
  stopQueueing(): readonly Failure[] {
    const chains = new Set((this.#nft.rules(QUEUE_TABLE) ?? []).map(({ chain }) => chain));
    const commands = [...chains].map((chain) => ({ kind: "flushChain", table: QUEUE_TABLE, chain }) as const);
    const text = [...chains].map((chain) => `flush chain inet ${QUEUE_TABLE} ${chain}`);
    return commands.length === 0 ? [] : this.apply([{ kind: "nft", commands, text }]);
  }

  /**
   * What each target got since its counter was made, by fwmark; one dump for all.
   * @param hits brought up to date and returned; for who asks again and again, and makes no object of each every time
   */
  counters(hits = new Map<number, Hits>()): ReadonlyMap<number, Readonly<Hits>> {
    const read = () => {
      let count = 0;
      this.#nft.counters(METRICS_TABLE, ({ chain, packets, bytes }) => {
        const fwmark = fwmarkOfChain(chain);
        if (fwmark === null) return;
        count++;
        const known = hits.get(fwmark);
        if (known === undefined) hits.set(fwmark, { packets, bytes });
        else [known.packets, known.bytes] = [packets, bytes];
      });
      return count;
    };
    if (read() === hits.size) return hits;
    hits.clear(); // some are gone
    read();
    return hits;
  }

  /**
   * Calls `onChange` when rules or routes of ours, links, addresses, the reachability of a neighbor, or nftables changed,
   * by others than us. From now on `read` costs no dump of rules and routes.
   * @param events.onEvent told of everything that the kernel says of rules, routes, links, addresses and neighbors, before that;
   * see {@link MirrorListeners}
   * @param events.onHeard a neighbor was heard of first, which can only do good to a target that is lost; else `onChange`
   * @returns a function that ends it
   */
  watch(
    onChange: () => void,
    { onEvent = () => {}, onHeard = onChange }: Partial<Omit<MirrorListeners, "onChange">> = {},
  ): () => void {
    const mirror = new KernelMirror(this.#route, { onChange, onEvent, onHeard });
    this.#mirror = mirror;
    mirror.settle();
    const stopNft = watchNftables((generation) => {
      if (generation === null || !this.#reader.hasSeen(generation)) onChange();
    });
    return () => {
      stopNft();
      this.#mirror = null;
      mirror[Symbol.dispose]();
    };
  }

  /** Reads back everything that is known by events only, as a safety net; what is new of it, the next `read` has. */
  verify(): Verification {
    const areTablesSame = this.#reader.verify();
    const found = this.#mirror?.verify() ?? "news";
    return found === "same" && !areTablesSame ? "news" : found;
  }

  /** How often the kernel's events ran over and everything was read anew. */
  get overruns(): number {
    return this.#mirror?.overruns ?? 0;
  }

  /**
   * Marks whose packets would not reach their target, with the reason; as of now. Only while watched.
   * @param vips prefixes that packets with a mark go to
   */
  brokenPaths(vips: readonly string[]): ReadonlyMap<number, PathFault> {
    const mirror = this.#mirror;
    if (mirror === null) return new Map();
    mirror.settle();
    return this.memo.last("broken paths", [mirror.revision, vips], () => {
      const broken = new Map(this.#findBroken(mirror));
      for (const table of mirror.routes.shared) {
        const fault = foreignFault(table, vips.map(parsePrefix));
        if (fault !== null) broken.set(table[0]!.table, fault);
      }
      return broken;
    });
  }

  /** While links, addresses and neighbors are as they were, what is known of routes that are the same still holds. */
  #findBroken(mirror: KernelMirror): ReadonlyMap<number, PathFault> {
    const { links, neighbors, factsRevision } = mirror;
    const { routes } = mirror.routes;
    const list = { items: routes, markOf: ({ table }: Route) => table };
    const changed = this.memo.changedMarks("broken paths");
    const marks = changed.look(list, list, String(factsRevision));
    const broken = new Map(marks === null ? [] : this.#broken);
    for (const mark of marks ?? []) broken.delete(mark);
    const facts = { links, neighbors, ownAddresses: this.#ownAddresses() };
    for (const route of routes) {
      if (marks !== null && !marks.has(route.table)) continue;
      const { text: gateway, key } = this.memo.gatewayOf(route);
      if (gateway === "") continue; // not as we make them; a turn mends it
      const fault = pathFault({ linkIndex: route.nextHops[0]!.linkIndex, gateway, key }, facts);
      const known = broken.get(route.table);
      if (fault !== null && (known === undefined || known.kind === "neighborUnknown")) broken.set(route.table, fault);
    }
    this.#broken = broken;
    changed.done([]);
    return broken;
  }

  /** Has the kernel ask the gateways of these marks' routes whether they are there. The answers come as events. */
  probe(fwmarks: ReadonlySet<number>): void {
    const mirror = this.#mirror;
    if (mirror === null) return;
    const asked: NeighborKey[] = [];
    for (const route of mirror.routes.of(fwmarks)) {
      const { text: gateway, key } = this.memo.gatewayOf(route);
      if (gateway === "") continue;
      const { linkIndex, gateway: address } = route.nextHops[0]!;
      if (mirror.links.get(linkIndex)?.hasCarrier === true && mirror.neighbors.isWorthProbing(linkIndex, key))
        asked.push({ family: route.family, linkIndex, address: address! });
    }
    tolerate(() => this.#route.probeNeighbors(asked));
  }

  /** Interfaces and the host's own addresses on them. Only while watched. */
  interfaces(): readonly Interface[] {
    const mirror = this.#mirror;
    if (mirror === null) return [];
    mirror.settle();
    return [...mirror.links.values()].map((link) => ({
      ...link,
      prefixes: mirror.addresses
        .filter(({ linkIndex }) => linkIndex === link.index)
        .map(({ address, prefixLength }) => `${formatGateway(address)}/${prefixLength}`),
    }));
  }

  /** Sets an interface down; one that is gone is as good. */
  setDown(linkIndex: number): void {
    tolerate(() => this.#route.setLinkDown(linkIndex));
  }

  #expectDeletion(route: Route): void {
    const { text: gateway } = this.memo.gatewayOf(route);
    const { family, table } = route;
    if (gateway !== "") this.#mirror?.expect(routeChange("deleted", { family, table, gateway }));
  }

  /** A route is new: what is remembered of its gateway may be of an interface that is no more (D10). It is asked anew. */
  #renewNeighbor(gateway: Uint8Array): void {
    const mirror = this.#mirror;
    if (mirror === null) return;
    for (const key of mirror.forgetNeighbor(gateway)) tolerate(() => this.#route.deleteNeighbor(key));
  }

  #ownAddresses(): ReadonlySet<string> {
    const addresses = this.#mirror?.addresses ?? this.#route.addresses();
    return new Set(addresses.map(({ address }) => formatGateway(address)));
  }

  [Symbol.dispose](): void {
    this.#route[Symbol.dispose]();
    this.#nft[Symbol.dispose]();
  }
}

/** What is asked of a neighbor or an interface may come too late; events tell what became of it. */
function tolerate(ask: () => void): void {
  try {
    ask();
  } catch (error) {
    if (!(error instanceof NetlinkError)) throw error;
  }
}

function fwmarkOf(step: Step): number | null {
  if (step.kind === "addRule" || step.kind === "deleteRule") return step.fwmark;
  return step.kind === "replaceRoute" ? step.table : null;
}
