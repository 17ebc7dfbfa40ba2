import { expect, test } from "vitest";
import type { Configuration, Flow, Target } from "#model";
import type { KernelEvent } from "#steering";
import type { Offsets } from "./offsets.js";
import { OperatorLog } from "./operator-log.js";
import { judge, type KnownTargets } from "./targets.js";
import type { Log } from "./turn-log.js";

type Line = { readonly severity: string; readonly message: string; readonly data: Readonly<Record<string, unknown>> };

function recorded(): { readonly log: Log; readonly lines: Line[]; readonly take: () => readonly string[] } {
  const lines: Line[] = [];
  const at =
    (severity: string) =>
    (message: string, data: Readonly<Record<string, unknown>> = {}) =>
      lines.push({ severity, message, data });
  const take = () => lines.splice(0).map(({ message }) => message);
  const log: Log = {
    trace: () => {},
    debug: at("debug"),
    info: at("info"),
    warning: at("warning"),
    error: at("error"),
  };
  return { log, lines, take };
}

const VIP = { name: "v4", prefix: "20.0.0.1/32" };
const FLOW: Flow = {
  name: "f",
  stream: "web",
  priority: 7,
  protocols: ["tcp"],
  vips: [VIP],
  sourcePrefixes: [],
  destinationPorts: ["80"],
  sourcePorts: [],
  byteMatches: [],
};
const offsets: Offsets = new Map([["web", { offset: 5_000, maxTargets: 10 }]]);
const wanted: Pick<Configuration, "streams" | "flows" | "conduit"> = {
  streams: [{ name: "web", conduit: "c", maxTargets: 10 }],
  flows: [FLOW],
  conduit: { name: "c", trench: "t", portNats: [] },
};
const TARGET: Target = { stream: "web", identifier: 3, addresses: ["172.16.0.3"] };
const pending = { kind: "pending", cause: "noRoute", reason: "no way", isUsable: false } as const;
const known = (before: KnownTargets, isThere: boolean, fault: boolean, nowMs: number) =>
  judge(
    isThere ? [{ ...TARGET, fwmark: 5_003 }] : [],
    { known: before, served: new Set() },
    fault ? new Map([[5_003, pending]]) : new Map(),
    nowMs,
  ).known;

test("what comes, changes and goes is told in the words, and with the keys, that operators of Meridio search for", () => {
  const { log, lines, take } = recorded();
  const told = new OperatorLog(log, "load-balan");
  const none = { ...wanted, streams: [], flows: [] };
  const turn = (one: typeof wanted, targets: KnownTargets) => told.turn({ wanted: one, offsets, known: targets });

  turn(wanted, new Map());
  expect(lines).toEqual([
    {
      severity: "info",
      message: "Create LB stream",
      data: { class: "SimpleNetworkService", stream: "web", maxTargets: 10 },
    },
    {
      severity: "info",
      message: "Init nfqlb instance",
      data: { class: "nfqlb", instance: "tshm-web", cmd: "nfqlb init --ownfw=0 --shm=tshm-web --M=1000 --N=10" },
    },
    { severity: "info", message: "Create flow", data: { class: "Flow", instance: "f", nfqlb: "tshm-web" } },
    {
      severity: "info",
      message: "Set nfqlb flow",
      data: {
        class: "nfqlb",
        instance: "tshm-web",
        cmd: "nfqlb flow-set --name=tshm-web-f --target=tshm-web --prio=7 --protocols=tcp --dsts=20.0.0.1/32 --dports=80",
      },
    },
  ]);
  lines.length = 0;

  const first = known(new Map(), true, true, 0);
  turn(wanted, first);
  const about = { class: "LoadBalancer", instance: "web", identifierOffset: 5_000, fwmark: 5_003 };
  const target = { identifier: 3, ips: ["172.16.0.3"] };
  const why = { state: "pending", cause: "noRoute", error: "no way" };
  expect(lines.splice(0)).toEqual([
    { severity: "warning", message: "add pending target", data: { ...about, target, ...why } },
  ]);
  told.retry();
  expect(lines.splice(0)).toMatchObject([{ severity: "debug", message: "retry pending targets" }]);
  turn(wanted, first); // nothing new
  expect(take()).toEqual([]);
  const ready = known(first, true, false, 1);
  turn(wanted, ready);
  expect(take()).toEqual(["remove pending target", "Added target"]);
  told.retry();
  expect(take()).toEqual([]);
  const lost = known(ready, true, true, 2);
  turn(wanted, lost);
  expect(take()).toEqual(["removing target after verification", "add pending target"]);
  turn(wanted, known(lost, false, false, 3));
  expect(take()).toEqual(["remove pending target"]);
  turn(wanted, ready);
  turn(wanted, new Map());
  expect(take()).toEqual(["Added target", "Removed target"]);

  turn({ ...wanted, flows: [{ ...FLOW, priority: 8 }] }, new Map());
  expect(take()).toEqual(["Set nfqlb flow"]);
  const nat = { protocol: "tcp", port: 80, targetPort: 8080, vips: [VIP] } as const;
  turn({ ...wanted, flows: [], conduit: { ...wanted.conduit, portNats: [nat] } }, new Map());
  expect(lines.splice(0)).toMatchObject([
    { message: "Delete flow" },
    { message: "Delete nfqlb flow", data: { cmd: "nfqlb flow-delete --name=tshm-web-f" } },
    { message: "SetNats", data: { class: "DestinationPortNat", nats: ["tcp 80 -> 8080: 20.0.0.1/32"] } },
  ]);
  told.frontend(false);
  turn(none, new Map());
  expect(lines.splice(0)).toMatchObject([
    { message: "FE unavailable", data: { class: "FrontendNetworkService" } },
    { message: "Evict streams", data: { class: "SimpleNetworkService" } },
    { message: "LB stream terminated", data: { class: "LoadBalancer", instance: "web" } },
    { message: "Delete nfqlb instance", data: { class: "nfqlb", cmd: "nfqlb delete --shm=tshm-web" } },
    { message: "SetNats" },
  ]);
  told.frontend(true);
  expect(take()).toEqual(["FE available"]);
});

test("interfaces to targets are told; others are not", () => {
  const { log, take } = recorded();
  const told = new OperatorLog(log, "load-balan");
  const link = (name: string, change: "new" | "deleted", isUp = true) =>
    told.event({ kind: "link", change, link: { name, isUp } } as KernelEvent);
  link("load-balan-1", "new", false);
  link("eth0", "new");
  link("load-balan-1", "new");
  link("load-balan-1", "new");
  link("load-balan-1", "deleted");
  expect(take()).toEqual(["InterfaceCreated", "InterfaceDeleted"]);
  told.disabled({ index: 1, name: "load-balan-1", reason: "replaced by load-balan-2 in the same subnet" });
  told.disabled({ index: 1, name: "load-balan-1", reason: "no frontend is announced" });
  expect(take()).toEqual([
    "Interface replaced during interface create event",
    "Disable interface",
    "Disable interface",
  ]);
});

test("of a target's neighbor its first word, failure, return and another MAC are told; not its answers to probes", () => {
  const { log, lines } = recorded();
  const told = new OperatorLog(log, null);
  const targets = known(new Map(), true, false, 0);
  const turn = () => told.turn({ wanted: { ...wanted, streams: [], flows: [] }, offsets, known: targets });
  const neighbor = (state: number, mac = 1, last = 3, change: "new" | "deleted" = "new") =>
    told.event({
      kind: "neighbor",
      change,
      neighbor: {
        state,
        linkIndex: 7,
        address: new Uint8Array([172, 16, 0, last]),
        linkLayerAddress: mac === 0 ? null : new Uint8Array([2, 0, 0, 0, 0, mac]),
      },
    } as KernelEvent);
  const states = () => lines.splice(0).map(({ data }) => [data!["state"], data!["mac"]].filter((one) => one));
  neighbor(0x02); // no target's yet
  turn();
  lines.length = 0;
  for (const state of [0x02, 0x04, 0x10, 0x02, 0x04, 0x10, 0x02]) neighbor(state);
  neighbor(0x02, 1, 4); // somebody else's
  const data = { class: "NeighborReachabilityDetector", ip: "172.16.0.3", linkIndex: 7 };
  expect(lines.splice(0)).toEqual([
    { severity: "debug", message: "neighbor update", data: { ...data, state: "REACHABLE" } },
  ]);
  neighbor(0x20, 0);
  turn();
  neighbor(0x01, 0);
  neighbor(0x20, 0);
  turn();
  expect(states()).toEqual([["FAILED"]]);
  neighbor(0x02);
  neighbor(0x02, 2);
  neighbor(0x02, 2);
  expect(states()).toEqual([["REACHABLE"], ["REACHABLE", "02:00:00:00:00:02"]]);
  neighbor(0x20, 2); // deleted by us: the kernel says failed, and gone
  neighbor(0x20, 2, 3, "deleted");
  turn();
  neighbor(0x02, 2);
  expect(states()).toEqual([]);
  neighbor(0x01, 0); // failed, and asked again; told with the next event, if no turn comes before
  neighbor(0x20, 0);
  expect(states()).toEqual([["FAILED"]]);
});
