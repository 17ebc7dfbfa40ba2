import { createHash } from "node:crypto";
import {
  compare,
  compatQueue,
  counter,
  type Element,
  type Expression,
  inSet,
  meta,
  type NftCommand,
  nativeQueue,
  networkHeader,
  verdictOf,
} from "#netlink/nftables";
import { diffElements, intervalElements } from "./intervals.js";
import type { ActualKernel, ActualTable, DesiredKernel, Step } from "./state.js";

export const QUEUE_TABLE = "meridio-nfqlb";
export const METRICS_TABLE = "meridio-metrics";
const VIP_SETS = { 4: "ipv4-vips", 6: "ipv6-vips" } as const;
const MARK_MAP = "fwmark-verdict";
const COMMENT_PREFIX = "stateless-lb";
const NFPROTO = { 4: 2, 6: 10 } as const;
const ICMP = 1;
const ICMPV6 = 58;
/** Where the destination address stands in the IP header, and its length. */
const DESTINATION = { 4: { offset: 16, length: 4 }, 6: { offset: 24, length: 16 } } as const;

/** Chain of a target's hit counter. */
const targetChain = (fwmark: number) => `fwmark-${fwmark}`;

type ChainSpec = {
  readonly chain: string;
  readonly hook: "prerouting" | "output" | "postrouting";
  readonly rules: readonly { readonly text: string; readonly expressions: readonly Expression[] }[];
};

function queueChains(queue: NonNullable<DesiredKernel["queue"]>, statement: "native" | "compat"): readonly ChainSpec[] {
  const expression = statement === "native" ? nativeQueue(queue) : compatQueue(queue);
  const flags = [...(queue.isFanout ? ["fanout"] : []), ...(queue.isBypass === true ? ["bypass"] : [])];
  const numbers = `${queue.first}-${queue.last}${flags.length > 0 ? ` ${flags.join(",")}` : ""}`;
  const toVip = (family: 4 | 6) => {
    const { offset, length } = DESTINATION[family];
    return [
      meta("nfproto"),
      compare("==", new Uint8Array([NFPROTO[family]])),
      networkHeader(offset, length),
      inSet(VIP_SETS[family]),
      counter(),
      expression,
    ];
  };
  const icmpToVip = (family: 4 | 6) => {
    const protocol = family === 4 ? ICMP : ICMPV6;
    return [meta("l4proto"), compare("==", new Uint8Array([protocol])), ...toVip(family)];
  };
  const ip = (family: 4 | 6) => (family === 4 ? "ip" : "ip6");
  const families = [4, 6] as const;
  return [
    {
      chain: "nfqlb",
      hook: "prerouting",
      rules: families.map((family) => ({
        text: `${ip(family)} daddr @${VIP_SETS[family]} counter queue to ${numbers}`,
        expressions: toVip(family),
      })),
    },
    {
      chain: "nfqlb-local",
      hook: "output",
      rules: families.map((family) => ({
        text: `meta l4proto ${family === 4 ? "icmp" : "ipv6-icmp"} ${ip(family)} daddr @${VIP_SETS[family]} counter queue to ${numbers}`,
        expressions: icmpToVip(family),
      })),
    },
  ];
}

const METRICS_CHAIN: ChainSpec = {
  chain: "target-hits",
  hook: "postrouting",
  rules: [
    {
      text: `meta mark != 0x00000000 meta mark vmap @${MARK_MAP}`,
      expressions: [meta("mark"), compare("!=", new Uint8Array(4)), verdictOf(MARK_MAP)],
    },
  ],
};

/** Steps that make our tables and chains what they shall be, or take them away; elements are others' business. */
export function diffTables(
  desired: DesiredKernel,
  actual: ActualKernel,
): { readonly additions: Step[]; readonly removals: Step[] } {
  const additions: Step[] = [];
  const removals: Step[] = [];
  if (desired.queue === null) {
    if (actual.queueTable !== null) removals.push(deleteTable(QUEUE_TABLE));
  } else {
    const sets = [
      { set: VIP_SETS[4], type: "ipv4Interval" as const, text: `${VIP_SETS[4]} { type ipv4_addr; flags interval; }` },
      { set: VIP_SETS[6], type: "ipv6Interval" as const, text: `${VIP_SETS[6]} { type ipv6_addr; flags interval; }` },
    ];
    additions.push(...ensure(QUEUE_TABLE, sets, queueChains(desired.queue, actual.queueStatement), actual.queueTable));
  }
  const needsMetrics = desired.queue !== null || desired.targets.length > 0;
  if (!needsMetrics && actual.metricsTable !== null) removals.push(deleteTable(METRICS_TABLE));
  if (needsMetrics) {
    const map = { set: MARK_MAP, type: "markToVerdict" as const, text: `${MARK_MAP} { type mark : verdict; }` };
    additions.push(...ensure(METRICS_TABLE, [map], [METRICS_CHAIN], actual.metricsTable));
  }
  return { additions, removals };
}

function deleteTable(table: string): Step {
  return { kind: "nft", commands: [{ kind: "deleteTable", table }], text: [`delete table inet ${table}`] };
}

function ensure(
  table: string,
  sets: readonly {
    readonly set: string;
    readonly type: "ipv4Interval" | "ipv6Interval" | "markToVerdict";
    readonly text: string;
  }[],
  chains: readonly ChainSpec[],
  actual: ActualTable,
): Step[] {
  const missingSets = sets.filter(({ set }) => actual?.sets.has(set) !== true);
  const staleChains = chains.filter(({ chain, rules }) => {
    const present = actual?.rules.filter((rule) => rule.chain === chain).map(({ comment }) => comment) ?? [];
    return present.join() !== rules.map(fingerprint).join();
  });
  if (actual !== null && missingSets.length === 0 && staleChains.length === 0) return [];
  const commands: NftCommand[] = [{ kind: "addTable", table }];
  const text = [`add table inet ${table}`];
  for (const { set, type, text: spec } of missingSets) {
    commands.push({ kind: "addSet", table, set, type });
    text.push(`add ${type === "markToVerdict" ? "map" : "set"} inet ${table} ${spec}`);
  }
  for (const { chain, hook, rules } of staleChains) {
    commands.push({ kind: "addChain", table, chain, hook, priority: 0 }, { kind: "flushChain", table, chain });
    text.push(
      `add chain inet ${table} ${chain} { type filter hook ${hook} priority 0; }`,
      `flush chain inet ${table} ${chain}`,
    );
    for (const rule of rules) {
      commands.push({ kind: "addRule", table, chain, expressions: rule.expressions, comment: fingerprint(rule) });
      text.push(`add rule inet ${table} ${chain} ${rule.text}`);
    }
  }
  return [{ kind: "nft", commands, text }];
}

/** A comment that changes with anything the rule does: by it a rule is known to be as we made it. */
function fingerprint({ text, expressions }: ChainSpec["rules"][number]): string {
  const hash = createHash("sha256").update(text);
  for (const { name, data } of expressions) hash.update(name).update(data);
  return `${COMMENT_PREFIX} ${hash.digest("hex").slice(0, 16)}`;
}

/** Steps that make the VIP sets hold exactly these prefixes; both families in one transaction. */
export function diffVips(desired: DesiredKernel, actual: ActualKernel): Step[] {
  if (desired.queue === null) return [];
  const commands: NftCommand[] = [];
  const text: string[] = [];
  for (const family of [4, 6] as const) {
    const set = VIP_SETS[family];
    const target = { table: QUEUE_TABLE, set };
    const { added, deleted } = diffElements(
      intervalElements(desired.vips, family),
      actual.queueTable?.sets.get(set) ?? [],
    );
    if (deleted.length > 0) commands.push({ kind: "deleteElements", ...target, elements: deleted });
    if (added.length > 0) commands.push({ kind: "addElements", ...target, elements: added });
    if (deleted.length > 0) text.push(`delete element inet ${QUEUE_TABLE} ${set} { ${formatIntervals(deleted)} }`);
    if (added.length > 0) text.push(`add element inet ${QUEUE_TABLE} ${set} { ${formatIntervals(added)} }`);
  }
  return commands.length === 0 ? [] : [{ kind: "nft", commands, text }];
}

function formatIntervals(elements: readonly Element[]): string {
  const hex = ({ key }: Element) =>
    key.length === 4
      ? key.join(".")
      : Buffer.from(key)
          .toString("hex")
          .replace(/(.{4})(?=.)/g, "$1:");
  return elements
    .map((element) => (element.isEnd === true ? `before ${hex(element)}` : `from ${hex(element)}`))
    .join(", ");
}

/** Steps that give each target a hit counter, and take away those of targets that are gone. */
export function diffCounters(
  desired: DesiredKernel,
  actual: ActualKernel,
): { readonly additions: Step[]; readonly removals: Step[] } {
  const table = METRICS_TABLE;
  const present = new Map(
    (actual.metricsTable?.sets.get(MARK_MAP) ?? []).map((element) => [
      new DataView(element.key.buffer, element.key.byteOffset).getUint32(0, true),
      element,
    ]),
  );
  const wanted = new Set(desired.targets.map(({ fwmark }) => fwmark));
  const add: NftCommand[] = [];
  const addText: string[] = [];
  for (const fwmark of wanted) {
    if (present.has(fwmark)) continue;
    const chain = targetChain(fwmark);
    add.push(
      { kind: "addChain", table, chain },
      { kind: "flushChain", table, chain },
      { kind: "addRule", table, chain, expressions: [counter()], comment: "" },
      { kind: "addElements", table, set: MARK_MAP, elements: [{ key: markKey(fwmark), jump: chain }] },
    );
    addText.push(
      `add chain inet ${table} ${chain}`,
      `add rule inet ${table} ${chain} counter`,
      `add element inet ${table} ${MARK_MAP} { ${fwmark} : jump ${chain} }`,
    );
  }
  const remove: NftCommand[] = [];
  const removeText: string[] = [];
  for (const [fwmark, element] of present) {
    if (wanted.has(fwmark) || (desired.queue === null && wanted.size === 0)) continue; // the whole table goes
    const chain = targetChain(fwmark);
    remove.push(
      { kind: "deleteElements", table, set: MARK_MAP, elements: [element] },
      { kind: "flushChain", table, chain },
      { kind: "deleteChain", table, chain },
    );
    removeText.push(
      `delete element inet ${table} ${MARK_MAP} { ${fwmark} : jump ${chain} }`,
      `delete chain inet ${table} ${chain}`,
    );
  }
  return {
    additions: add.length === 0 ? [] : [{ kind: "nft", commands: add, text: addText }],
    removals: remove.length === 0 ? [] : [{ kind: "nft", commands: remove, text: removeText }],
  };
}

/** A mark as nftables keys it: host order. */
function markKey(fwmark: number): Uint8Array {
  return new Uint8Array(new Uint32Array([fwmark]).buffer);
}
