import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { Classification, type FlowParams, type FlowRule, parseFlowRule, setFlow } from "#flow";
import { COUNTER_RULE_SLOTS, createStreamTable, ensureFlows, readFlows, updateFlows, updateStreamTable } from "#tables";
import { Decider, QuotedFragments, StreamTables, soloFragments, TableView } from "./index.js";

const root = mkdtempSync(join(tmpdir(), "encap-"));
afterAll(() => rmSync(root, { recursive: true }));

/** UDP 192.0.2.1:5000 → 10.0.0.1:9899 with SCTP 7000 → 6000 in it. */
const packet = new Uint8Array(
  Buffer.from("4500003000000000401100000c0000020a000001138826ab001c0000".replace("0c000002", "c0000201"), "hex"),
);
const sctp = Buffer.from("1b5817700000000100000000", "hex");
const bytes = new Uint8Array(Buffer.concat([packet, sctp]));

/** Decides the packet under these flows, each with a table whose only target has the fwmark of its place, 1…. */
function decide(...flows: readonly FlowParams[]) {
  const folder = mkdtempSync(join(root, "case-"));
  ensureFlows(folder, "flows");
  for (const [i, flow] of flows.entries()) {
    createStreamTable(folder, flow.name!, { size: 97, targets: 1, ownFwmark: 0 });
    updateStreamTable(folder, flow.name!, (active) => active.fill(i + 1));
    const add = (rules: readonly FlowRule[]) => setFlow(rules, parseFlowRule({ ...flow, target: flow.name! }));
    updateFlows(folder, "flows", add, () => 0);
  }
  using streams = new StreamTables(folder);
  using view = new TableView(folder, "flows", streams, null);
  const decider = new Decider({
    options: { hashMode: 0, noFlowFwmark: -1, noTargetFwmark: -1, isPromiscuousPing: false },
    classification: new Classification(),
    program: new Int32Array(0),
    udpEncapPort: 0,
    streams,
    fragments: soloFragments({ size: 500, buckets: 500, lifetimeMs: 200, isForgetful: false }, () => 1),
    quoted: new QuotedFragments(200, () => 1),
    tier: null,
    hits: new Float64Array(COUNTER_RULE_SLOTS),
    isHandedOver: () => false,
  });
  view.enter(decider);
  const fwmark = decider.decide(bytes, 0, bytes.length, 0x0800);
  view.leave();
  const { rules } = readFlows(folder, "flows");
  const counters = Object.fromEntries(rules.map(({ rule, slot }) => [rule.name, decider.hits[slot]]));
  return { fwmark, counters };
}

const encap = { protocols: "sctp", dsts: "10.0.0.1/32", udpencap: "9899" };

test("SCTP in UDP is classified by its own ports, helper and flow counted once", () => {
  const other = { name: "other", protocols: "sctp", dsts: "10.0.0.1/32", dports: "1-10" };
  const inner = { ...encap, name: "inner", dports: "6000" };
  expect(decide(other, inner)).toEqual({ fwmark: 2, counters: { other: 0, "#inner": 1, inner: 1 } });
});

test("it is classified again also when a later rule matches the outer packet: another flow's helper", () => {
  const first = { ...encap, name: "first", priority: "5", dports: "1-10" };
  const later = { ...encap, name: "later", dports: "6000" };
  expect(decide(first, later)).toEqual({ fwmark: 2, counters: { "#first": 1, first: 0, "#later": 1, later: 1 } });
});

test("a later rule with a table that matches the outer packet takes it as plain UDP, as in nfqlb (decision 0015)", () => {
  const inner = { ...encap, name: "inner", priority: "5", dports: "6000" };
  expect(decide(inner, { name: "all" })).toEqual({ fwmark: 2, counters: { "#inner": 1, inner: 0, all: 1 } });
  const sctpOnly = { name: "sctp-only", protocols: "sctp" };
  expect(decide(inner, sctpOnly)).toEqual({ fwmark: 1, counters: { "#inner": 1, inner: 1, "sctp-only": 0 } });
});
