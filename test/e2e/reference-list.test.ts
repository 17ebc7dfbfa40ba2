// The end-to-end tests of Meridio case by case, under their names: what clients and operators of a trench see. There 400
// connections are made and those that are lost do not matter; here none may be lost.
import { rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { SHM, until } from "../harness/balancer.js";
import { enterFreshNamespaces } from "../harness/namespace.js";
import { type Pod, Site } from "../harness/site.js";
import { type Flow, type Place, type Stream, Trench, type TrenchFile } from "../harness/trench.js";

const RUN = 400;
/** A change of the configuration is in force by then; the reference looks after 5 s. */
const IN_FORCE_MS = 2_000;
const VIPS = { 4: "20.0.0.1", 6: "2000::1" } as const;
const OWN = Object.values(VIPS);
const NEW_VIPS = ["60.0.0.150", "6000::150"] as const;
/** Of the other attractor: a prefix, as Helm users have them, and one of its addresses. */
const OTHER = { prefix: "40.0.0.0/24", address: "40.0.0.7" } as const;

const stream = (name: string, conduit: string): Stream => ({ name, conduit, "max-targets": 100 });
const flow = (name: string, to: string, priority: number, ...ports: readonly string[]): Flow => ({
  name,
  stream: to,
  priority,
  protocols: [name.endsWith("udp") ? "udp" : "tcp"],
  vips: ["vip-v4", "vip-v6"],
  "destination-port-ranges": ports,
});
const vips = [
  { name: "vip-v4", address: `${VIPS[4]}/32` },
  { name: "vip-v6", address: `${VIPS[6]}/128` },
];
const Z_TCP = flow("flow-a-z-tcp", "stream-a-i", 1, "4000");
const OTHERS = [flow("flow-a-z-udp", "stream-a-i", 1, "4003"), flow("flow-a-y-tcp", "stream-a-ii", 2, "4001")];
const trenchA: TrenchFile = {
  trench: { name: "trench-a" },
  conduits: [{ name: "conduit-a-1" }, { name: "conduit-a-2" }],
  vips: [...vips, { name: "vip-a-2", address: OTHER.prefix }],
  streams: [
    stream("stream-a-i", "conduit-a-1"),
    stream("stream-a-ii", "conduit-a-1"),
    stream("stream-a-iii", "conduit-a-2"),
  ],
  flows: [Z_TCP, ...OTHERS, { ...flow("flow-a-x-tcp", "stream-a-iii", 1, "4000"), vips: ["vip-a-2"] }],
};
const trenchB: TrenchFile = {
  trench: { name: "trench-b" },
  conduits: [{ name: "conduit-b-1" }],
  vips,
  streams: [stream("stream-b-i", "conduit-b-1")],
  flows: [flow("flow-b-z-tcp", "stream-b-i", 1, "4000"), flow("flow-b-z-udp", "stream-b-i", 1, "4003")],
};

let site: Site;
let a: Trench;
let b: Trench;
let pod: Pod;
let podB: Pod;
const inI = (): Place => ({ pod, stream: "stream-a-i" });
const inII = (): Place => ({ pod, stream: "stream-a-ii" });
const inB = (): Place => ({ pod: podB, stream: "stream-b-i" });
/** Serve trench-a from the beginning; the next one is to spare, the others serve trench-b. */
const FOUR = [0, 1, 2, 3];
const SPARE = 4;
const FOUR_OF_B = [5, 6, 7, 8];
const target = (index: number) => site.targets[index]!;
const names = (indices: readonly number[]) => indices.map((index) => target(index).name);

beforeAll(async () => {
  enterFreshNamespaces();
  site = await Site.create(9);
  [a, b] = await Promise.all([Trench.create(site, trenchA), Trench.create(site, trenchB)]);
  pod = await a.pod("conduit-a-1", OWN);
  podB = await b.pod("conduit-b-1", OWN);
  for (const i of FOUR) await a.open(target(i), inI(), OWN);
  for (const i of FOUR_OF_B) await b.open(target(i), inB(), OWN);
  await pod.untilActive("stream-a-i", 4, 10_000);
  await podB.untilActive("stream-b-i", 4, 10_000);
  for (const one of [pod, podB]) await one.untilQueued(VIPS[6]);
});

afterAll(() => {
  for (const trench of [a, b]) trench[Symbol.dispose]();
  site.close();
});

/** A run of connections: each was answered, and every one of these targets, by index, answered some. */
async function expectHits(
  trench: Trench,
  port: number,
  targets: readonly number[],
  { addresses = OWN, protocol = "tcp" }: { addresses?: readonly string[]; protocol?: "tcp" | "udp" } = {},
): Promise<void> {
  for (const address of addresses) {
    const { hosts, lost } = await trench.client.connect({ protocol, address, port, count: RUN, waitMs: 5_000 });
    expect({ lost, hosts: Object.keys(hosts).toSorted() }, `${protocol} ${address} ${port}`).toEqual({
      lost: 0,
      hosts: names(targets).toSorted(),
    });
  }
}

/** Waits until a connection is answered, or is not. */
async function untilAnswered(isAnswered: boolean, port: number, address: string = VIPS[4]): Promise<void> {
  const wanted = isAnswered ? 0 : 1;
  const one = { protocol: "tcp", address, port, count: 1, waitMs: 50 } as const;
  const lost = async () => (await a.client.connect(one)).lost;
  await expect.poll(lost, { timeout: IN_FORCE_MS, interval: 10 }).toBe(wanted);
}

/** Applies a file while `act` looks at it, then the usual one again, and waits until that is in force. */
async function withFile(file: Partial<TrenchFile>, act: () => Promise<void>): Promise<void> {
  const before = flowList();
  a.apply({ ...trenchA, ...file });
  await act().finally(() => a.apply(trenchA));
  await until("the usual flows", () => (flowList() === before ? true : null), IN_FORCE_MS);
  await expectHits(a, 4000, FOUR, { addresses: [VIPS[4]] });
}
const flowList = () => pod.nfqlb("flow-list").stdout.replace(/"matches_count": *\d+/g, "");

test.each([
  ["tcp", 4],
  ["tcp", 6],
  ["udp", 4],
  ["udp", 6],
] as const)(
  "TCP-IPv4, TCP-IPv6, UDP-IPv4, UDP-IPv6: connections are spread over all four targets, %s IPv%i",
  async (protocol, family) => {
    await expectHits(a, protocol === "tcp" ? 4000 : 4003, FOUR, { addresses: [VIPS[family]], protocol });
  },
);

test("O14: the interfaces to targets are those whose names begin with the service's first ten characters", () => {
  expect(pod.host.run("nft", "list", "chain", "inet", "meridio-defrag", "pre-defrag")).toContain(
    'iifname "load-balan*"',
  );
});

test("MT-Parallel: two trenches with the same VIP are apart", async () => {
  await Promise.all([expectHits(a, 4000, FOUR), expectHits(b, 4000, FOUR_OF_B)]);
});

test("MT-Switch: a target leaves a trench for another, and comes back", async () => {
  await a.close(target(3), inI());
  await b.open(target(3), inB(), OWN);
  await pod.untilActive("stream-a-i", 3);
  await podB.untilActive("stream-b-i", 5);
  await Promise.all([expectHits(a, 4000, [0, 1, 2]), expectHits(b, 4000, [3, ...FOUR_OF_B])]);
  await b.close(target(3), inB());
  await a.open(target(3), inI(), OWN);
  await pod.untilActive("stream-a-i", 4);
  await podB.untilActive("stream-b-i", 4);
  await Promise.all([expectHits(a, 4000, FOUR), expectHits(b, 4000, FOUR_OF_B)]);
});

test("O16, Scale-Down, Scale-Up: traffic comes to exactly the targets that are there", async () => {
  await a.close(target(0), inI());
  await pod.untilActive("stream-a-i", 3);
  await expectHits(a, 4000, [1, 2, 3]);
  await a.open(target(0), inI(), OWN);
  await pod.untilActive("stream-a-i", 4);
  await expectHits(a, 4000, FOUR);
  await a.open(target(SPARE), inI(), OWN);
  await pod.untilActive("stream-a-i", 5);
  await expectHits(a, 4000, [...FOUR, SPARE]);
  await a.close(target(SPARE), inI());
  await pod.untilActive("stream-a-i", 4);
  await expectHits(a, 4000, FOUR);
});

test("close-open: a target closes its stream and opens it again", async () => {
  await a.close(target(2), inI());
  await pod.untilActive("stream-a-i", 3);
  await expectHits(a, 4000, [0, 1, 3]);
  await a.open(target(2), inI(), OWN);
  await pod.untilActive("stream-a-i", 4);
  await expectHits(a, 4000, FOUR);
});

test("open-second-stream: a target opens another stream, and the first one is not disturbed", async () => {
  expect(pod.active("stream-a-ii")).toBe(0);
  const steady = a.client.connect(
    { protocol: "tcp", address: VIPS[4], port: 4000, count: 4 * RUN, waitMs: 5_000 },
    "beside",
  );
  await a.open(target(1), inII(), OWN);
  await pod.untilActive("stream-a-ii", 1);
  await expectHits(a, 4001, [1]);
  await a.close(target(1), inII());
  await pod.untilActive("stream-a-ii", 0); // the command goes on to work: the stream is there
  expect((await steady).lost).toBe(0);
  expect(pod.active("stream-a-i")).toBe(4);
  await expectHits(a, 4000, FOUR);
});

test("open-second-stream-second-conduit: the other attractor's pod has the target, by a VIP that is a prefix", async () => {
  const other = await a.pod("conduit-a-2", [OTHER.prefix]);
  const place: Place = { pod: other, stream: "stream-a-iii" };
  await a.open(target(1), place, [OTHER.address]);
  await other.untilActive("stream-a-iii", 1, 10_000);
  await other.untilQueued(OTHER.prefix);
  await expectHits(a, 4000, [1], { addresses: [OTHER.address] });
  expect([other.active("stream-a-i"), pod.active("stream-a-iii")]).toEqual([null, null]); // each has its own
  await a.close(target(1), place);
  await other.untilActive("stream-a-iii", 0);
  await expectHits(a, 4000, FOUR);
  expect(await other.stop()).toBe(0);
});

test("new-vip: VIPs are added to a flow", async () => {
  const added = NEW_VIPS.map((address) => ({
    name: address.replaceAll(":", "-"),
    address: `${address}/${address.includes(":") ? 128 : 32}`,
  }));
  pod.routeFrom(a.client.host, NEW_VIPS);
  for (const i of FOUR) await target(i).open(pod, NEW_VIPS);
  const wider: Flow = { ...Z_TCP, vips: [...Z_TCP.vips, ...added.map(({ name }) => name)] };
  await withFile({ vips: [...trenchA.vips, ...added], flows: [wider, ...OTHERS] }, async () => {
    for (const address of NEW_VIPS) await untilAnswered(true, 4000, address);
    await expectHits(a, 4000, FOUR, { addresses: [...OWN, ...NEW_VIPS] });
  });
  await untilAnswered(false, 4000, NEW_VIPS[0]);
});

test("new-stream: a stream and its flow come, and go without a trace", async () => {
  const place: Place = { pod, stream: "stream-a-iv" };
  const more = {
    streams: [...trenchA.streams, stream("stream-a-iv", "conduit-a-1")],
    flows: [...trenchA.flows, flow("flow-a-w-tcp", "stream-a-iv", 1, "4002")],
  };
  expect(pod.active("stream-a-iv")).toBe(null);
  await withFile(more, async () => {
    await a.open(target(2), place, OWN);
    await pod.untilActive("stream-a-iv", 1, IN_FORCE_MS);
    await expectHits(a, 4002, [2]);
    await a.close(target(2), place);
  });
  await pod.untilActive("stream-a-iv", null);
});

test("O10, stream-max-targets: a stream of one target has room for identifier 1 alone", async () => {
  const place: Place = { pod, stream: "stream-a-v", identifier: 1 };
  const more = {
    streams: [...trenchA.streams, { ...stream("stream-a-v", "conduit-a-1"), "max-targets": 1 }],
    flows: [...trenchA.flows, flow("flow-a-v-tcp", "stream-a-v", 1, "4002")],
  };
  await withFile(more, async () => {
    await a.open(target(0), place, OWN);
    await pod.untilActive("stream-a-v", 1, IN_FORCE_MS);
    expect(pod.nfqlb("show", "--shm=tshm-stream-a-v").stdout).toContain("M=97, N=1\n");
    await a.open(target(1), { ...place, identifier: 2 }, OWN);
    await until("its refusal", () => (pod.output.includes("1..1") ? true : null), IN_FORCE_MS);
    await expectHits(a, 4002, [0]);
    await a.close(target(1), { ...place, identifier: 2 });
    await a.close(target(0), place);
  });
});

test("new-flow: another flow leads to a stream that is there", async () => {
  await withFile({ flows: [...trenchA.flows, flow("flow-a-w-tcp", "stream-a-i", 1, "4002")] }, async () => {
    await untilAnswered(true, 4002);
    await expectHits(a, 4002, FOUR);
  });
  await untilAnswered(false, 4002);
});

test("flow-priority: the flow of higher priority has the port", async () => {
  await a.open(target(1), inII(), OWN);
  await pod.untilActive("stream-a-ii", 1);
  await expectHits(a, 4001, [1]);
  await withFile({ flows: [flow("flow-a-z-tcp", "stream-a-i", 3, "4000", "4001"), ...OTHERS] }, async () => {
    const isMoved = () => flowList().includes('"4001"') && /"priority": *3/.test(flowList());
    await until("the priority", () => (isMoved() ? true : null), IN_FORCE_MS);
    await expectHits(a, 4001, FOUR);
    await expectHits(a, 4000, FOUR);
  });
  await expectHits(a, 4001, [1]);
  await a.close(target(1), inII());
  await pod.untilActive("stream-a-ii", 0);
});

test("flow-destination-ports-range: a flow has a range of ports", async () => {
  await withFile({ flows: [flow("flow-a-z-tcp", "stream-a-i", 3, "4000-4002"), ...OTHERS] }, async () => {
    await untilAnswered(true, 4002);
    for (const port of [4000, 4001, 4002]) await expectHits(a, port, FOUR);
  });
});

test("flow-byte-matches: of a flow's ports only those that its bytes match are served", async () => {
  const matching: Flow = {
    ...flow("flow-a-z-tcp", "stream-a-i", 3, "4000", "4002"),
    "byte-matches": ["tcp[2:2] = 4002"],
  };
  await withFile({ flows: [matching, ...OTHERS] }, async () => {
    await untilAnswered(true, 4002);
    await expectHits(a, 4002, FOUR);
    const unmatched = { protocol: "tcp", address: VIPS[4], port: 4000, count: 20, waitMs: 1_000 } as const;
    expect(await a.client.connect(unmatched)).toEqual({ hosts: {}, lost: 20 });
  });
});

test("new-attractor-nad-bridge-vlan: an attractor, a conduit and a pod come while the others serve", async () => {
  const [address] = NEW_VIPS;
  const more = {
    conduits: [...trenchA.conduits, { name: "conduit-a-3" }],
    vips: [...trenchA.vips, { name: "vip-a-3", address: `${address}/32` }],
    streams: [...trenchA.streams, stream("stream-a-vi", "conduit-a-3")],
    flows: [...trenchA.flows, { ...flow("flow-a-u-tcp", "stream-a-vi", 1, "4000"), vips: ["vip-a-3"] }],
  };
  await withFile(more, async () => {
    const added = await a.pod("conduit-a-3", [address]);
    const place: Place = { pod: added, stream: "stream-a-vi" };
    await a.open(target(SPARE), place, [address]);
    await added.untilActive("stream-a-vi", 1, 10_000);
    await added.untilQueued(address);
    await expectHits(a, 4000, [SPARE], { addresses: [address] });
    await expectHits(a, 4000, FOUR);
    await a.close(target(SPARE), place);
    expect(await added.stop()).toBe(0);
  });
});

test("O10, conduit-destination-port-nats: another port of the VIP is the targets' port, both ways", async () => {
  const nat = { protocol: "tcp", port: 80, "target-port": 4000, vips: ["vip-v4", "vip-v6"] };
  const conduits = [{ name: "conduit-a-1", "destination-port-nats": [nat] }, { name: "conduit-a-2" }];
  await withFile({ conduits, flows: [flow("flow-a-z-tcp", "stream-a-i", 3, "4000", "80"), ...OTHERS] }, async () => {
    await untilAnswered(true, 80);
    await expectHits(a, 80, FOUR);
  });
});

test("R18: a stream goes and comes back while an interface goes up and down without a pause", async () => {
  pod.host.ip("link add load-balan-0 type veth peer name other0", "link set other0 up");
  const flapping = pod.host.start(
    "sh",
    "-c",
    "while :; do ip link set load-balan-0 up; ip link set load-balan-0 down; done",
  );
  try {
    for (let round = 0; round < 3; round++) {
      a.apply({ ...trenchA, streams: [], flows: [] });
      await pod.untilActive("stream-a-i", null, IN_FORCE_MS);
      a.apply(trenchA);
      await pod.untilActive("stream-a-i", 4, IN_FORCE_MS);
    }
  } finally {
    await flapping();
  }
  await pod.untilQueued(VIPS[6]);
  await expectHits(a, 4000, FOUR);
});

test("delete-create-trench: everything goes and comes anew", async () => {
  expect(await pod.stop()).toBe(0);
  await a.nsp.kill();
  rmSync(join(SHM, "nsp-trench-a.db"));
  await a.start();
  pod = await a.pod("conduit-a-1", OWN);
  for (const i of FOUR) await a.open(target(i), inI(), OWN);
  await pod.untilActive("stream-a-i", 4, 10_000);
  await pod.untilQueued(VIPS[6]);
  await expectHits(a, 4000, FOUR);
  await expectHits(a, 4003, FOUR, { protocol: "udp" });
  await expectHits(b, 4000, FOUR_OF_B);
});
