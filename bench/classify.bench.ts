// Question: what does it cost to find a packet's rule with 1 and with many rules, and how long does a change of rules take?
// Of packets three figures: a packet's classification as the data plane does it, from its bytes to rule and hash, over 256 packets; the
// same of each packet by itself, of which the worst is shown; and the walk through the compiled rules alone. One rule and many are
// measured in turns, the least of many rounds counts: other load on the machine hits both. Of changes: compiling rules never seen
// before; one rule changed by the flow socket and by the control plane, from the rule to the moment when it is in force.
// Prints one JSON array. Arguments: rules, rounds, number of shapes. Run bundled (the unit tests do): a transpiling runner
// would be measured instead.
import { mkdtempSync, rmSync, statfsSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { mergeFlows } from "#control";
import { Classification, classify, compile, type FlowParams, type FlowRule, parseFlowRule, setFlow } from "#flow";
import { hashKey, Packet, parse } from "#packet";
import { MappedFile } from "#sys";
import { ensureFlows, readFlows, updateFlows } from "#tables";
import { randomNumbers } from "../test/harness/random.js";

/** Where regions are in operation, if it holds the largest set here twice. */
const SHM = "/dev/shm";
const ROOM_BYTES = 256 << 20;
const { bavail, bsize } = statfsSync(SHM);
const folder = mkdtempSync(join(bavail * bsize > ROOM_BYTES ? SHM : tmpdir(), "classify-"));
let files = 0;
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
  "16 IPv4 and 16 IPv6 VIPs, port ranges": (i) => ({
    protocols: i % 2 === 0 ? "udp" : "tcp",
    priority: String(i % 7),
    dsts: Array.from({ length: 16 }, (_, k) => {
      const v4 = `10.${(i >> 4) & 255}.${((i & 15) << 4) | k}.${1 + (i >> 12)}/32`;
      return `${v4},2001:db8:${i.toString(16)}::${k.toString(16)}/128`;
    }).join(","),
    dports: `${1000 + (i % 50) * 10}-${1000 + (i % 50) * 10 + 15},80,443,8000-8100`,
  }),
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
  const program = aligned(compile(rules, [...rules.keys()]));
  const packets = Array.from({ length: 256 }, (_, i) => packetFor(rules[Math.floor((i * n) / 256)]!, i));
  return { program, packets, hits: new Float64Array(n) };
}

/** The program at the start of a page, as the data plane maps it. */
function aligned(program: Int32Array): Int32Array {
  const file = MappedFile.create(join(folder, String(files++)), program.byteLength); // lives as long as this process
  const copy = new Int32Array(file.buffer);
  copy.set(program);
  return copy;
}

function milliseconds(work: () => void): number {
  const start = performance.now();
  work();
  return performance.now() - start;
}

/** ms to compile n rules that were never seen before, the least of some tries. */
function compileTime(make: (i: number) => FlowParams, n: number, tries: number): number {
  let least = Number.POSITIVE_INFINITY;
  const deadline = performance.now() + PATIENCE_MS;
  for (let i = 0; i < tries && (i === 0 || performance.now() < deadline); i++) {
    const rules = makeRules(make, n);
    const slots = [...rules.keys()];
    least = Math.min(
      least,
      milliseconds(() => compile(rules, slots)),
    );
  }
  return round(least);
}

/** ms to change one of n rules in shared memory, the least of some tries: by the flow socket, by the control plane. */
function changeTimes(make: (i: number) => FlowParams, n: number, tries: number) {
  const name = `flows-${files++}`;
  ensureFlows(folder, name);
  const put = (change: (rules: readonly FlowRule[]) => readonly FlowRule[]) =>
    updateFlows(folder, name, change, () => 0);
  const rules = makeRules(make, n);
  put(() => rules);
  let [changeMs, mergeMs] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  const deadline = performance.now() + PATIENCE_MS;
  for (let i = 0; i < tries && (i === 0 || performance.now() < deadline); i++) {
    const at = random(n);
    const params = { name: `f${at}`, target: "s", ...make(at) };
    const set = () => put((present) => setFlow(present, parseFlowRule({ ...params, dports: `${7 + i}` })));
    changeMs = Math.min(changeMs, milliseconds(set));
    const wanted = readFlows(folder, name).rules.map(({ rule }) => rule);
    const other = random(n);
    const changed = wanted.with(other, { ...wanted[other]!, destinationPorts: [{ first: 7 + i, last: 7 + i }] });
    mergeMs = Math.min(
      mergeMs,
      milliseconds(() => put((present) => mergeFlows(present, changed))),
    );
  }
  const shmKib = statSync(join(folder, name)).blocks / 2;
  rmSync(join(folder, name));
  return { changeMs: round(changeMs), mergeMs: round(mergeMs), shmKib };
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

/** How long one measurement of compiling may be repeated. */
const PATIENCE_MS = 700;
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

/** ns of each packet by itself, again and again: the least of the rounds so far. */
function timeEach({ packets }: Case, work: (packet: Case["packets"][number]) => void, least: number[]): void {
  for (let i = 0; i < 256; i++) {
    const start = process.hrtime.bigint();
    for (let repeat = 0; repeat < 64; repeat++) work(packets[i]!);
    least[i] = Math.min(least[i] ?? Number.POSITIVE_INFINITY, Number(process.hrtime.bigint() - start) / 64);
  }
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
const tries = size > 2_000 ? 2 : 20;
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
  const each = { one: [] as number[], many: [] as number[] };
  for (let i = 0; i < rounds / 4; i++) {
    timeEach(one, whole(one), each.one);
    timeEach(many, whole(many), each.many);
  }
  const mean = (all: number[]) => round(all.reduce((a, b) => a + b) / all.length);
  const worst = (all: number[]) => ({ mean: mean(all), max: round(Math.max(...all)) });
  const [packetNs, walkNs] = [compare(whole), compare(walk)];
  const eachNs = { one: worst(each.one), many: worst(each.many) };
  const compileMs = compileTime(make, size, tries);
  const kib = Math.round(many.program.length / 256);
  return { shape, rules: size, packetNs, walkNs, eachNs, compileMs, ...changeTimes(make, size, tries), kib };
});
rmSync(folder, { recursive: true });
if (sum === 0) throw new Error("no packet found its rule");
process.stdout.write(JSON.stringify(figures));
