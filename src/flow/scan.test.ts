import { expect, test } from "vitest";
import { parseAddress } from "#model";
import { Packet, parse } from "#packet";
import { randomNumbers } from "../../test/harness/random.js";
import {
  KINDS,
  packetNear,
  type RandomPacket,
  randomParams,
  randomRules,
  tryParse,
} from "../../test/harness/random-flows.js";
import { scan } from "../../test/oracle/flow-scan.js";
import {
  Classification,
  type CompileLimits,
  classify,
  compile,
  type FlowRule,
  type ItemMemory,
  LIMITS,
  parseFlowRule,
  setFlow,
} from "./index.js";

/** Ways of compiling that the limits lead to, with rule sets that a test has time for. */
const WAYS: Record<string, CompileLimits> = {
  "as ever": LIMITS,
  "with sets written whole": { ...LIMITS, listedOfFewPorts: 0, shared: 0, copies: 60, listed: 2 },
  "as chains of single rules": {
    ...LIMITS,
    listedOfFewPorts: 0,
    copies: 0,
    copiesBesides: 0,
    listed: 1,
    nested: 1_000,
    chained: 0,
    untested: 0,
    untestedOfFewPorts: 0,
  },
  "by sources where destinations are nested, and the other way round": {
    ...LIMITS,
    listedOfFewPorts: 0,
    copies: 0,
    copiesBesides: 0,
    listed: 2,
    nested: 1,
    untested: 1,
    untestedOfFewPorts: 1,
  },
  "as chains of few parts": { ...LIMITS, copies: 0, copiesBesides: 0, listed: 2, nested: 1_000, chained: 100_000 },
  "as chains of lists": { ...LIMITS, copies: 0, copiesBesides: 0, untested: 8 },
};

/** Compares rule, port of encapsulated SCTP and counters with the plain scan. */
function expectSame(
  rules: readonly FlowRule[],
  program: Int32Array,
  packets: readonly RandomPacket[],
  isPing: boolean,
) {
  const packet = new Packet();
  const out = new Classification();
  for (const { etherType, bytes } of packets) {
    for (const encap of [0, 9899]) {
      if (parse(bytes, 0, bytes.length, etherType, encap, packet) < 0) continue;
      const hits = new Float64Array(rules.length);
      const rule = classify(program, packet, bytes, bytes.length, isPing, hits, out);
      const counted = [...hits].flatMap((n, i) => (n === 0 ? [] : n === 1 ? [i] : [i, n]));
      const want = scan(rules, packet, bytes, bytes.length, isPing);
      expect({ rule, udpEncapPort: out.udpEncapPort, hits: counted }).toEqual(want);
    }
  }
}

test.each(Object.entries(WAYS))(
  "compiled %s, rules of all kinds answer what the scan answers",
  { timeout: 60_000 },
  (_, limits) => {
    for (const [k, kind] of KINDS.entries()) {
      for (const count of [1, 2, 3, 7, 20, 60, 150, 300]) {
        const random = randomNumbers(1 + k * 1_000 + count);
        const rules = randomRules(kind, count, random);
        const program = compile(rules, [...rules.keys()], limits);
        const packets = Array.from({ length: 60 }, () => packetNear(rules, random));
        expectSame(rules, program, packets, random(2) === 0);
      }
    }
  },
);

test("20,000 rules of several kinds compile and answer what the scan answers", { timeout: 120_000 }, () => {
  for (const kind of ["mixed", "wide", "one-field"] as const) {
    const random = randomNumbers(20_000);
    const rules = Array.from({ length: 25_000 }, (_, i) =>
      tryParse({ ...randomParams(kind, i, random), name: `r${i}` }),
    )
      .flatMap((rule) => rule ?? [])
      .slice(0, 20_000)
      .sort((a, b) => b.priority - a.priority);
    expect(rules).toHaveLength(20_000);
    const program = compile(rules, [...rules.keys()]);
    const packets = Array.from({ length: 40 }, () => packetNear(rules, random));
    expectSame(rules, program, packets, true);
  }
});

test("rules that need more words than a program has are refused, whatever needs them; those before them fit", () => {
  for (const kind of KINDS) {
    const rules = randomRules(kind, 300, randomNumbers(KINDS.indexOf(kind) + 1));
    const whole = compile(rules, [...rules.keys()]);
    const within = (words: number) => () => compile(rules, [...rules.keys()], { ...LIMITS, words });
    expect(within(whole.length)()).toEqual(whole);
    for (const words of [whole.length - 1, whole.length >> 1, 40])
      expect(within(words)).toThrowError(expect.objectContaining({ code: "ERR_TOO_MANY_RULES" }));
  }
});

test("after any history of changes the rules answer what the scan answers, and are what a compilation from scratch gives", {
  timeout: 60_000,
}, () => {
  const memory: ItemMemory = new Map();
  const random = randomNumbers(7);
  const prefixes = (count: number) =>
    Array.from({ length: count }, () =>
      random(3) === 0
        ? `2001:db8:${random(4)}:${random(4)}::${random(64).toString(16)}/${[128, 128, 64, 48][random(4)]}`
        : `10.${random(4)}.${random(256)}.${random(256)}/${[32, 32, 28, 20][random(4)]}`,
    ).join();
  const anyRule = (name: number) =>
    parseFlowRule({
      name: `f${name}`,
      target: "s",
      priority: String(random(3)),
      dsts: prefixes(32),
      ...(random(3) === 0 ? { srcs: prefixes(32) } : {}),
      ...(random(2) === 0 ? { dports: `${1 + random(100)}-${200 + random(60_000)}` } : {}),
    });
  let rules: readonly FlowRule[] = [];
  for (let i = 0; i < 150; i++) rules = setFlow(rules, anyRule(i));
  for (let step = 0; step < 60; step++) {
    const kind = random(10);
    if (kind === 0) rules = rules.filter((rule) => rule.name !== `f${random(150)}`);
    else if (kind === 1) rules = rules.map((rule) => (random(20) === 0 ? anyRule(Number(rule.name.slice(1))) : rule));
    else if (kind === 2) rules = rules.toReversed();
    else rules = setFlow(rules, anyRule(random(160)));
    const slots = rules.map((_, i) => (i * 7) % rules.length);
    const program = compile(rules, slots, LIMITS, memory);
    expect(memory.size).toBeGreaterThan(0); // there is something to be merged with
    expect(program.length).toBeGreaterThan(0);
    expect(Buffer.compare(bytesOf(program), bytesOf(compile(rules.map(copyOf), slots)))).toBe(0);
    if (step % 6 > 0) continue;
    const packets = Array.from({ length: 20 }, () => packetNear(rules, random));
    expectSame(rules, compile(rules, [...rules.keys()], LIMITS, memory), packets, random(2) === 0);
  }
});

/** A rule that no cache knows. */
const copyOf = (rule: FlowRule): FlowRule => structuredClone(rule);

function bytesOf({ buffer, byteOffset, byteLength }: Int32Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

test("IPv6 packets with IPv4 addresses: one or both of them", () => {
  const rule = (name: string, rest: object) => parseFlowRule({ name, target: "s", ...rest });
  const rules = [
    rule("both", { dsts: "10.0.0.1/32,10.0.0.2/32", srcs: "192.0.2.0/24" }),
    rule("to", { dsts: "10.0.0.1/32,10.0.0.3/32,10.0.0.4/32,10.0.0.5/32", srcs: "2001:db8::/32" }),
    rule("from", { dsts: "2001:db8::/64", srcs: "192.0.2.1/32" }),
    rule("any", { dsts: "::/0", srcs: "2001:db8:1::/48" }),
    ...Array.from({ length: 40 }, (_, i) =>
      rule(`v${i}`, { dsts: `10.0.1.${i}/32,2001:db8:1::${i.toString(16)}/128` }),
    ),
  ];
  const toIpv4 = [
    rule("one", { dsts: "10.0.0.1/32" }),
    rule("two", { dsts: "10.0.1.0/29,10.0.0.3/32" }),
    ...Array.from({ length: 20 }, (_, i) => rule(`six${i}`, { dsts: `2001:db8:1::${i.toString(16)}/128` })),
  ];
  const v4 = ["10.0.0.1", "10.0.0.3", "10.0.1.7", "192.0.2.1", "8.8.8.8"].map((text) => parseAddress(text));
  const v6 = ["2001:db8::1", "2001:db8:1::7", "2001:db8:1:2::3", "fe80::1"].map((text) => parseAddress(text));
  for (const some of [rules, rules.slice(4), toIpv4]) {
    const program = compile(some, [...some.keys()]);
    const all = [...v4, ...v6];
    const head = [0x60, 0, 0, 0, 0, 20, 6, 64];
    const packets = all.flatMap((from) =>
      all.map((to) => ({ etherType: 0x86dd, bytes: new Uint8Array([...head, ...from, ...to, ...new Uint8Array(20)]) })),
    );
    expectSame(some, program, packets, false);
  }
});

// Found by search: in a part of a chain all rules ask for a source port, and none has one.
test("a part of a set whose rules take no packet at all leaves the rest as it is", () => {
  const random = randomNumbers(130_150);
  const rules = randomRules("mixed", 150, random);
  const packets = Array.from({ length: 60 }, () => packetNear(rules, random));
  for (const limits of Object.values(WAYS))
    expectSame(rules, compile(rules, [...rules.keys()], limits), packets, false);
});
