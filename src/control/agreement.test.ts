import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, expect, test } from "vitest";
import type { Configuration, Flow, Stream, Target, Vip } from "#model";
import { readFlows, readStreamTable } from "#tables";
import { toDesired } from "./desired.js";
import { assignOffsets, type Offsets } from "./offsets.js";
import { Publisher } from "./publish.js";
import { judge, NOBODY } from "./targets.js";

const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

/** What one load balancer does with what it learns, but for the kernel. */
class Instance {
  readonly #folder = mkdtempSync(join(tmpdir(), "agreement-"));
  readonly #publisher = new Publisher({ folder: this.#folder, flowsName: "flows", countOf: () => 0 });
  #offsets: Offsets = new Map();
  #judgement = NOBODY;

  readonly #placement: { readonly start: number; readonly isByName: boolean };

  constructor(isByName = false) {
    this.#placement = { start: 5_000, isByName };
    folders.push(this.#folder);
  }

  learn(configuration: Configuration): void {
    this.#offsets = assignOffsets(configuration.streams, this.#offsets, this.#placement).offsets;
    const desired = toDesired(configuration, this.#offsets, {
      queue: { first: 0, last: 0, isFanout: false },
      targetInterfaces: null,
    });
    this.#judgement = judge(desired.targets, this.#judgement, new Map(), 0);
    expect(this.#publisher.publish(desired, this.#judgement.served).failures).toEqual([]);
  }

  /** Rules and, by stream, position → target index and target index → fwmark, as the data plane reads them. */
  inForce(streams: readonly Stream[]) {
    const tables = streams.map(({ name }) => readStreamTable(this.#folder, `tshm-${name}`));
    return {
      rules: readFlows(this.#folder, "flows").rules.map(({ rule }) => rule),
      lookups: tables.map(({ lookup }) => [...lookup]),
      marks: tables.map(({ active }) => [...active]),
    };
  }
}

const STREAMS: readonly Stream[] = ["api", "mail", "web"].map((name, i) => ({ name, conduit: "c", maxTargets: 3 + i }));
const VIPS: readonly Vip[] = [1, 2, 3].map((n) => ({ name: `v${n}`, prefix: `20.0.0.${n}/32` }));
const anyTargets = fc.uniqueArray(
  fc.record({ stream: fc.constantFrom("api", "mail", "web"), identifier: fc.integer({ min: 1, max: 3 }) }),
  { selector: ({ stream, identifier }) => `${stream} ${identifier}` },
);
const anyFlows = fc.uniqueArray(
  fc.record({
    stream: fc.constantFrom("api", "mail", "web"),
    name: fc.constantFrom("f1", "f2"),
    priority: fc.integer({ min: 1, max: 2 }),
  }),
  { selector: ({ stream, name }) => `${stream} ${name}` },
);
const anyConfiguration = (streams: readonly Stream[]) =>
  fc.tuple(anyTargets, anyFlows).map(([targets, flows]): Configuration => {
    const isThere = ({ stream }: { readonly stream: string }) => streams.some(({ name }) => name === stream);
    const toFlow = (flow: (typeof flows)[number]): Flow => ({
      ...flow,
      protocols: ["tcp"],
      vips: VIPS,
      sourcePrefixes: [],
      destinationPorts: ["80"],
      sourcePorts: [],
      byteMatches: [],
    });
    const toTarget = (target: (typeof targets)[number]): Target => ({ ...target, addresses: ["172.16.0.9"] });
    return {
      conduit: { name: "c", trench: "t", portNats: [] },
      vips: VIPS,
      streams,
      // In the order in which room nsp gives them, whatever the order on the wire: by stream and name or identifier.
      flows: flows
        .filter(isThere)
        .map(toFlow)
        .toSorted((a, b) => (`${a.stream}\n${a.name}` < `${b.stream}\n${b.name}` ? -1 : 1)),
      targets: targets.filter(isThere).map(toTarget),
    };
  });

test("whatever else came and went in whatever order: with the same streams the tables, marks and rules are the same", () => {
  const histories = fc.array(anyConfiguration(STREAMS), { maxLength: 6 });
  const holds = fc.property(histories, histories, anyConfiguration(STREAMS), (past, otherPast, now) => {
    const one = new Instance();
    const other = new Instance();
    for (const configuration of [...past, now]) one.learn(configuration);
    const reversed = { ...now, targets: now.targets.toReversed(), streams: now.streams.toReversed() };
    for (const configuration of [...otherPast, reversed]) other.learn(configuration);
    expect(other.inForce(STREAMS)).toEqual(one.inForce(STREAMS));
  });
  fc.assert(holds, { numRuns: 40 });
});

test("the same lists of streams one after the other, each in its own order and with any targets and flows: all of it is the same", () => {
  const both = (streams: readonly Stream[]) =>
    fc.tuple(anyConfiguration(streams), anyConfiguration(streams.toReversed()));
  const anyPast = fc.array(fc.subarray([...STREAMS]).chain(both), { maxLength: 6 });
  const holds = fc.property(anyPast, anyConfiguration(STREAMS), (past, now) => {
    const one = new Instance();
    const other = new Instance();
    for (const [configuration, reversed] of past) {
      one.learn(configuration);
      other.learn(reversed);
    }
    one.learn(now);
    other.learn({ ...now, streams: now.streams.toReversed(), targets: now.targets.toReversed() });
    expect(other.inForce(STREAMS)).toEqual(one.inForce(STREAMS));
  });
  fc.assert(holds, { numRuns: 40 });
});

const anyHistory = fc.array(fc.subarray([...STREAMS]).chain(anyConfiguration), { maxLength: 6 });

test("with places by name also when streams came and went in different orders", () => {
  const holds = fc.property(anyHistory, anyHistory, anyConfiguration(STREAMS), (past, otherPast, now) => {
    const one = new Instance(true);
    const other = new Instance(true);
    for (const configuration of [...past, now]) one.learn(configuration);
    for (const configuration of [...otherPast, now]) other.learn(configuration);
    expect(other.inForce(STREAMS)).toEqual(one.inForce(STREAMS));
  });
  fc.assert(holds, { numRuns: 40 });
});

test("without, the lookup tables and rules are the same even then; only the marks' bases may differ", () => {
  const holds = fc.property(anyHistory, anyHistory, anyConfiguration(STREAMS), (past, otherPast, now) => {
    const one = new Instance();
    const other = new Instance();
    for (const configuration of [...past, now]) one.learn(configuration);
    for (const configuration of [...otherPast, now]) other.learn(configuration);
    const [a, b] = [one.inForce(STREAMS), other.inForce(STREAMS)];
    expect(b.lookups).toEqual(a.lookups);
    expect(b.rules).toEqual(a.rules);
    for (const [i, marks] of a.marks.entries()) {
      const bases = new Set(marks.flatMap((mark, index) => (mark < 0 ? [] : [b.marks[i]![index]! - mark])));
      expect(bases.size).toBeLessThanOrEqual(1);
    }
  });
  fc.assert(holds, { numRuns: 40 });
});
