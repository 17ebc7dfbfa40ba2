import { expect, test } from "vitest";
import { AT, content, NOW } from "../../test/harness/status-content.js";
import { checkService } from "./stateless-lb/doctor-service.js";
import type { Situation, TargetSituation } from "./stateless-lb/situation.js";
import type { StatusDocument } from "./stateless-lb/status-document.js";
import { formatStatus } from "./stateless-lb/status-screen.js";

const target: TargetSituation = {
  stream: "web",
  identifier: 1,
  fwmark: 5001,
  addresses: ["172.16.0.2"],
  state: "ready",
  reason: "",
  paths: [],
  packets: 5,
};
const queue = { queue: 0, packets: 9, batches: 1, batchSizes: [], dropped: 0, queueFull: 0, bufferFull: 0 };
const dataPlane = {
  timeMs: 0,
  pid: 8,
  isReady: true,
  isHanging: false,
  queues: [{ ...queue, waiting: 0, userMs: 0, systemMs: 0, sampleMs: 0, starts: 1 }],
  flows: [],
  targets: [],
};
const document: StatusDocument = { version: 4, writtenAt: AT, ...content };
const well: Situation = {
  controlPlane: { state: "running", since: null, document, problem: "", unwritten: "" },
  dataPlane,
  areVipsQueued: true,
  targets: [target],
};
const screen = (change: Partial<Situation>) => formatStatus({ ...well, ...change }, "host", NOW);
const withDocument = (change: Partial<StatusDocument>, areVipsQueued: boolean | null = true) =>
  screen({ controlPlane: { ...well.controlPlane, document: { ...document, ...change } }, areVipsQueued });
const old = (unwritten: string) => screen({ controlPlane: { ...well.controlPlane, unwritten } });
const dead = (areVipsQueued: boolean | null) =>
  screen({ controlPlane: { ...well.controlPlane, state: "dead", since: AT }, areVipsQueued });
const ended = (failure: string | null) =>
  screen({
    controlPlane: {
      ...well.controlPlane,
      state: "ended",
      since: AT,
      document: { ...document, phase: "ended", failure },
    },
  });

test("repairs are shown: how many, the last one and when; they do not mean that something does not work", () => {
  const { text, isWell } = withDocument({
    repairs: { count: 7, last: { at: AT, commands: ["nft add table inet x", "more"] }, storms: [] },
  });
  expect(text).toContain("repairs            ok     7, the last 30 s ago: nft add table inet x, …\n");
  expect(isWell).toBe(true);
});

test("repairs that do not last are a fault, with the likely cause, for a minute", () => {
  const last = { at: AT, commands: ["nft add table inet x"] };
  const stormAt = (lastAt: string) => ({
    repairs: { count: 90, last, storms: [{ what: "nft add table inet x", count: 11, lastAt }] },
  });
  const { text, isWell } = withDocument(stormAt(AT));
  expect(isWell).toBe(false);
  expect(text).toMatch(/repairs +FAULT +90, the last 30 s ago/);
  expect(text).toMatch(/- put right 11 times within a minute, .*: nft add table inet x; a second load balancer/);
  expect(withDocument(stormAt("2026-03-04T05:05:00.000Z")).isWell).toBe(true);
});

test("all is well only when everything works", () => {
  const { text, isWell } = screen({});
  expect(isWell).toBe(true);
  expect(text).toBe(`stateless-lb on host, trench t, conduit c, 2026-03-04 05:06:37 UTC

control plane      ok     pid 7, started 30 s ago; last turn 30 s ago, 3 ms
data plane         ok     pid 8, queue 0, 9 packets, 0 lost before it
NSP                ok     nsp:7778, connected 30 s ago
VIPs               ok     1: 10.0.0.1/32
stream web         ok     1 of 1 targets ready, 1 flows, marks 5001-5010
availability       ok     frontends are told to send packets

Everything works.
`);
});

test("threads of the data plane that failed or hung, and were started again, are told", () => {
  const queues = [...dataPlane.queues, { ...dataPlane.queues[0]!, queue: 1, starts: 3 }];
  const { text, isWell } = screen({ dataPlane: { ...dataPlane, queues } });
  expect(isWell).toBe(true);
  expect(text).toMatch(/data plane +ok +pid 8, queues 0-1, 18 packets, 0 lost before it, threads started again: 2$/m);
});

test("a user who may not see the files is told so, and of nothing that is not known", async () => {
  const controlPlane = {
    state: "hidden",
    since: null,
    document: null,
    problem: "EACCES: open 'x'",
    unwritten: "",
  } as const;
  const { text, isWell } = screen({ controlPlane, dataPlane: null, targets: [] });
  expect(isWell).toBe(false);
  expect(text).toMatch(/control plane +WAIT +this user may not see it\ndata plane +WAIT +this user may not see it\n/);
  expect(text).toMatch(/why:\n {2}- EACCES: open 'x'; run it as the user of the control plane, or as root\n$/);
  const checks = await checkService({ controlPlane, dataPlane: null, areVipsQueued: null, targets: [] });
  expect(checks).toMatchObject([{ verdict: "unknown", found: "EACCES: open 'x'" }]);
});

test("losses that this user may not know are not said to be 0", () => {
  const [queue0] = dataPlane.queues;
  const { text } = screen({ dataPlane: { ...dataPlane, queues: [{ ...queue0!, queueFull: NaN }] } });
  expect(text).toMatch(/data plane +ok +pid 8, queue 0, 9 packets, losses before it not known\n/);
});

test("each thing that does not work is said with its reason", () => {
  const cases: [ReturnType<typeof screen>, RegExp][] = [
    [
      screen({ dataPlane: { ...dataPlane, isHanging: true } }),
      /data plane +FAULT +pid 8, .*; it hangs, 0 packets wait/,
    ],
    [screen({ dataPlane: null }), /data plane +FAULT +none runs: packets/],
    [screen({ controlPlane: { ...well.controlPlane, state: "dead", since: AT } }), /dead without a word, 30 s ago/],
    [ended(null), /control plane +FAULT +ended in order, 30 s ago/],
    [
      ended("the data plane keeps dying: exit code 1"),
      /FAULT +gave up \(the data plane keeps dying: exit code 1\), 30 s/,
    ],
    [
      screen({ controlPlane: { ...well.controlPlane, state: "hanging", since: AT } }),
      /hangs, last sign of life, 30 s ago/,
    ],
    [
      screen({ controlPlane: { state: "never seen", since: null, document: null, problem: "", unwritten: "" } }),
      /none has ever/,
    ],
    [old("ENOSPC: no room"), /control plane +FAULT +pid 7 runs, and cannot write its status: .* 30 s ago\n/],
    [old("ENOSPC: no room"), /NSP +OLD +nsp:7778/],
    [old("ENOSPC: no room"), /- the control plane's status is old, it cannot be written: ENOSPC: no room; more/],
    [withDocument({ phase: "ending", isAvailable: false }), /control plane +WAIT +.*; it ends, packets are served/],
    [withDocument({ isAvailable: false }), /availability +WAIT +frontends are told to send none/],
    [screen({ controlPlane: { ...well.controlPlane, document: null, problem: "version 9" } }), /- version 9/],
    [withDocument({ nsp: { isConnected: false, since: AT, reason: "refused" } }), /- NSP nsp:7778: refused/],
    [withDocument({ lastTurn: { at: AT, durationMs: 1, error: "EPERM" } }), /the last turn broke off: EPERM/],
    [withDocument({ refusals: ["flow x: no"] }), /- refused: flow x: no/],
    [withDocument({ faults: ["nft: ENOMEM"] }), /- nft: ENOMEM/],
    [
      withDocument({ source: { ...content.source, file: "f", fileFault: "f:3: no" } }),
      /- the configuration file is not in force: f:3: no/,
    ],
    [withDocument({ flows: [] }), /stream web: no flow leads to it/],
    [withDocument({ streams: [{ name: "web", maxTargets: 1, offset: null }] }), /no fwmarks are left/],
    [withDocument({ isServed: false }, null), /VIPs +WAIT +1, not queued yet/],
    [withDocument({}, false), /VIPs +WAIT +1, not queued yet/],
    [withDocument({ isFrontendAnnounced: false }), /VIPs +WAIT +1, queued and dropped, for want of a frontend: 10/],
    [dead(false), /VIPs +FAULT +1, not queued: 10/],
    [dead(null), /VIPs +OLD +1, whether they are queued is not seen/],
    [dead(true), /VIPs +ok +1: 10.*\nstream web +OLD/],
    [
      screen({ targets: [{ ...target, state: "pending", reason: "no route" }] }),
      /target 1 of web \(mark 5001, 172\.16\.0\.2\) is pending: no route/,
    ],
  ];
  for (const [{ text, isWell }, expected] of cases) {
    expect(text).toMatch(expected);
    expect(isWell).toBe(false);
    expect(text.split("\n").length).toBeLessThan(40);
  }
  expect(withDocument({ refusals: ["flow \u001b[2J\r: no"] }).text).toContain("- refused: flow ?[2J?: no\n");
});

test("an NSP that does not tell the conduit: what is waited for, from whom, and that names may be wrong", () => {
  const nothing = { configurationFrom: null, lastTurn: null, vips: [], streams: [], flows: [], isServed: false };
  const { text, isWell } = withDocument({ ...nothing, waitingFor: ["conduit"] });
  expect(isWell).toBe(false);
  expect(text).toContain("NSP                WAIT   nsp:7778, connected 30 s ago; it has not told conduit\n");
  expect(text).toMatch(
    /- NSP nsp:7778 has not told conduit; waited for is conduit c of trench t\. Are these names right \(NSM_CONDUIT_NAME/,
  );
  const other = withDocument({ ...nothing, waitingFor: ["vips", "flows/web"] });
  expect(other.text).toMatch(/- NSP nsp:7778 has not told vips, flows\/web; waited for is conduit c of trench t\n/);
  expect(withDocument(nothing).text).toMatch(/why:\n {2}- control plane: pid 7, .* no turn yet\n {2}- VIPs: no config/);
});

test("Everything works. stands there only where all rows are ok, and the exit code says so", () => {
  for (const change of [{ streams: [], flows: [] }, { vips: [] }, { isServed: false }, { lastTurn: null }]) {
    const { text, isWell } = withDocument(change, null);
    expect(text).not.toContain("Everything works.");
    expect(isWell).toBe(false);
  }
  expect(withDocument({ streams: [], flows: [] }).text).toContain("why:\n  - streams: none configured\n");
});

test("a missing frontend is the cause, and no flow or target is blamed beside it", () => {
  const reason = "no frontend is announced";
  const document = {
    isFrontendAnnounced: false,
    flows: [],
    refusedFlows: [{ name: "tcp", stream: "web", reason }],
    faults: [],
  };
  const { text, isWell } = screen({
    controlPlane: { ...well.controlPlane, document: { ...well.controlPlane.document!, ...document } },
    targets: [{ ...target, fwmark: null, state: "pending", reason }],
  });
  expect(isWell).toBe(false);
  expect(text).toContain("frontend           FAULT  host is not announced\n");
  expect(text).toMatch(/why:\n {2}- no frontend host is registered at the NSP .*\n$/);
  expect(text).not.toContain("no flow leads to it");
  expect(withDocument({ isFrontendAnnounced: true }).text).toContain("frontend           ok     host is announced\n");
});

test("a configuration file that was refused has a row, and each of its faults a line", () => {
  const fileFault = "f.yaml:3: no\nf.yaml:9: neither";
  const { text, isWell } = withDocument({ source: { ...content.source, file: "f.yaml", fileFault } });
  expect(isWell).toBe(false);
  expect(text).toContain("configuration file FAULT  refused; the last good one is in force\n");
  expect(text).toMatch(/why:\n {2}- .*: f\.yaml:3: no\n {2}- .*: f\.yaml:9: neither\n$/);
});

test("flows that are not in force are told once with their reason, and what would help", () => {
  const reason = "region /dev/shm/tshm-web: no room for 4096 bytes (ENOSPC)";
  const refusedFlows = ["tcp", "udp"].map((name) => ({ name, stream: "web", reason }));
  const { text, isWell } = withDocument({ flows: [], refusedFlows, faults: [`tshm-web: ${reason}`] });
  expect(isWell).toBe(false);
  expect(text).toContain("stream web         FAULT  1 of 1 targets ready, 0 of 2 flows, marks 5001-5010\n");
  expect(text).toMatch(
    /why:\n {2}- stream web: 2 of 2 flows not in force: region .* \(ENOSPC\); more shared memory.*\n$/,
  );
  expect(text).not.toContain("no flow leads to it");
  const some = withDocument({ refusedFlows: [{ name: "udp", stream: "web", reason: "there is no stream web" }] });
  expect(some.text).toContain("- stream web: 1 of 2 flows not in force: there is no stream web\n");
  expect(some.isWell).toBe(false);
});

test("a thousand bad targets and a hundred streams stay on one screen", () => {
  const streams = Array.from({ length: 100 }, (_, i) => ({ name: `s${i}`, maxTargets: 10, offset: i * 10 }));
  const targets = Array.from(
    { length: 1_000 },
    (_, i): TargetSituation => ({
      ...target,
      stream: `s${i % 100}`,
      state: "pending",
      reason: "no route",
    }),
  );
  const { text } = screen({
    targets,
    controlPlane: { ...well.controlPlane, document: { ...document, streams, flows: [] } },
  });
  expect(text.split("\n").length).toBeLessThan(40);
  expect(text).toMatch(/… and 1088 more/);
});
