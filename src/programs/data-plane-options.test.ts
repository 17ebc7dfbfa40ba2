import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { CounterFile } from "#tables";
import { FLOWLB_OPTIONS, LB_OPTIONS, readRunningOptions } from "./nfqlb/balancer-options.js";
import { COUNTERS } from "./nfqlb/names.js";
import { parseOptions } from "./nfqlb/options.js";
import { describeRunning, differencesOf } from "./nfqlb/running.js";
import { STATS_COMMAND } from "./nfqlb/stats-command.js";
import { dataPlaneArguments, dataPlaneOptions } from "./stateless-lb/data-plane-settings.js";

const OPTIONS = { lb: LB_OPTIONS, flowlb: FLOWLB_OPTIONS };

/** What a data plane tells of itself. */
function told(mode: "lb" | "flowlb", ...args: readonly string[]): string {
  return describeRunning(readRunningOptions(parseOptions(mode, OPTIONS[mode], args), mode));
}

const wish = { queues: { first: 0, last: 3 }, queueLength: 1024 };
const differences = (settings: string) => differencesOf(settings, dataPlaneOptions(wish));

test("a data plane that the control plane started is its own, and each other setting makes it another one", () => {
  const ours = dataPlaneArguments(wish).slice(1);
  expect(differences(told("flowlb", ...ours))).toEqual([]);
  for (const same of ["--ft_ttl=200", "--trace_rate=5", "--nolb_fwmark=-1"])
    expect(differences(told("flowlb", ...ours, same)), same).toEqual([]);
  const others: readonly [string, string][] = [
    ["--queue=0:2", "queues.last 2 instead of 3"],
    ["--qlength=1025", "queueLength 1025 instead of 1024"],
    ["--fail_open", "isFailOpen true instead of false"],
    ["--hash_mode=1", "hashMode 1 instead of 0"],
    ["--flow_shm=x", 'flowsName "x" instead of "nfqlb-flows"'],
    ["--lbshm=tier", 'tierName "tier" instead of null'],
    ["--nolb_fwmark=7", "noFlowFwmark 7 instead of -1"],
    ["--notargets_fwmark=7", "noTargetFwmark 7 instead of -1"],
    ["--ft_ttl=1000", "fragments.lifetimeMs 1000 instead of 200"],
    ["--tun=tun0", "fragments.slots 100 instead of 0"],
  ];
  for (const [option, difference] of others)
    expect(differences(told("flowlb", ...ours, option)), option).toEqual([difference]);
  const quiet = ours.filter((argument) => argument !== "--promiscuous_ping");
  expect(differences(told("flowlb", ...quiet))).toEqual(["isPromiscuousPing false instead of true"]);
  expect(differences(told("lb", "--tshm=x", "--queue=0:3", "--hash_mode=0"))).toEqual([
    'flowsName null instead of "nfqlb-flows"',
    'streamName "x" instead of null',
    "isPromiscuousPing false instead of true",
  ]);
});

test("a data plane of another version, or one that tells nothing, is not ours", () => {
  const { hashMode: _hashMode, ...older } = dataPlaneOptions(wish);
  expect(differences(JSON.stringify({ ...older, later: 1 }))).toEqual([
    "later 1 instead of nothing",
    "hashMode nothing instead of 0",
  ]);
  expect(differences("")).toEqual(["it tells no settings that are understood here"]);
  for (const settings of ["{", "null", "[1]", "7"]) expect(differences(settings), settings).not.toEqual([]);
});

test("queues are bounded, and their settings fit the counter file whatever they are", () => {
  const name = "\u00fc".repeat(255);
  const settings = told("lb", "--queue=65408:65535", `--tshm=${name}`, `--lbshm=${name}`);
  expect(Buffer.byteLength(settings)).toBeLessThan(4_096);
  const refused = "queue invalid [0:999]: 1000 queues; at most 128";
  expect(() => told("lb", "--queue=0:999")).toThrow(expect.objectContaining({ code: "ERR_COMMAND", message: refused }));
  expect(() => told("lb", "--queue=0:128")).toThrow("129 queues");
});

test("statistics of a data plane that has ended are shown with its own options", () => {
  const folder = mkdtempSync(join(tmpdir(), "stats-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  CounterFile.create(folder, COUNTERS, 1, told("lb", "--ft_ttl=1000", "--ft_size=7", "--mtu=9000"))[Symbol.dispose]();
  let printed = "";
  const io = {
    out: (text: string | Uint8Array) => {
      printed += String(text);
    },
    error: () => {},
    isOutClosed: () => false,
    env: { NFQLB_SHM_DIR: folder },
  };
  expect(STATS_COMMAND.run(parseOptions("stats", STATS_COMMAND.options, []), io)).toBe(0);
  expect(JSON.parse(printed)).toMatchObject({ hsize: 7, ttlMillis: 1_000, mtu: 9_000 });
});
