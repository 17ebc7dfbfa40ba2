// Question: what does it cost to find a packet's rule with 1 and with many rules, and how long does compiling take?
// Two figures: a packet's classification as the data plane does it, from its bytes to rule and hash, and the walk through
// the compiled rules alone, whose cost with many rules is that of their memory. One rule and many are measured in turns, the
// least of many rounds counts: other load on the machine hits both. Prints one JSON array. Arguments: rules, rounds, number
// of shapes. Run bundled (the unit tests do): a transpiling runner would be measured instead.
import { Classification, classify, compile, type FlowParams, type FlowRule, parseFlowRule } from "#flow";
import { hashKey, Packet, parse } from "#packet";
import { randomNumbers } from "../test/harness/random.js";

const random = randomNumbers(1);
const address = () => `${random(256)}.${random(256)}.${random(256)}.${random(256)}`;
const range = (most: number) => {
  const first = 1 + random(65_535 - most);
  return `${first}-${first + random(most)}`;
};
const prefixes = (count: number, least: number) =>
  Array.from({ length: count }, () => `${address()}/${least + random(33 - least)}`).join();

/** Rules in shapes that people have, then in nasty ones. */
const shapes: Record<string, (i: number) => FlowParams> = {
  "many VIPs, one port each": (i) => ({
    protocols: "tcp",
    dsts: `10.${i >> 8}.${i & 255}.1/32,2001:db8:${i.toString(16)}::1/128`,
    dports: "80",
  }),
  "one VIP, a port each": (i) => ({ protocols: "tcp,udp", dsts: "10.0.0.1/32", dports: `${1000 + i * 3}` }),
  "VIPs, port ranges, sources, priorities": (i) => ({
    target: `s${i % 100}`,
    priority: `${i % 7}`,
    protocols: i % 3 === 0 ? "udp" : "tcp",
    dsts: `10.1.${i % 200}.0/${24 + (i % 9)}`,
    dports: `${1000 + (i % 50) * 10}-${1000 + (i % 50) * 10 + 15}`,
    ...(i % 5 === 0 ? { srcs: `192.${i % 250}.0.0/16` } : {}),
  }),
  "equal but for the source port": (i) => ({
    protocols: "udp",
    dsts: "10.0.0.0/8",
    dports: "1-5000",
    sports: `${1 + i * 3}-${3 + i * 3}`,
  }),
  "equal but for the bytes matched": (i) => ({ protocols: "tcp", dsts: "10.0.0.1/32", match: `tcp[4:4]=${i}` }),
  "each asks in one field": (i) =>
    [
      { dsts: `10.${i >> 8}.${i & 255}.1/32` },
      { srcs: `10.${i >> 8}.${i & 255}.1/32` },
      { protocols: "tcp", dports: `${1 + i}` },
      { protocols: "tcp", sports: `${1 + i}` },
    ][i % 4]!,
  "random prefixes of all lengths, both ways": () => ({
    priority: `${random(100)}`,
    protocols: "tcp",
    dsts: prefixes(1, 1),
    srcs: prefixes(1, 1),
    dports: range(5_000),
  }),
  "32 long prefixes each, both ways": () => ({
    protocols: "tcp",
    dsts: prefixes(32, 12),
    srcs: prefixes(32, 12),
    dports: range(5_000),
  }),
  "16 IPv4 and 16 IPv6 VIPs, port ranges": (i) => ({
    protocols: i % 2 === 0 ? "udp" : "tcp",
    priority: String(i % 7),
    dsts: Array.from({ length: 16 }, (_, k) => {
      const v4 = `10.${(i >> 4) & 255}.${((i & 15) << 4) | k}.${1 + (i >> 12)}/32`;
      return `${v4},2001:db8:${i.toString(16)}::${k.toString(16)}/128`;
    }).join(","),
    dports: `${1000 + (i % 50) * 10}-${1000 + (i % 50) * 10 + 15},80,443,8000-8100`,
  }),
};

type Case = {
  readonly program: Int32Array;
  readonly packets: readonly { packet: Packet; bytes: Uint8Array }[];
  hits: Float64Array;
};

function makeRules(make: (i: number) => FlowParams, n: number): readonly FlowRule[] {
  const rules = Array.from({ length: n }, (_, i) => parseFlowRule({ name: `f${i}`, target: "s", ...make(i) }));
  return rules.sort((a, b) => b.priority - a.priority);
}

/** The shape with n rules, compiled, and packets that hit rules all over the set. */
function prepare(make: (i: number) => FlowParams, n: number): Case {
  const rules = makeRules(make, n);
  const program = compile(rules, [...rules.keys()]);
  const packets = Array.from({ length: 256 }, (_, i) => packetFor(rules[Math.floor((i * n) / 256)]!, i));
  return { program, packets, hits: new Float64Array(n) };
}

/** ms to compile n rules that were never seen before, and to compile them again with one of them changed; the least of some. */
function compileTimes(
  make: (i: number) => FlowParams,
  n: number,
  tries: number,
): { compileMs: number; changeMs: number } {
  const milliseconds = (rules: readonly FlowRule[]) => {
    const slots = [...rules.keys()];
    const start = performance.now();
    compile(rules, slots);
    return performance.now() - start;
  };
  let [compileMs, changeMs] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  const deadline = performance.now() + 1_500;
  for (let i = 0; i < tries && (i === 0 || performance.now() < deadline); i++) {
    const rules = makeRules(make, n);
    compileMs = Math.min(compileMs, milliseconds(rules));
    const at = random(n);
    const changed = rules.with(at, { ...rules[at]!, destinationPorts: [{ first: 7, last: 7 }] });
    changeMs = Math.min(changeMs, milliseconds(changed));
  }
  return { compileMs: round(compileMs), changeMs: round(changeMs) };
}

/** A packet of 40 bytes that the rule takes, if none before it does. */
function packetFor(rule: FlowRule, i: number): { packet: Packet; bytes: Uint8Array } {
  const from = rule.sources[0]?.address.subarray(12) ?? [192, i % 250, 3, 4];
  const to = rule.destinations[0]?.address.subarray(12) ?? [10, 1, 2, 3];
  const bytes = new Uint8Array([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, ...from, ...to, ...new Uint8Array(20)]);
  if (rule.protocols[0] === "udp") bytes[9] = 17;
  const view = new DataView(bytes.buffer);
  view.setUint16(20, rule.sourcePorts?.[0]?.first ?? 1024);
  view.setUint16(22, rule.destinationPorts?.[0]?.first ?? 80);
  if (rule.byteMatches.length > 0) view.setUint32(24, rule.byteMatches[0]!.value);
  const packet = new Packet();
  parse(bytes, 0, bytes.length, 0x0800, 0, packet);
  return { packet, bytes };
}

const round = (value: number) => Math.round(value * 100) / 100;
const out = new Classification();
const scratch = new Packet();
let sum = 0;

/** ns per packet of one round. */
function time({ packets }: Case, work: (packet: Case["packets"][number]) => void): number {
  const start = process.hrtime.bigint();
  for (let repeat = 0; repeat < 20; repeat++) for (let i = 0; i < 256; i++) work(packets[i]!);
  return Number(process.hrtime.bigint() - start) / (20 * 256);
}

function walk({ program, hits }: Case) {
  return ({ packet, bytes }: Case["packets"][number]) => {
    sum += classify(program, packet, bytes, bytes.length, true, hits, out);
  };
}

function whole({ program, hits }: Case) {
  return ({ bytes }: Case["packets"][number]) => {
    parse(bytes, 0, bytes.length, 0x0800, 0, scratch);
    sum += classify(program, scratch, bytes, bytes.length, true, hits, out) + hashKey(scratch, 0);
  };
}

const size = Number(process.argv[2] ?? 2_000);
const rounds = Number(process.argv[3] ?? 200);
/** How many of the shapes, those that people have first; the others take their time to compile. */
const shown = Number(process.argv[4] ?? Object.keys(shapes).length);
const tries = size > 2_000 ? 2 : 12;
const cases = Object.entries(shapes)
  .slice(0, shown)
  .map(([shape, make]) => ({ shape, make, one: prepare(make, 1), many: prepare(make, size) }));
// All shapes run through the same, optimised code before any is measured.
for (const { one, many } of cases) for (const each of [one, many]) for (let i = 0; i < 20; i++) time(each, whole(each));
const figures = cases.map(({ shape, make, one, many }) => {
  const compare = (work: (of: Case) => (packet: Case["packets"][number]) => void) => {
    const least = { one: Number.POSITIVE_INFINITY, many: Number.POSITIVE_INFINITY };
    for (let i = 0; i < rounds; i++) {
      least.one = Math.min(least.one, time(one, work(one)));
      least.many = Math.min(least.many, time(many, work(many)));
    }
    return { one: round(least.one), many: round(least.many), ratio: round(least.many / least.one) };
  };
  const [packetNs, walkNs] = [compare(whole), compare(walk)];
  const kib = Math.round(many.program.length / 256);
  return { shape, rules: size, packetNs, walkNs, ...compileTimes(make, size, tries), kib };
});
if (sum === 0) throw new Error("no packet found its rule");
process.stdout.write(JSON.stringify(figures));
