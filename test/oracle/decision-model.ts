// What becomes of a packet, decided a second time, from the slow models of its parts: what the packet means, the plain
// scan of the rules, and lookup tables filled by the book. Bytes, lists and maps, nothing shared, nothing reused.
import type { FlowRule } from "#flow";
import { type ScannedPacket, scan } from "./flow-scan.js";
import { djb2Model, type Understood, understand } from "./packet-model.js";

/** A lookup table: position → target index, target index → fwmark, -1 = none. */
export type PlainTable = { readonly lookup: readonly number[]; readonly active: readonly number[] };

export type DecisionSetUp = {
  /** null: every packet is for the one stream "". */
  readonly rules: readonly FlowRule[] | null;
  readonly tables: ReadonlyMap<string, PlainTable>;
  readonly tier: (PlainTable & { readonly ownFwmark: number }) | null;
  readonly hashMode: number;
  readonly noFlowFwmark: number;
  readonly noTargetFwmark: number;
  readonly isPromiscuousPing: boolean;
  readonly udpEncapPort: number;
};

/** The decision; what it does not depend on is left out. */
export type PlainDecision = {
  readonly outcome: string;
  readonly fwmark: number;
  readonly rule?: number;
  readonly hash?: number;
  readonly lookupIndex?: number;
  readonly activeIndex?: number;
  /** Rules that are counted, by index, each time once. */
  readonly hits: readonly number[];
};

/** Decides packets that come one after the other within the lifetime of fragment records. */
export class DecisionModel {
  readonly #setUp: DecisionSetUp;
  readonly #fragments = new Map<string, number>();
  readonly #quoted = new Map<string, number>();

  constructor(setUp: DecisionSetUp) {
    this.#setUp = setUp;
  }

  /** @param isHandedOver another balancer of the tier has sent the packet here */
  decide(bytes: Uint8Array, etherType: number, isHandedOver: boolean): PlainDecision {
    const { rules, tables, udpEncapPort, isPromiscuousPing } = this.#setUp;
    const list = [...bytes];
    let packet = understand(list, etherType, rules === null ? udpEncapPort : 0);
    if (packet.rc < 0) return this.#unusable(packet, []);
    const isFirst = packet.rc % 2 === 1;
    const isLater = packet.rc === 2;
    if (isFirst || isLater) {
      const other = isHandedOver ? -1 : this.#otherBalancer(packet.key);
      if (other >= 0) return { outcome: "tier", fwmark: other, hits: [] };
    }
    if (isLater) {
      const fwmark = this.#fragments.get(packet.whole);
      const outcome = fwmark === undefined ? "unknownFragment" : "fragment";
      return { outcome, fwmark: fwmark ?? -1, hits: [] };
    }
    const hits: number[] = [];
    let rule = -1;
    if (rules !== null) {
      const ask = () => {
        const found = scan(rules, scanned(packet), bytes, bytes.length, isPromiscuousPing);
        hits.push(...found.hits);
        return found;
      };
      let found = ask();
      const { udpEncapPort: port } = found;
      const { protocol, destinationPort } = scanned(packet);
      if (port !== 0 && protocol === 17 && destinationPort === port) {
        packet = understand(list, etherType, port);
        if (packet.rc < 0) return this.#unusable(packet, hits);
        found = ask();
      }
      ({ rule } = found);
      if (rule < 0) return { outcome: "noFlow", fwmark: this.#setUp.noFlowFwmark, hits };
    }
    const table = tables.get(rules === null ? "" : rules[rule]!.target) ?? null;
    return this.#lookUp(packet, table, rule, hits);
  }

  #lookUp(packet: Understood, table: PlainTable | null, rule: number, hits: readonly number[]): PlainDecision {
    const isByPorts = this.#setUp.hashMode === 1 && packet.key.slice(68, 70) === "84"; // SCTP
    const hash = djb2Model(packet.key, isByPorts ? 36 : 0, 40);
    const lookupIndex = table === null ? -1 : hash % table.lookup.length;
    const activeIndex = table === null ? -1 : table.lookup[lookupIndex]!;
    const found = { rule, hash, lookupIndex, activeIndex, hits };
    if (table === null || activeIndex < 0) return { outcome: "noTarget", fwmark: this.#setUp.noTargetFwmark, ...found };
    const fwmark = table.active[activeIndex]!;
    if (packet.quoted === "first") this.#quoted.set(packet.whole, fwmark);
    else if (packet.quoted === "none" && packet.whole !== "") this.#fragments.set(packet.whole, fwmark);
    return { outcome: "forwarded", fwmark, ...found };
  }

  #unusable(packet: Understood, hits: readonly number[]): PlainDecision {
    const fwmark = packet.quoted === "later" ? this.#quoted.get(packet.whole) : undefined;
    return { outcome: fwmark === undefined ? "unusable" : "fragment", fwmark: fwmark ?? -1, hits };
  }

  #otherBalancer(key: string): number {
    const { tier } = this.#setUp;
    if (tier === null) return -1;
    const fwmark = tier.active[tier.lookup[djb2Model(key, 0, 32) % tier.lookup.length]!] ?? -1;
    return fwmark === tier.ownFwmark ? -1 : fwmark;
  }
}

function scanned({ key, isEchoRequest, l4Offset, l4Protocol }: Understood): ScannedPacket {
  const bytes = new Uint8Array(Buffer.from(key, "hex"));
  const word = (at: number) => bytes[at]! * 256 + bytes[at + 1]!;
  const [sourcePort, destinationPort] = [word(36), word(38)];
  return { key: bytes, protocol: bytes[34]!, sourcePort, destinationPort, isEchoRequest, l4Offset, l4Protocol };
}
