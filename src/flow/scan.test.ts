import { expect, test } from "vitest";
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
import { Classification, type CompileLimits, classify, compile, type FlowRule, LIMITS } from "./index.js";

/** Ways of compiling that the limits lead to, with rule sets that a test has time for. */
const WAYS: Record<string, CompileLimits> = {
  "as ever": LIMITS,
  "in parts, with graphs that fit": { ...LIMITS, graphSteps: 3_000, graphStepsPerAsk: 0 },
  "as bit sets": { ...LIMITS, graphSteps: 0, graphStepsPerAsk: 0 },
  "as coarse bit sets": { ...LIMITS, graphSteps: 0, graphStepsPerAsk: 0, vectorWords: 2_000 },
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
