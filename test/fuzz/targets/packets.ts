// The whole decision, by real table images, against the slow models: parse, tier, fragments, rules, hash, look-up.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import {
  Decider,
  type DeciderOptions,
  OUTCOME,
  QuotedFragments,
  StreamTables,
  soloFragments,
  TableView,
} from "#dataplane";
import { Classification, type FlowRule } from "#flow";
import { createStreamTable, ensureFlows, updateFlows, updateStreamTable } from "#tables";
import { randomNumbers } from "../../harness/random.js";
import { KINDS, randomRules } from "../../harness/random-flows.js";
import { DecisionModel, type DecisionSetUp, type PlainDecision, type PlainTable } from "../../oracle/decision-model.js";
import { plainLookup } from "../../oracle/maglev.js";
import { type GivenPacket, packetInput } from "../packet-input.js";
import { differ, type FuzzCase, type TargetMaker } from "../target.js";

/** The rules are the same in every run: a case in the corpus keeps its meaning. */
const RULES_SEED = 20_260;
const RULES = 12;
const LIFETIME_MS = 200;
/** What stands around a packet must not matter. */
const AROUND = 64;
const MOST_BYTES = 512;
const RULE_SLOTS = 32;
const TIER_OWN_FWMARK = 7_001;

/** Name → positions asked for, and the fwmark of each target; -1 = not active. s4 is named by rules, but not there. */
const TABLES: Readonly<Record<string, { readonly size: number; readonly active: readonly number[] }>> = {
  s0: { size: 997, active: Array.from({ length: 10 }, (_, i) => 5_001 + i) },
  s1: { size: 97, active: [-1, 6_002, -1, 6_004] },
  s2: { size: 97, active: [-1, -1] },
  s3: { size: 3, active: [6_100] },
  tier: { size: 101, active: [TIER_OWN_FWMARK, 7_002, -1, 7_004] },
};

type SetUp = { readonly decider: Decider; readonly tables: TableView; readonly plain: DecisionSetUp };

/** Part of a case: the EtherType as u16, then the packet. */
function toPart({ etherType, bytes }: GivenPacket): Uint8Array {
  const part = new Uint8Array(2 + bytes.length);
  part[0] = etherType >> 8;
  part[1] = etherType & 255;
  part.set(bytes, 2);
  return part;
}

export const packetsTarget: TargetMaker = (folder, root) => {
  const plainTables = createTables(folder);
  const clock = { ms: 1_000 };
  const handedOver = { is: false };
  const ruleSets = KINDS.map((kind, i) => randomRules(kind, RULES, randomNumbers(RULES_SEED + i)));
  const setUps = [...ruleSets.flatMap((rules) => [rules, rules]), null, null].map((rules, n) => {
    return createSetUp(folder, n, rules, plainTables, clock, handedOver);
  });
  const known = vectorPackets(root);
  const seen: Record<string, number> = Object.fromEntries(Object.keys(OUTCOME).map((name) => [name, 0]));
  delete seen["heldFragment"]; // nothing is held here
  const memory = new Uint8Array(AROUND + MOST_BYTES + AROUND);
  const names = Object.keys(OUTCOME);

  function decide({ decider, tables }: SetUp, part: Uint8Array, fill: number): PlainDecision {
    memory.fill(fill);
    memory.set(part.subarray(2, 2 + MOST_BYTES), AROUND);
    const end = AROUND + Math.min(Math.max(part.length - 2, 0), MOST_BYTES);
    decider.hits.fill(0);
    tables.enter(decider);
    const fwmark = decider.decide(memory, AROUND, end, etherTypeOf(part));
    tables.leave();
    const hits: number[] = [];
    for (let slot = 0; slot < RULE_SLOTS; slot++)
      for (let count = decider.hits[slot]!; count > 0; count--) hits.push(slot);
    const outcome = names[decider.outcome]!;
    if (decider.stream < 0) return { outcome, fwmark, hits };
    const { rule, hash, lookupIndex, activeIndex } = decider;
    return { outcome, fwmark, rule, hash, lookupIndex, activeIndex, hits };
  }

  return {
    seen,
    generate(random): FuzzCase {
      const which = random(setUps.length);
      const packets = packetInput(random, setUps[which]!.plain.rules ?? ruleSets[0]!, known);
      return { settings: [which, random(4)], parts: packets.map(toPart) };
    },
    weigh: ({ parts }) => parts.length,
    check({ settings: [which = 0, flags = 0], parts }) {
      const setUp = setUps[which % setUps.length]!;
      const model = new DecisionModel(setUp.plain);
      clock.ms += 2 * LIFETIME_MS; // nothing of the case before is remembered
      handedOver.is = (flags & 1) === 1;
      for (const part of parts) {
        const got = decide(setUp, part, (flags & 2) === 0 ? 0x00 : 0xff);
        const { hits, ...want } = model.decide(part.subarray(2), etherTypeOf(part), handedOver.is);
        seen[got.outcome]!++;
        const problem = differ("decision", got, { ...want, hits: hits.toSorted((a, b) => a - b) });
        if (problem !== null) return problem;
      }
      return null;
    },
  };
};

const etherTypeOf = (part: Uint8Array) => ((part[0] ?? 0) << 8) | (part[1] ?? 0);

function createTables(folder: string): ReadonlyMap<string, PlainTable> {
  const plain = new Map<string, PlainTable>();
  for (const [name, { size: asked, active }] of Object.entries(TABLES)) {
    const targets = active.length;
    const { size } = createStreamTable(folder, name, { size: asked, targets, ownFwmark: TIER_OWN_FWMARK });
    updateStreamTable(folder, name, (fwmarks) => fwmarks.set(active));
    plain.set(name, { lookup: plainLookup(size, active), active });
  }
  return plain;
}

function createSetUp(
  folder: string,
  n: number,
  rules: readonly FlowRule[] | null,
  plainTables: ReadonlyMap<string, PlainTable>,
  clock: { readonly ms: number },
  handedOver: { readonly is: boolean },
): SetUp {
  const flowsName = rules === null ? null : `flows-${n}`;
  if (flowsName !== null) {
    ensureFlows(folder, flowsName);
    updateFlows(
      folder,
      flowsName,
      () => rules!,
      () => 0,
    );
  }
  const options: DeciderOptions = {
    hashMode: n % 2,
    noFlowFwmark: n % 3 === 0 ? 4_242 : -1,
    noTargetFwmark: n % 3 === 1 ? 4_243 : -1,
    isPromiscuousPing: n % 4 < 2,
  };
  const udpEncapPort = rules === null && n % 2 === 0 ? 9_899 : 0;
  const streams = new StreamTables(folder, { isCounting: true });
  if (rules === null) streams.setNames(["s0"]);
  const tier = n % 3 === 0 ? new StreamTables(folder) : null;
  tier?.setNames(["tier"]);
  const records = { size: 64, buckets: 0, lifetimeMs: LIFETIME_MS, isForgetful: false };
  const nowMs = () => clock.ms;
  const decider = new Decider({
    options,
    classification: new Classification(),
    program: rules === null ? null : new Int32Array(0),
    udpEncapPort,
    streams,
    fragments: soloFragments(records, nowMs),
    quoted: new QuotedFragments(LIFETIME_MS, nowMs),
    tier,
    isHandedOver: () => handedOver.is,
    hits: new Float64Array(RULE_SLOTS),
  });
  const tables = new TableView(folder, flowsName, streams, tier);
  const plainTier = tier === null ? null : { ...plainTables.get("tier")!, ownFwmark: TIER_OWN_FWMARK };
  const plainStreams = rules === null ? new Map([["", plainTables.get("s0")!]]) : plainTables;
  return { decider, tables, plain: { ...options, rules, tables: plainStreams, tier: plainTier, udpEncapPort } };
}

/** The packets of nfqlb's vectors, their first bytes. */
function vectorPackets(root: string): readonly GivenPacket[] {
  const text = readFileSync(join(root, "test/vectors/nfqlb/nfqlb-vectors.json"), "utf8");
  const { packets } = JSON.parse(text) as { packets: readonly { packet: string; l3: string }[] };
  return packets.map(({ packet, l3 }) => ({
    bytes: [...Buffer.from(packet, "hex").subarray(0, 200)],
    etherType: Number(l3),
  }));
}
