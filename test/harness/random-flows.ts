// Random rules of all kinds, and packets near the borders of what the rules ask for.
import { type FlowParams, type FlowRule, parseFlowRule, setFlow } from "#flow";

export type RandomPacket = { readonly etherType: number; readonly bytes: Uint8Array };

/** Rules of one kind; the kinds stress different ways of compiling. */
export const KINDS = ["mixed", "nested", "wide", "one-field", "bytes", "helpers"] as const;
export type Kind = (typeof KINDS)[number];

/** Parameters of a rule of that kind; names repeat now and then. */
export function randomParams(kind: Kind, index: number, random: (limit: number) => number): FlowParams {
  const pick = <T>(values: readonly T[]) => values[random(values.length)]!;
  const has = (percent: number) => random(100) < percent;
  const list = (most: number, make: () => string) => Array.from({ length: 1 + random(most) }, make).join(",");
  const address4 = () => `10.${random(3)}.${pick([0, 1, 7, 128, 255])}.${random(256)}`;
  const address6 = () => `2001:db8:${random(3)}:${pick(["0", "1", "8000"])}::${random(64).toString(16)}`;
  const prefix = () => {
    const isV4 = has(65);
    const nested = isV4 ? 8 + random(25) : 30 + random(99);
    const any = isV4 ? random(33) : random(129);
    const bits = kind === "wide" ? any : kind === "nested" ? nested : pick([isV4 ? 32 : 128, nested, any]);
    return `${isV4 ? address4() : address6()}/${bits}`;
  };
  const port = () => 1 + pick([random(20), 79 + random(3), 9_898, 65_534, random(65_535)]);
  const range = () => {
    const first = port();
    return has(40) ? String(first) : `${first}-${Math.min(65_535, first + pick([1, 5, 300, 20_000]))}`;
  };
  const match = () =>
    pick([
      `tcp[4:4]=${random(40)}`,
      `tcp[${random(17)}:4]&0xff00ff=${random(3)}`,
      "tcp[13:1]&0x12=0x02",
      `udp[0:2]=${1 + random(20)}`,
      `sctp[4:4]=${random(4)}`,
      `udp[${random(7)}:2]=0`,
    ]);
  const manyPrefixes = pick([1, 2, 32]);
  const field = random(4); // the one field of kind one-field
  const asks = (which: number, percent: number) => (kind === "one-field" ? field === which : has(percent));
  const isHelper = kind === "helpers" && has(50);
  return {
    name: has(95) ? `f${index}` : `f${random(index + 1)}`,
    target: `s${random(5)}`,
    priority: String(pick([0, 0, random(5), random(1_000) - 500])),
    ...(isHelper ? { protocols: "sctp", udpencap: pick(["9899", "80"]) } : {}),
    ...(!isHelper && has(70) ? { protocols: pick(["tcp", "udp", "sctp", "tcp,udp", "tcp,udp,sctp"]) } : {}),
    ...(asks(0, 85) ? { dsts: list(manyPrefixes, prefix) } : {}),
    ...(asks(1, 50) ? { srcs: list(manyPrefixes, prefix) } : {}),
    ...(asks(2, 70) ? { dports: has(3) ? "" : list(pick([1, 3, 20]), range) } : {}),
    ...(asks(3, 20) ? { sports: list(pick([1, 2]), range) } : {}),
    ...(has(kind === "bytes" ? 90 : 5) ? { match: list(2, match) } : {}),
  };
}

/** The rules in evaluation order; what the rules' syntax refuses is left out. */
export function randomRules(kind: Kind, count: number, random: (limit: number) => number): readonly FlowRule[] {
  let rules: readonly FlowRule[] = [];
  for (let i = 0; i < count; i++) rules = trySet(rules, randomParams(kind, i, random));
  return rules;
}

/** The rules with one more set; unchanged where that is refused. */
export function trySet(rules: readonly FlowRule[], params: FlowParams): readonly FlowRule[] {
  return accept(() => setFlow(rules, parseFlowRule(params))) ?? rules;
}

/** A rule, or null where it is refused. */
export function tryParse(params: FlowParams): FlowRule | null {
  return accept(() => parseFlowRule(params));
}

function accept<T>(work: () => T): T | null {
  try {
    return work();
  } catch (error) {
    if ((error as { code?: string }).code !== "ERR_CONFIG") throw error;
    return null;
  }
}

/** A packet at or just beyond the border of what one of the rules asks for, in each field. */
export function packetNear(rules: readonly FlowRule[], random: (limit: number) => number): RandomPacket {
  const pick = <T>(values: readonly T[]) => values[random(values.length)]!;
  const rule = pick(rules);
  const isV4 = random(100) < 60;
  const address = (prefixes: FlowRule["sources"]) => {
    const given = prefixes.length === 0 ? pick(rules).destinations : prefixes;
    const bytes = new Uint8Array(16);
    if (given.length === 0) bytes.fill(random(256));
    else {
      const { address: first, bits } = pick(given);
      const kind = random(4);
      bytes.set(first);
      for (let bit = bits; bit < 128 && kind > 0; bit++) {
        const isOne = kind === 1 || (kind === 2 && random(2) === 1);
        if (isOne) bytes[bit >> 3]! |= 0x80 >> (bit & 7);
      }
      if (random(5) === 0 && bits > 0) bytes[(bits - 1) >> 3]! ^= 0x80 >> ((bits - 1) & 7); // just outside
    }
    return isV4 ? [...bytes.subarray(12)] : [...bytes];
  };
  const port = (ranges: FlowRule["sourcePorts"]) => {
    if (ranges === null || ranges.length === 0) return pick([0, 1, 80, 9_899, random(65_536)]);
    const { first, last } = pick(ranges);
    return (pick([first, last, first - 1, last + 1, first + ((last - first) >> 1)]) + 65_536) % 65_536;
  };
  const numbers = { tcp: 6, udp: 17, sctp: 132 };
  const named = rule.protocols.length > 0 && random(10) > 0 ? numbers[pick(rule.protocols)] : pick([6, 17, 132, 47]);
  const protocol = random(12) === 0 ? (isV4 ? 1 : 58) : named;
  const l4 = Array.from({ length: pick([4, 8, 20, 24, 40]) }, () => pick([0, 0, random(8), random(256)]));
  const isIcmp = protocol === 1 || protocol === 58;
  const [source, destination] = isIcmp
    ? [pick([8, 128, 0]) << 8, 0]
    : [port(rule.sourcePorts), port(rule.destinationPorts)];
  l4.splice(0, 4, source >> 8, source & 255, destination >> 8, destination & 255);
  const from = address(rule.sources);
  const to = address(rule.destinations);
  const head = isV4
    ? [0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, ...from, ...to]
    : [0x60, 0, 0, 0, 0, 0, protocol, 64, ...from, ...to];
  return { etherType: isV4 ? 0x0800 : 0x86dd, bytes: new Uint8Array([...head, ...l4]) };
}
