import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { type FlowRule, parseFlowRule } from "#flow";
import type { Configuration, Flow, Stream } from "#model";
import { ensureFlows, readFlows, updateFlows } from "#tables";
import { FlowRules, MarkedTargets, toDesired } from "./desired.js";
import { fitFlows } from "./fitting-flows.js";
import { refusedFlows } from "./in-force.js";
import { assignOffsets } from "./offsets.js";
import { Publisher } from "./publish.js";
import { configurationStatus, streamStatus } from "./status.js";

/** Rules that can be in force together. */
const MOST_RULES = 32_768;
const folder = mkdtempSync(join(tmpdir(), "publish-"));
afterAll(() => rmSync(folder, { recursive: true }));

const flow = (name: string, port: string, destinationPorts = [port]): Flow => ({
  name,
  stream: "web",
  priority: 1,
  protocols: ["tcp"],
  vips: [{ name: "v", prefix: "20.0.0.1/32" }],
  sourcePrefixes: [],
  destinationPorts,
  sourcePorts: [],
  byteMatches: [],
});

test("flows that are too much beside the others are refused, with the reason; what is in force stays, and others go on", () => {
  using publisher = new Publisher({ folder, flowsName: "flows", countOf: () => 0 });
  const streams: readonly Stream[] = [{ name: "web", conduit: "c", maxTargets: 2 }];
  const { offsets } = assignOffsets(streams, new Map(), { start: 5_000, isByName: false });
  const web = streamStatus(streams[0]!, 5_000, [], undefined);
  const place = { queue: { first: 0, last: 0, isFanout: false }, targetInterfaces: null };
  const known = { flows: new FlowRules(), targets: new MarkedTargets() };
  const publish = (flows: readonly Flow[]) => {
    const conduit = { name: "c", trench: "t", portNats: [] };
    const configuration: Configuration = { conduit, vips: [], streams, flows, targets: [] };
    const { inForce, failures, isWhole } = publisher.publish(
      toDesired(configuration, offsets, place, known),
      new Set(),
    );
    expect(failures).toEqual([]);
    const { refusedFlows: refused, flows: told } = configurationStatus(configuration, [web], false, inForce);
    expect(refusedFlows(inForce).map(({ name }) => name)).toEqual(refused.map((one) => `tshm-web-${one.flow.name}`));
    expect(isWhole).toBe(refused.length === 0);
    expect(told.length + refused.length).toBe(flows.length);
    return refused.map((one) => `${one.flow.name}: ${one.reason}`);
  };
  const byHand = parseFlowRule({ name: "x", target: "tshm-web", dports: "80" });
  ensureFlows(folder, "flows");
  updateFlows(
    folder,
    "flows",
    () => Array.from({ length: MOST_RULES - 3 }, (_, i) => ({ ...byHand, name: `x${i}` })),
    () => 0,
  );
  const first = [flow("a", "1"), flow("b", "2")];
  expect(publish(first)).toEqual([]);
  const large = flow("large", "", ["1", "3", "5", "7", "9"]);
  const later = [flow("a", "1"), flow("b", "50000"), flow("one", "40000"), large];
  // Of what is new the one that asks for most, and whatever is in force stays.
  expect(publish(later)).toEqual([`large: ${MOST_RULES + 1} rules; at most ${MOST_RULES}`]);
  const rules = () => readFlows(folder, "flows").rules.map(({ rule }) => rule);
  expect(rules().map(({ name }) => name)).toContain("tshm-web-one");
  expect(rules().find(({ name }) => name === "tshm-web-b")!.destinationPorts).toEqual([
    { first: 50_000, last: 50_000 },
  ]);
  expect(publish(later.slice(1))).toEqual([]); // there is room again
  expect(rules().map(({ name }) => name)).toContain("tshm-web-large");
});

test("what is left out: the new ones that ask for most, as few as a doubling finds; a changed one stays as it was", () => {
  const rule = (name: string, dports: string) =>
    parseFlowRule({ name: `tshm-web-${name}`, target: "tshm-web", dports });
  const ports = (rules: readonly FlowRule[]) =>
    Object.fromEntries(rules.map((one) => [one.name.slice(9), (one.destinationPorts ?? []).length]));
  let present: readonly FlowRule[] = [rule("old", "1"), rule("changed", "1,3")];
  const most = (limit: number) => (change: (before: readonly FlowRule[]) => readonly FlowRule[]) => {
    const wanted = change(present);
    const asked = wanted.reduce((sum, { destinationPorts }) => sum + destinationPorts!.length, 0);
    if (asked > limit) throw Object.assign(new Error(`${asked} asked`), { code: "ERR_TOO_MANY_RULES" });
    const changed = wanted !== present;
    present = wanted;
    return { changed };
  };
  const wanted = [
    rule("old", "1"),
    rule("changed", "1,3,5,7,9,11"),
    rule("b", "1,3,5,7,9"),
    rule("c", "1,3"),
    rule("d", "1"),
  ];
  const { kept, refused } = fitFlows(wanted, most(6));
  expect([...refused]).toEqual([
    ["tshm-web-changed", "15 asked"],
    ["tshm-web-b", "15 asked"],
  ]);
  expect(ports(kept)).toEqual({ old: 1, changed: 2, c: 2, d: 1 });
  expect(present).toEqual(kept);
  expect(fitFlows(wanted, most(15))).toMatchObject({ changed: true, refused: new Map() });
  expect(fitFlows(wanted, most(15)).changed).toBe(false);
  expect(() => fitFlows(wanted, most(3))).toThrow("15 asked"); // all of it is in force: nothing to leave out
});
