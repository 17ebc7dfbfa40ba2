// Question: what does the walk through the compiled rules cost at worst, with rule sets made to hurt it? Prints one line per set: mean
// and worst ns of 512 packets at the borders of what rules ask for, the program's size, and how long compiling takes, at first and again
// after one rule was changed. Each answer is compared with the plain scan's. After the named sets comes a search: random ones, of which
// the worst is printed. Arguments: rules, part of the names of sets ($ behind the
// last letter of one), random sets to try, changes of which the fastest counts.
import {
  Classification,
  classify,
  compile,
  type FlowParams,
  type FlowRule,
  type ItemMemory,
  LIMITS,
  parseFlowRule,
} from "#flow";
import { Packet, parse } from "#packet";
import { randomNumbers } from "../test/harness/random.js";
import { scan } from "../test/oracle/flow-scan.js";

const PACKETS = 512;
/** Of so many packets the answer is compared with the scan's. */
const COMPARED = 64;
const TCP = 6;
const MAX_PORT = 65_535;

type Random = (limit: number) => number;
type Shape = (i: number, random: Random) => FlowParams;

const address4 = (random: Random) => `${random(256)}.${random(256)}.${random(256)}.${random(256)}`;
const client = (random: Random) => `10.200.${random(4)}.${random(256)}`;
const vip = (random: Random, vips: number) => `20.${random(vips)}.0.1`;

function prefixes(
  random: Random,
  count: number,
  address: (random: Random) => string,
  least: number,
  most = 32,
): string {
  return Array.from({ length: count }, () => `${address(random)}/${least + random(most + 1 - least)}`).join();
}

function ports(random: Random, count: number, most: number): string {
  return Array.from({ length: count }, () => {
    const first = 1 + random(MAX_PORT - most);
    return `${first}-${first + random(most)}`;
  }).join();
}

/** 32 prefixes each way, of which one is around one of some VIPs, and one around one of many clients. */
const nested =
  (vips: number, range: number): Shape =>
  (_, random) => ({
    priority: `${1 + random(100)}`,
    protocols: "tcp",
    dsts: [prefixes(random, 1, () => vip(random, vips), 12), prefixes(random, 31, address4, 12)].join(),
    srcs: [prefixes(random, 1, client, 12), prefixes(random, 31, address4, 12)].join(),
    ...(range > 0 ? { dports: ports(random, 1, range) } : {}),
  });

const shapes: Record<string, Shape> = {
  "nested both ways, one VIP": nested(1, 5_000),
  "nested both ways, one VIP, no ports": nested(1, 0),
  "nested both ways, one VIP, wide ports": nested(1, 60_000),
  "nested both ways, 50 VIPs": nested(50, 5_000),
  "nested, one prefix each way": (_, random) => ({
    priority: `${random(100)}`,
    protocols: "tcp",
    dsts: prefixes(random, 1, () => vip(random, 1), 12),
    srcs: prefixes(random, 1, client, 12),
    dports: ports(random, 1, 5_000),
  }),
  "nested, one prefix each way, wide ports both ways": (_, random) => ({
    protocols: "tcp",
    dsts: prefixes(random, 1, () => vip(random, 1), 1),
    srcs: prefixes(random, 1, client, 1),
    dports: ports(random, 1, 60_000),
    sports: ports(random, 1, 60_000),
  }),
  "32 prefixes within a /12 each way": (_, random) => ({
    protocols: "tcp",
    dsts: prefixes(random, 32, () => `20.${random(16)}.${random(256)}.${random(256)}`, 12),
    srcs: prefixes(random, 32, () => `10.${random(16)}.${random(256)}.${random(256)}`, 12),
    dports: ports(random, 1, 5_000),
  }),
  "32 random prefixes both ways, no ports": (_, random) => ({
    dsts: prefixes(random, 32, address4, 12),
    srcs: prefixes(random, 32, address4, 12),
  }),
  "32 prefixes of 12 to 32 bits, port ranges": (_, random) => ({
    protocols: "tcp",
    dsts: prefixes(random, 32, address4, 12),
    srcs: prefixes(random, 32, address4, 12),
    dports: ports(random, 1, 5_000),
  }),
  "random prefixes of all lengths, port ranges": (_, random) => ({
    priority: `${random(100)}`,
    protocols: "tcp",
    dsts: prefixes(random, 1, address4, 1),
    srcs: prefixes(random, 1, address4, 1),
    dports: ports(random, 1, 5_000),
  }),
  "each asks in one field": (i) =>
    [
      { dsts: `10.${i >> 8}.${i & 255}.1/32` },
      { srcs: `10.${i >> 8}.${i & 255}.1/32` },
      { protocols: "tcp", dports: `${1 + i}` },
      { protocols: "tcp", sports: `${1 + i}` },
    ][i % 4]!,
  "prefixes of all lengths, wide ports both ways": (_, random) => ({
    protocols: "tcp",
    dsts: prefixes(random, 1, address4, 1),
    srcs: prefixes(random, 1, address4, 1),
    dports: ports(random, 1, 60_000),
    sports: ports(random, 1, 60_000),
  }),
  "wide ports both ways": (_, random) => ({
    protocols: "tcp",
    dports: ports(random, 1, 60_000),
    sports: ports(random, 1, 60_000),
  }),
  "one VIP, 500 ranges each": (_, random) => ({
    protocols: "tcp",
    dsts: "20.0.0.1/32",
    dports: ports(random, 500, 100),
  }),
  "32 IPv6 prefixes within a /16 each way": (_, random) => {
    const address = () => `2001:${random(65_536).toString(16)}:${random(65_536).toString(16)}::`;
    return {
      protocols: "tcp",
      dsts: prefixes(random, 32, address, 20, 47),
      srcs: prefixes(random, 32, address, 20, 47),
    };
  },
  "bytes of many fields": (_, random) => ({
    protocols: "tcp",
    ...(random(2) === 0 ? { dsts: prefixes(random, 1, () => vip(random, 1), 12) } : {}),
    match: `tcp[${random(17)}:4]&0xff00ff=${random(3)},tcp[${random(17)}:2]=${random(3)}`,
  }),
};

function makeRules(shape: Shape, count: number, random: Random): readonly FlowRule[] {
  const rules = Array.from({ length: count }, (_, i) =>
    parseFlowRule({ name: `f${i}`, target: "s", ...shape(i, random) }),
  );
  return rules.toSorted((a, b) => b.priority - a.priority);
}

/** The last bits of an address as they were, zeros, ones or random behind a prefix; or just outside of it. */
function inside(prefixesOf: FlowRule["sources"], which: number, random: Random): Uint8Array {
  const { address, bits } = prefixesOf[which % prefixesOf.length]!;
  const bytes = address.slice();
  const kind = random(4);
  for (let bit = bits; bit < 128 && kind > 0; bit++) {
    if (kind === 1 || (kind === 2 && random(2) === 1)) bytes[bit >> 3]! |= 0x80 >> (bit & 7);
  }
  if (random(8) === 0 && bits > 96) bytes[(bits - 1) >> 3]! ^= 0x80 >> ((bits - 1) & 7);
  return bytes;
}

type Sent = { readonly packet: Packet; readonly bytes: Uint8Array };

/** A TCP packet whose fields lie at the borders of what one rule asks for, or each of what another one does. */
function packetNear(rules: readonly FlowRule[], random: Random): Sent {
  const rule = () => rules[random(rules.length)]!;
  const one = rule();
  const isMixed = random(2) === 0;
  const of = () => (isMixed ? rule() : one);
  const [from, to, dport, sport] = [of(), of(), of(), of()];
  const which = random(2) === 0 ? 0 : random(32);
  const any = Uint8Array.from({ length: 16 }, (_, i) => (i < 10 ? 0 : i < 12 ? 255 : random(256)));
  const source = from.sources.length > 0 ? inside(from.sources, which, random) : any;
  const destination = to.destinations.length > 0 ? inside(to.destinations, which, random) : any;
  const isV4 = [source, destination].every((bytes) => bytes[0] === 0 && bytes[10] === 255);
  const port = (ranges: FlowRule["sourcePorts"]) => {
    if (ranges === null) return random(MAX_PORT + 1);
    const { first, last } = ranges[random(ranges.length)]!;
    return [first, last, first - 1, last + 1, random(MAX_PORT)][random(5)]! & MAX_PORT;
  };
  const [a, b] = [port(sport.sourcePorts), port(dport.destinationPorts)];
  const l4 = [a >> 8, a & 255, b >> 8, b & 255, ...Array.from({ length: 16 }, () => random(3))];
  const bytes = new Uint8Array(
    isV4
      ? [0x45, 0, 0, 40, 0, 0, 0, 0, 64, TCP, 0, 0, ...source.subarray(12), ...destination.subarray(12), ...l4]
      : [0x60, 0, 0, 0, 0, 20, TCP, 64, ...source, ...destination, ...l4],
  );
  const packet = new Packet();
  parse(bytes, 0, bytes.length, isV4 ? 0x0800 : 0x86dd, 0, packet);
  return { packet, bytes };
}

const out = new Classification();
let sum = 0;

/** Mean and worst ns of the walk, each the least of many rounds. */
function walkTimes(program: Int32Array, packets: readonly Sent[], rules: number, rounds: number) {
  const hits = new Float64Array(rules);
  const walk = ({ packet, bytes }: Sent) => {
    sum += classify(program, packet, bytes, bytes.length, false, hits, out);
  };
  let mean = Number.POSITIVE_INFINITY;
  const each = packets.map(() => Number.POSITIVE_INFINITY);
  for (let round = 0; round < rounds; round++) {
    let start = process.hrtime.bigint();
    for (let repeat = 0; repeat < 4; repeat++) for (const sent of packets) walk(sent);
    mean = Math.min(mean, Number(process.hrtime.bigint() - start) / (4 * packets.length));
    for (const [i, sent] of packets.entries()) {
      start = process.hrtime.bigint();
      for (let repeat = 0; repeat < 16; repeat++) walk(sent);
      each[i] = Math.min(each[i]!, Number(process.hrtime.bigint() - start) / 16);
    }
  }
  return { mean: Math.round(mean), worst: Math.round(Math.max(...each)) };
}

function measure(shape: Shape, count: number, seed: number, rounds: number, changes: number) {
  const random = randomNumbers(seed);
  const rules = makeRules(shape, count, random);
  const slots = [...rules.keys()];
  const memory: ItemMemory = new Map();
  const start = performance.now();
  const program = compile(rules, slots, LIMITS, memory).slice();
  const compileMs = Math.round(performance.now() - start);
  const packets = Array.from({ length: PACKETS }, () => packetNear(rules, random));
  const hits = new Float64Array(count);
  for (const { packet, bytes } of packets.slice(0, COMPARED)) {
    const found = classify(program, packet, bytes, bytes.length, false, hits, out);
    const { rule } = scan(rules, packet, bytes, bytes.length, false);
    if (found !== rule) throw new Error(`rule ${found} instead of ${rule}`);
  }
  let changeMs = Number.POSITIVE_INFINITY;
  for (let i = 0; i < changes; i++) {
    const at = random(count);
    const changed = rules.with(at, { ...rules[at]!, destinationPorts: [{ first: 7 + i, last: 7 + i }] });
    const begin = performance.now();
    compile(changed, slots, LIMITS, memory);
    changeMs = Math.min(changeMs, performance.now() - begin);
  }
  const mib = Math.round((program.byteLength / 2 ** 20) * 10) / 10;
  return { ...walkTimes(program, packets, count, rounds), mib, compileMs, changeMs: Math.round(changeMs) };
}

/** A set made of a few choices, none of which anybody took. */
function anyShape(random: Random): { readonly name: string; readonly shape: Shape } {
  const pick = <T>(values: readonly T[]) => values[random(values.length)]!;
  const side = () => ({
    count: pick([0, 1, 1, 2, 32]),
    hot: pick([0, 1, 1]),
    hots: pick([1, 3, 50, 1_000]),
    least: pick([1, 8, 12, 20, 28]),
    others: pick([1, 12, 24, 32]),
  });
  const [to, from] = [side(), side()];
  const range = () => ({
    share: pick([0, 50, 100, 100]),
    count: pick([1, 1, 6, 40]),
    most: pick([1, 100, 5_000, 60_000]),
  });
  const [dports, sports] = [range(), pick([range(), { share: 0, count: 1, most: 1 }])];
  const priorities = pick([1, 100, 100_000]);
  const asks = ({ count, hot, hots, least, others }: ReturnType<typeof side>, net: number, draw: Random) =>
    [
      ...(hot > 0 && count > 0
        ? [prefixes(draw, 1, () => `${net}.${draw(hots) >> 8}.${draw(hots) & 255}.1`, least)]
        : []),
      ...(count > hot ? [prefixes(draw, count - hot, address4, others)] : []),
    ].join();
  const shape: Shape = (_, draw) => ({
    priority: `${draw(priorities)}`,
    protocols: pick(["tcp", "tcp"]),
    ...(to.count > 0 ? { dsts: asks(to, 20, draw) } : {}),
    ...(from.count > 0 ? { srcs: asks(from, 10, draw) } : {}),
    ...(draw(100) < dports.share ? { dports: ports(draw, dports.count, dports.most) } : {}),
    ...(draw(100) < sports.share ? { sports: ports(draw, sports.count, sports.most) } : {}),
  });
  return { name: JSON.stringify({ to, from, dports, sports, priorities }), shape };
}

const size = Number(process.argv[2] ?? 2_000);
const part = process.argv[3] ?? "";
const tries = Number(process.argv[4] ?? 0);
const changes = Number(process.argv[5] ?? (size > 2_000 ? 1 : 5));
const print = (name: string, figures: object) => console.log(`${JSON.stringify(figures)} ${name}`);

for (const [name, shape] of Object.entries(shapes)) {
  if (`${name}$`.includes(part)) print(name, measure(shape, size, 1, 12, changes));
}
let worst = 0;
for (let seed = 1; seed <= tries; seed++) {
  const { name, shape } = anyShape(randomNumbers(1_000 + seed));
  const figures = measure(shape, size, seed, 3, 1);
  if (figures.worst <= worst) continue;
  worst = figures.worst;
  print(`search ${seed} ${name}`, measure(shape, size, seed, 12, 3));
}
if (sum === 0) throw new Error("no packet found a rule");
