import { isIpv4, parseAddress } from "#model";
import { NetlinkError } from "#netlink";
import { NftConnection, type NftFeatures, probeNftables, watchNftables } from "#netlink/nftables";
import { defaultRoute, RouteConnection, watchRoutes } from "#netlink/route";
import { formatStep } from "./format.js";
import { formatGateway } from "./nft-format.js";
import { NftMemo } from "./nft-memo.js";
import { fwmarkOfChain, METRICS_TABLE } from "./nft-metrics.js";
import { QUEUE_TABLE } from "./nft-nfqlb.js";
import { NftReader } from "./nft-read.js";
import { type ActualKernel, type Failure, OUR_PROTOCOL, type Step } from "./state.js";

/** Outcomes that are as good as success, with the reason. */
const SETTLED: Readonly<Record<Step["kind"], readonly string[]>> = {
  addRule: ["EEXIST"], // the same rule is there: somebody was faster
  deleteRule: ["ENOENT"], // gone already
  replaceRoute: ["EEXIST"], // the same route is there
  deleteRoute: ["ESRCH", "ENOENT"], // gone already, for example with its link
  nft: [],
};

/** Packets and bytes that went to a target. */
export type Hits = { readonly packets: number; readonly bytes: number };

/** The kernel of the network namespace it was opened in, as far as it is ours. Synchronous. */
export class Steering implements Disposable {
  readonly #route = new RouteConnection();
  readonly #nft = new NftConnection();
  readonly #reader = new NftReader(this.#nft);
  readonly #memo = new NftMemo();
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
    return {
      rules: families.flatMap((family) =>
        this.#route.rules(family).filter(({ protocol }) => protocol === OUR_PROTOCOL),
      ),
      routes: families.flatMap((family) => this.#route.routes(family, OUR_PROTOCOL)),
      tables: this.#reader.read(),
      features: this.features,
      memo: this.#memo,
    };
  }

  /** Applies steps in order; one that fails is told and the others go on. */
  apply(steps: readonly Step[]): readonly Failure[] {
    const failures: Failure[] = [];
    let own: ReadonlySet<string> | null = null;
    const ownAddresses = () => {
      own ??= new Set(this.#route.addresses().map(({ address }) => formatGateway(address)));
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
        break;
      case "deleteRule":
        this.#route.deleteRule(step.rule);
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
        break;
      }
      case "deleteRoute":
        this.#route.deleteRoute(step.route);
        break;
      case "nft":
        this.#nft.transaction(step.commands);
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

  /** What each target got since its counter was made, by fwmark; one dump for all. */
  counters(): ReadonlyMap<number, Hits> {
    const hits = new Map<number, Hits>();
    for (const { chain, packets, bytes } of this.#nft.counters(METRICS_TABLE)) {
      const fwmark = fwmarkOfChain(chain);
      if (fwmark !== null) hits.set(fwmark, { packets, bytes });
    }
    return hits;
  }

  /** Calls `onChange` when rules, routes, links, addresses or nftables changed, by whomever. */
  watch(onChange: () => void): () => void {
    const stops = [watchRoutes(["rule", "route", "link", "address"], onChange), watchNftables(onChange)];
    return () => {
      for (const stop of stops) stop();
    };
  }

  [Symbol.dispose](): void {
    this.#route[Symbol.dispose]();
    this.#nft[Symbol.dispose]();
  }
}

function fwmarkOf(step: Step): number | null {
  if (step.kind === "addRule" || step.kind === "deleteRule") return step.fwmark;
  return step.kind === "replaceRoute" ? step.table : null;
}
