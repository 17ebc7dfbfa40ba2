import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterAll, beforeAll, expect, test } from "vitest";
import { RouteConnection } from "#netlink/route";
import { until } from "../harness/balancer.js";
import { enterFreshNamespaces, type Host, ip, makeHost, run } from "../harness/namespace.js";
import { configurationOf, ReconcilerStage } from "../harness/reconciler.js";

const MAX = 1_000;
let peer: Host;
let stage: ReconcilerStage;

beforeAll(async () => {
  enterFreshNamespaces();
  peer = await makeHost();
  ip(`link add t0 type veth peer name eth0 netns ${peer.pid}`, "addr add 172.16.0.1/16 dev t0", "link set t0 up");
  // A host that answers for every address of the targets.
  peer.ip("link set eth0 up", "addr add 172.16.255.1/16 dev eth0", "route add local 172.16.128.0/17 dev lo");
  stage = new ReconcilerStage("/dev/shm/load");
});

afterAll(() => {
  stage[Symbol.dispose]();
  peer.close();
});

const target = (identifier: number) => ({
  identifier,
  addresses: [`172.16.${128 + Math.floor(identifier / 250)}.${(identifier % 250) + 1}`],
});
const all = Array.from({ length: MAX }, (_, i) => target(i + 1));
/** All but the one whose turn it is; the objects are the same each time, as room nsp hands them on. */
const without = (turn: number) =>
  configurationOf(
    all.filter((_, i) => i !== turn % MAX),
    MAX,
  );

test("P1: 1,000 targets that appear at once are all in force within 2 s, by one rebuild of the table", async () => {
  const startMs = performance.now();
  stage.reconciler.configure(configurationOf(all, MAX));
  await until("1,000 targets", () => (stage.served().length === MAX ? true : null));
  const tookMs = performance.now() - startMs;
  console.log(`1,000 targets in ${tookMs.toFixed(0)} ms`);
  expect(tookMs).toBeLessThan(2_000);
  const published = () => stage.lines.flatMap(({ data }) => (data["changes"] as string[] | undefined) ?? []);
  await until("the turn's end", () => (published().length > 0 ? true : null));
  expect(published().filter((line) => line === "table tshm-web published")).toHaveLength(1);
  for (const identifier of [1, 500, 1_000]) {
    const way = run("ip", "route", "get", "20.0.0.1", "mark", String(5_000 + identifier));
    expect(way).toContain(`via ${target(identifier).addresses[0]} dev t0`);
  }
});

test("P2, P3: a change costs no dump of rules, routes, addresses or neighbors; 200 changes per second leave memory as it is", async () => {
  const { prototype } = RouteConnection;
  const kinds = ["rules", "routes", "links", "addresses", "neighborStates"] as const;
  const counts = Object.fromEntries(kinds.map((kind) => [kind, 0]));
  const originals = kinds.map((kind) => [kind, prototype[kind]] as const);
  for (const [kind, original] of originals) {
    prototype[kind] = function (this: RouteConnection, ...args: never[]) {
      counts[kind]!++;
      return (original as (...all: unknown[]) => never).apply(this, args);
    };
  }
  let changes = 0;
  /** 200 changes per second; resolves with the bytes that are reachable afterwards. */
  const change = async (seconds: number): Promise<number> => {
    const startMs = performance.now();
    const last = changes + seconds * 200;
    for (const first = changes; changes < last; ) {
      const due = first + Math.floor((performance.now() - startMs) / 5);
      if (changes < due) {
        changes = Math.min(due, last);
        stage.reconciler.configure(without(changes));
      }
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    setFlagsFromString("--expose-gc");
    (runInNewContext("gc") as () => void)();
    return process.memoryUsage().heapUsed;
  };
  try {
    const turns = stage.reconciler.status().turns;
    const before = await change(2);
    const cpu = process.cpuUsage();
    const after = await change(4);
    const { user, system } = process.cpuUsage(cpu);
    const turned = stage.reconciler.status().turns - turns;
    console.log(
      `${turned} turns in 6 s, ${((user + system) / 40_000).toFixed(0)} % of a core, ${after - before} bytes more, dumps`,
      counts,
    );
    // One reading every 10 s as a safety net; two may fall into this test.
    for (const kind of kinds) expect(counts[kind]).toBeLessThanOrEqual(4);
    expect(turned).toBeGreaterThan(20);
    expect(after - before).toBeLessThan(2_000_000);
  } finally {
    for (const [kind, original] of originals) prototype[kind] = original as never;
  }
  stage.reconciler.configure(configurationOf(all, MAX));
  await until("all targets", () => (stage.served().length === MAX ? true : null));
});
