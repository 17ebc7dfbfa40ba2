// Question: what does it cost to find a packet's rule with 1 and with many rules, and how long does compiling take?
// Two figures: a packet's classification as the data plane does it, from its bytes to rule and hash, and the walk through
// the compiled rules alone, whose cost with many rules is that of their memory. Prints one JSON array. Run bundled (`node scripts/bench.mjs classify [rules]`): a transpiling runner would be measured instead.
import { Classification, classify, compile, type FlowParams, type FlowRule, parseFlowRule } from "#flow";
import { hashKey, Packet, parse } from "#packet";

/** Rule sets of n rules in shapes that people have. */
const shapes: Record<string, (n: number) => readonly FlowParams[]> = {
  "many VIPs, one port each": (n) =>
    Array.from({ length: n }, (_, i) => ({
      name: `f${i}`,
      target: "s",
      protocols: "tcp",
      dsts: `10.${i >> 8}.${i & 255}.1/32,2001:db8:${i.toString(16)}::1/128`,
      dports: "80",
    })),
  "one VIP, a port each": (n) =>
    Array.from({ length: n }, (_, i) => ({
      name: `f${i}`,
      target: "s",
      protocols: "tcp,udp",
      dsts: "10.0.0.1/32",
      dports: `${1000 + i * 3}`,
    })),
  "VIPs, port ranges, sources, priorities": (n) =>
    Array.from({ length: n }, (_, i) => ({
      name: `f${i}`,
      target: `s${i % 100}`,
      priority: `${i % 7}`,
      protocols: i % 3 === 0 ? "udp" : "tcp",
      dsts: `10.1.${i % 200}.0/${24 + (i % 9)}`,
      dports: `${1000 + (i % 50) * 10}-${1000 + (i % 50) * 10 + 15}`,
      ...(i % 5 === 0 ? { srcs: `192.${i % 250}.0.0/16` } : {}),
    })),
};

/** ns per classification of packets that hit rules all over the set; the least of several rounds, for a busy machine. */
function nanoseconds(
  params: readonly FlowParams[],
  rounds: number,
): { walkNs: number; packetNs: number; compileMs: number } {
  let rules: readonly FlowRule[] = params.map((one) => parseFlowRule(one));
  rules = rules.toSorted((a, b) => b.priority - a.priority);
  const before = performance.now();
  const program = compile(
    rules,
    rules.map((_, i) => i),
  );
  const compileMs = performance.now() - before;
  const count = 256;
  const packets = Array.from({ length: count }, (_, i) => {
    const rule = rules[Math.floor((i * rules.length) / count)]!;
    const packet = new Packet();
    const to = rule.destinations[0]!.address.subarray(12);
    const bytes = new Uint8Array([
      0x45,
      0,
      0,
      40,
      0,
      0,
      0,
      0,
      64,
      rule.protocols[0] === "udp" ? 17 : 6,
      0,
      0,
      192,
      i % 250,
      3,
      4,
      ...to,
      4,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
    ]);
    new DataView(bytes.buffer).setUint16(22, rule.destinationPorts![0]!.first);
    parse(bytes, 0, bytes.length, 0x0800, 0, packet);
    return { packet, bytes };
  });
  const hits = new Float64Array(rules.length);
  const out = new Classification();
  const scratch = new Packet();
  const time = (work: (i: number) => void) => {
    let best = Number.POSITIVE_INFINITY;
    for (let round = 0; round < rounds; round++) {
      const start = process.hrtime.bigint();
      for (let repeat = 0; repeat < 40; repeat++) for (let i = 0; i < count; i++) work(i);
      best = Math.min(best, Number(process.hrtime.bigint() - start) / (40 * count));
    }
    return best;
  };
  let sum = 0;
  const walkNs = time((i) => {
    sum += classify(program, packets[i]!.packet, packets[i]!.bytes, 28, true, hits, out);
  });
  const packetNs = time((i) => {
    const { bytes } = packets[i]!;
    parse(bytes, 0, bytes.length, 0x0800, 0, scratch);
    sum += classify(program, scratch, bytes, bytes.length, true, hits, out) + hashKey(scratch, 0);
  });
  if (sum < 0) throw new Error("no packet found its rule");
  return { walkNs, packetNs, compileMs };
}

const size = Number(process.argv[2] ?? 2_000);
const figures = Object.entries(shapes).map(([shape, make]) => {
  for (const rules of [size, 1]) nanoseconds(make(rules), 30); // both sizes run the same, optimised code
  const many = nanoseconds(make(size), 150);
  const one = nanoseconds(make(1), 150);
  const round = (value: number) => Math.round(value * 100) / 100;
  return {
    shape,
    rules: size,
    packetNs: { one: round(one.packetNs), many: round(many.packetNs), ratio: round(many.packetNs / one.packetNs) },
    walkNs: { one: round(one.walkNs), many: round(many.walkNs), ratio: round(many.walkNs / one.walkNs) },
    compileMs: round(many.compileMs),
  };
});
process.stdout.write(JSON.stringify(figures));
