import { create, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { expect, test } from "vitest";
import {
  ConduitResponseSchema,
  FlowResponseSchema,
  StreamResponseSchema,
  VipResponseSchema,
} from "./gen/nsp/v1/configuration_manager_pb.js";
import { TargetSchema } from "./gen/nsp/v1/model_pb.js";
import { TargetResponseSchema } from "./gen/nsp/v1/target_registry_pb.js";
import { Knowledge, keysOf, type Whole } from "./knowledge.js";
import { formatRefusal } from "./refusal.js";
import { isEmptyList, joinList, MalformedAnswer, splitList } from "./wire.js";

const conduit = { name: "c", trench: { name: "t" } };
const conduitAnswer = toBinary(ConduitResponseSchema, create(ConduitResponseSchema, { conduits: [conduit] }));
const streamNames = ["s1", "s2", "s3"];

/** Small alphabets, so that names and identifiers collide and objects are bad now and then. */
const anyVip = fc.record({
  name: fc.constantFrom("v1", "v2", "v3", ""),
  address: fc.constantFrom("10.0.0.1/32", "10.0.0.0/24", "2001:db8::1/128", "10.0.0.1", "x"),
});
const anyStream = fc.record({
  name: fc.constantFrom(...streamNames),
  conduit: fc.constant(conduit),
  maxTargets: fc.constantFrom(0, 2, 100),
});
const anyFlow = fc.record({
  name: fc.constantFrom("f1", "f2", "f3"),
  priority: fc.integer({ min: -2, max: 2 }),
  protocols: fc.subarray(["tcp", "udp", "tipc"]),
  vips: fc.array(anyVip, { maxLength: 2 }),
  destinationPortRanges: fc.subarray(["80", "100-200", "0-65535", "70000"]),
});
const anyTarget = fc.record({
  ips: fc.subarray(["172.16.0.1/24", "172.16.0.2", "fd00::1", "nonsense"]),
  context: fc.constantFrom("1", "2", "3", "101", "x", "").map((identifier) => ({ identifier })),
  status: fc.constantFrom(0, 1),
});
const anyLists = fc.record({
  vips: fc.array(anyVip, { maxLength: 4 }),
  streams: fc.array(anyStream, { maxLength: 4 }),
  flows: fc.tuple(...streamNames.map(() => fc.array(anyFlow, { maxLength: 4 }))),
  targets: fc.tuple(...streamNames.map(() => fc.array(anyTarget, { maxLength: 6 }))),
});
type Lists = typeof anyLists extends fc.Arbitrary<infer T> ? T : never;

/** The answers that tell these lists, by key. */
function toAnswers({ vips, streams, flows, targets }: Lists): [string, Uint8Array][] {
  const answers: [string, Uint8Array][] = [
    ["vips", toBinary(VipResponseSchema, create(VipResponseSchema, { vips }))],
    ["streams", toBinary(StreamResponseSchema, create(StreamResponseSchema, { streams }))],
  ];
  for (const [i, name] of streamNames.entries()) {
    const [flowsKey, targetsKey] = keysOf(name);
    answers.push([flowsKey, toBinary(FlowResponseSchema, create(FlowResponseSchema, { flows: flows[i]! }))]);
    answers.push([targetsKey, toBinary(TargetResponseSchema, create(TargetResponseSchema, { targets: targets[i]! }))]);
  }
  return answers;
}

const shuffled = <T>(list: readonly T[], seeds: readonly number[]) =>
  list
    .map((value, i) => ({ value, by: seeds[i % seeds.length]! * 7919 + i * 31 }))
    .toSorted((a, b) => (a.by % 101) - (b.by % 101))
    .map(({ value }) => value);

test("two that learn the same objects in different order, with different histories, know the same", () => {
  const anySeeds = fc.array(fc.nat(1_000), { minLength: 7, maxLength: 7 });
  const holds = fc.property(anyLists, fc.array(anyLists, { maxLength: 3 }), anySeeds, (final, history, seeds) => {
    const reordered = {
      vips: shuffled(final.vips, seeds),
      streams: shuffled(final.streams, seeds),
      flows: final.flows.map((flows) => shuffled(flows, seeds)),
      targets: final.targets.map((targets) => shuffled(targets, seeds)),
    } as Lists;
    const [one, other] = [new Knowledge("c", true), new Knowledge("c", true)];
    for (const knowledge of [one, other])
      for (const key of ["conduit", "frontends"])
        knowledge.take(key, key === "conduit" ? conduitAnswer : new Uint8Array());
    for (const [key, answer] of history.flatMap(toAnswers)) one.take(key, answer);
    const learn = (knowledge: Knowledge, answers: [string, Uint8Array][]) => {
      // An answer for a stream that is not known is lost, and comes when the stream's watch is opened.
      for (const [key, answer] of [...answers, ...answers]) knowledge.take(key, answer);
    };
    learn(one, toAnswers(final));
    learn(other, shuffled(toAnswers(reordered), seeds));
    expect(other.whole()!.configuration).toEqual(one.whole()!.configuration);
    expect(other.whole()!.refusals.map(formatRefusal)).toEqual(one.whole()!.refusals.map(formatRefusal));
  });
  fc.assert(holds, { numRuns: 300 });
});

/** What is known of streams with their flows, learned in this order. */
function learnFlows(lists: readonly (readonly [stream: string, flows: readonly string[]])[]): Whole {
  const knowledge = new Knowledge("c", true);
  const streams = lists.map(([name]) => ({ name, conduit, maxTargets: 10 }));
  knowledge.take("conduit", conduitAnswer);
  knowledge.take("streams", toBinary(StreamResponseSchema, create(StreamResponseSchema, { streams })));
  for (const key of ["vips", "frontends"]) knowledge.take(key, new Uint8Array());
  for (const [stream, names] of lists) {
    const [flowsKey, targetsKey] = keysOf(stream);
    const flows = names.map((name) => ({ name, vips: [{ name: "v", address: "10.0.0.1/32" }], protocols: ["tcp"] }));
    knowledge.take(flowsKey, toBinary(FlowResponseSchema, create(FlowResponseSchema, { flows })));
    knowledge.take(targetsKey, new Uint8Array());
  }
  return knowledge.whole()!;
}

test("of flows whose rules would have one name the first in the order of streams has it, the others are refused", () => {
  const lists = [
    ["web-tls", ["a", "b"]],
    ["web", ["tls-a", "b"]],
    ["web-tls-a", ["b"]],
    ["web-tls-", ["a"]],
  ] as const;
  const whole = learnFlows(lists);
  expect(whole.configuration.flows.map(({ stream, name }) => `${stream} ${name}`)).toEqual([
    "web b",
    "web tls-a",
    "web-tls b",
    "web-tls- a",
    "web-tls-a b",
  ]);
  const reason = "its rule would be called tshm-web-tls-a as that of flow tls-a of stream web; rename one";
  expect(whole.refusals.map(formatRefusal)).toEqual([`flow a of stream web-tls: name "a": ${reason}`]);
  const other = learnFlows(lists.toReversed());
  expect(other.configuration).toEqual(whole.configuration);
  expect(other.refusals).toEqual(whole.refusals);
  expect(learnFlows(lists.toSpliced(1, 1)).refusals).toEqual([]);
});

test("names of streams are limited in bytes, as those of their tables' files are", () => {
  const longest = "é".repeat(90);
  const { configuration, refusals } = learnFlows([longest, `${longest}x`, "a/b", "a\u001b"].map((name) => [name, []]));
  expect(configuration.streams.map(({ name }) => name)).toEqual([longest]);
  expect(refusals.map(({ object, rule }) => [object, rule])).toEqual([
    ["a\u001b", "no blanks and control characters are allowed"],
    ["a/b", "1..180 bytes without '/' are allowed"],
    [`${longest}x`, "1..180 bytes without '/' are allowed"],
  ]);
});

test("P4: equal answers are recognised; what did not change stays the same object, in any order", () => {
  const targets = Array.from({ length: 50 }, (_, i) =>
    toBinary(TargetSchema, create(TargetSchema, { ips: [`10.0.0.${i}`], context: { identifier: `${i + 1}` } })),
  );
  const knowledge = new Knowledge("c", true);
  const streams = [{ name: "s1", conduit, maxTargets: 100 }];
  knowledge.take("streams", toBinary(StreamResponseSchema, create(StreamResponseSchema, { streams })));
  for (const key of ["vips", "frontends", "flows/s1"]) knowledge.take(key, new Uint8Array());
  knowledge.take("conduit", conduitAnswer);
  expect(knowledge.take("targets/s1", joinList(targets))).toBe(true);
  const first = knowledge.whole()!;
  expect(first.configuration.targets).toHaveLength(50);
  expect(knowledge.take("targets/s1", joinList(targets))).toBe(false);
  expect(knowledge.take("targets/s1", joinList(targets.toReversed()))).toBe(false);
  expect(knowledge.whole()!.configuration).toBe(first.configuration);
  expect(knowledge.take("targets/s1", joinList(targets.toSpliced(7, 1)))).toBe(true);
  const second = knowledge.whole()!.configuration;
  expect(second.targets).toEqual(first.configuration.targets.toSpliced(7, 1));
  expect(second.targets.every((target) => first.configuration.targets.includes(target))).toBe(true);
  expect(second.vips).toBe(first.configuration.vips);
});

test("another maxTargets of a stream decides again about the targets it already has", () => {
  const knowledge = new Knowledge("c", true);
  const setMax = (maxTargets: number) => {
    const streams = [{ name: "s1", conduit, maxTargets }];
    return knowledge.take("streams", toBinary(StreamResponseSchema, create(StreamResponseSchema, { streams })));
  };
  setMax(2);
  const targets = [{ ips: ["10.0.0.3"], context: { identifier: "3" } }];
  knowledge.take("targets/s1", toBinary(TargetResponseSchema, create(TargetResponseSchema, { targets })));
  for (const key of ["vips", "frontends", "flows/s1"]) knowledge.take(key, new Uint8Array());
  knowledge.take("conduit", conduitAnswer);
  expect(knowledge.whole()).toMatchObject({ configuration: { targets: [] }, refusals: [{ value: "3" }] });
  setMax(3);
  expect(knowledge.whole()).toMatchObject({ configuration: { targets: [{ identifier: 3 }] }, refusals: [] });
});

test("IPv4 addresses that come mapped into IPv6 are IPv4; every address is written as the kernel writes it", () => {
  const knowledge = new Knowledge("c", true);
  const vips = [
    { name: "a", address: "::ffff:10.0.0.7/128" },
    { name: "b", address: "::ffff:10.1.2.3/112" },
    { name: "c", address: "2001:DB8:0::0001/128" },
  ];
  const streams = [{ name: "s1", conduit, maxTargets: 10 }];
  const ips = ["FD16:0::12/64", "::ffff:172.16.0.12/120"];
  const targets = [{ ips, context: { identifier: "2" } }];
  const flows = [{ name: "f", protocols: ["tcp"], vips: vips.slice(0, 1) }];
  knowledge.take("vips", toBinary(VipResponseSchema, create(VipResponseSchema, { vips })));
  knowledge.take("streams", toBinary(StreamResponseSchema, create(StreamResponseSchema, { streams })));
  knowledge.take("flows/s1", toBinary(FlowResponseSchema, create(FlowResponseSchema, { flows })));
  knowledge.take("targets/s1", toBinary(TargetResponseSchema, create(TargetResponseSchema, { targets })));
  knowledge.take("frontends", new Uint8Array());
  knowledge.take("conduit", conduitAnswer);
  expect(knowledge.whole()).toMatchObject({
    configuration: {
      vips: [{ prefix: "10.0.0.7/32" }, { prefix: "10.1.0.0/16" }, { prefix: "2001:db8::1/128" }],
      flows: [{ vips: [{ prefix: "10.0.0.7/32" }] }],
      targets: [{ addresses: ["172.16.0.12", "fd16::12"], ips }],
    },
    refusals: [],
  });
});

test("any number of conduits but one changes nothing; an unknown field in any object neither", () => {
  const knowledge = new Knowledge("c", true);
  const two = create(ConduitResponseSchema, { conduits: [conduit, { ...conduit, name: "d" }] });
  expect(knowledge.take("conduit", new Uint8Array())).toBe(false);
  expect(knowledge.take("conduit", toBinary(ConduitResponseSchema, two))).toBe(false);
  expect(knowledge.take("conduit", conduitAnswer)).toBe(true);
  const unknown = Buffer.from("9a0603616263", "hex"); // field 99, three bytes
  const vip = Buffer.concat([Buffer.from("0a0176120b31302e302e302e312f3332", "hex"), unknown]); // v, 10.0.0.1/32
  expect(knowledge.take("vips", Buffer.concat([joinList([vip]), unknown]))).toBe(true);
  for (const key of ["streams", "frontends"]) knowledge.take(key, new Uint8Array());
  expect(knowledge.whole()!.configuration.vips).toEqual([{ name: "v", prefix: "10.0.0.1/32" }]);
});

test("bytes that are no object are refused alone, bytes that are no answer as a whole; nothing else is thrown", () => {
  const knowledge = new Knowledge("c", true);
  const good = Buffer.from("0a0176120b31302e302e302e312f3332", "hex");
  knowledge.take("vips", joinList([good, Buffer.from("0aff", "hex")]));
  for (const key of ["streams", "frontends"]) knowledge.take(key, new Uint8Array());
  knowledge.take("conduit", conduitAnswer);
  expect(knowledge.whole()).toMatchObject({
    configuration: { vips: [{ name: "v" }] },
    refusals: [{ kind: "VIP", field: "bytes", value: "2" }],
  });
  const holds = fc.property(
    fc.uint8Array({ maxLength: 60 }),
    fc.constantFrom("conduit", "vips", "streams"),
    (bytes, key) => {
      try {
        new Knowledge("c", true).take(key, bytes);
      } catch (error) {
        expect(error).toBeInstanceOf(MalformedAnswer);
      }
    },
  );
  fc.assert(holds, { numRuns: 2_000 });
});

test("a list taken apart and joined is the same list", () => {
  const holds = fc.property(fc.array(fc.uint8Array({ maxLength: 300 })), (items) => {
    const bytes = joinList(items);
    expect(splitList(bytes).map((item) => [...item])).toEqual(items.map((item) => [...item]));
    expect(isEmptyList(bytes)).toBe(items.length === 0);
  });
  fc.assert(holds);
});
