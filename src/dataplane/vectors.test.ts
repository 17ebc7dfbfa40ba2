import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { Classification, type FlowParams, type FlowRule, formatFlowRule, parseFlowRule, setFlow } from "#flow";
import { ConfigError } from "#model";
import {
  COUNTER_RULE_SLOTS,
  createStreamTable,
  ensureFlows,
  hasRegion,
  readFlows,
  updateFlows,
  updateStreamTable,
} from "#tables";
import { Decider, QuotedFragments, StreamTables, soloFragments, TableView } from "./index.js";

type Step = { name: string; l3: string; packet: string; fw: number; defect?: string; correct?: { fw: number } };
type Scenario = {
  name: string;
  args: string[];
  shm: { shm: string; M: number; N: number; ownfw: number; active: Record<string, number> }[];
  flow_commands: { args: string[]; exit: number; stdout: string }[];
  flow_list_after?: string;
  flow_list_correct?: string;
  steps: Step[];
};

const { decisions } = JSON.parse(
  readFileSync(new URL("../../test/vectors/nfqlb/nfqlb-vectors.json", import.meta.url), "utf8"),
) as { decisions: Scenario[] };
const root = mkdtempSync(join(tmpdir(), "decisions-"));
afterAll(() => rmSync(root, { recursive: true }));

const options = (args: readonly string[]) =>
  new Map(
    args
      .filter((arg) => arg.startsWith("--"))
      .map((arg) => /^--([^=]+)=?(.*)$/s.exec(arg)!.slice(1) as [string, string]),
  );

/** What `flow-set` answers, with its effect on the rules. */
function setByCommand(rules: readonly FlowRule[], folder: string, args: readonly string[]) {
  const given = Object.fromEntries(
    [...options(args)].map(([key, value]) => [key === "prio" ? "priority" : key, value]),
  );
  try {
    const rule = parseFlowRule(given as FlowParams);
    const isKnown = rules.some(({ name }) => name === rule.name);
    if (!hasRegion(folder, rule.target))
      throw new ConfigError("", "", `FAIL: Couldn't create ${isKnown ? "new " : ""}load-balancer`);
    return { reply: "OK", rules: setFlow(rules, rule) };
  } catch (error) {
    return { reply: (error as ConfigError).rule, rules };
  }
}

test("the vector file is complete", () => {
  expect(decisions).toHaveLength(11);
  expect(decisions.flatMap(({ steps }) => steps)).toHaveLength(1342);
});

test.each(decisions)("each packet of the scenario gets nfqlb's fwmark, or the right one: $name", (scenario) => {
  const folder = mkdtempSync(join(root, "shm-"));
  for (const { shm, M, N, ownfw, active } of scenario.shm) {
    createStreamTable(folder, shm, { size: M, targets: N, ownFwmark: ownfw });
    updateStreamTable(folder, shm, (fwmarks) => {
      for (const [index, fwmark] of Object.entries(active)) fwmarks[Number(index)] = fwmark;
    });
  }
  const isFlow = scenario.args[0] === "flowlb";
  const given = options(scenario.args);
  const number = (name: string, fallback: number) => (given.has(name) ? Number(given.get(name)) : fallback);
  ensureFlows(folder, "flows");
  for (const { args, stdout } of scenario.flow_commands) {
    let reply = "OK";
    updateFlows(
      folder,
      "flows",
      (rules) => {
        if (args[0] === "flow-delete") return rules.filter(({ name }) => !args.includes(`--name=${name}`));
        const result = setByCommand(rules, folder, args);
        reply = result.reply;
        return result.rules;
      },
      () => 0,
    );
    const [first = ""] = reply.split(": flow "); // upstream's reply; ours goes on
    expect(`${first}\n`).toBe(stdout);
  }
  using streams = new StreamTables(folder);
  if (!isFlow) streams.setNames([given.get("tshm") ?? "nfqlb"]);
  using tier = given.has("lbshm") ? new StreamTables(folder) : null;
  tier?.setNames([given.get("lbshm")!]);
  using view = new TableView(folder, isFlow ? "flows" : null, streams, tier);
  const decider = new Decider({
    options: {
      hashMode: number("hash_mode", 1),
      noFlowFwmark: number("nolb_fwmark", -1),
      noTargetFwmark: number("notargets_fwmark", -1),
      isPromiscuousPing: given.has("promiscuous_ping"),
    },
    classification: new Classification(),
    program: isFlow ? new Int32Array(0) : null,
    udpEncapPort: number("sctp_encap", 0),
    streams,
    fragments: soloFragments({ size: 500, buckets: 500, lifetimeMs: 4000, isForgetful: false }, () => 1),
    quoted: new QuotedFragments(4000, () => 1),
    tier,
    isHandedOver: () => false,
    hits: new Float64Array(COUNTER_RULE_SLOTS),
  });
  const wrong: string[] = [];
  for (const [i, { name, l3, packet, fw, defect, correct }] of scenario.steps.entries()) {
    const bytes = new Uint8Array(Buffer.from(packet, "hex"));
    view.enter(decider);
    const fwmark = decider.decide(bytes, 0, bytes.length, Number(l3));
    view.leave();
    const want = correct?.fw ?? (defect === undefined ? fw : null);
    if (want !== null && fwmark !== want) wrong.push(`step ${i} ${name}: ${fwmark}, not ${want}`);
  }
  expect(wrong).toEqual([]);
  if (!isFlow) return;
  const { rules } = readFlows(folder, "flows");
  const list = `[${rules.map(({ rule, slot }) => formatFlowRule(rule, decider.hits[slot]!)).join(",\n")}]\n`;
  const wanted = scenario.flow_list_correct ?? scenario.flow_list_after;
  if (wanted !== undefined) expect(list).toBe(wanted);
});
