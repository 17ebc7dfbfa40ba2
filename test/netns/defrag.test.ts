import { readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type DesiredKernel, diff, NOTHING_DESIRED, Steering } from "#steering";
import { CLIENT, LINE_VIPS, Line, TARGET_LINK } from "../harness/line.js";
import { enterFreshNamespaces, run } from "../harness/namespace.js";
import { fragments, type Ports, sctp, udp } from "../harness/packets.js";

const FAMILIES = [4, 6] as const;
let line: Line;
let steering: Steering;

const desired: DesiredKernel = {
  ...NOTHING_DESIRED,
  queue: { first: 0, last: 0, isFanout: false },
  targetInterfaces: TARGET_LINK.slice(0, 10),
};

function reach(wanted: DesiredKernel): void {
  const plan = diff(wanted, steering.read());
  expect(steering.apply([...plan.additions, ...plan.vips, ...plan.removals])).toEqual([]);
}

beforeAll(async () => {
  enterFreshNamespaces();
  line = await Line.create();
  steering = new Steering();
  // Fragments as they come by where the data plane would get them.
  run(
    "nft",
    `table inet seen { counter uplink { packets 0 bytes 0 }
      counter target { packets 0 bytes 0 }
      chain see { type filter hook prerouting priority 0;
        iifname uplink ip frag-off & 0x3fff != 0 counter name uplink
        iifname uplink exthdr frag exists counter name uplink
        iifname ${TARGET_LINK} ip frag-off & 0x3fff != 0 counter name target
        iifname ${TARGET_LINK} exthdr frag exists counter name target
      }
    }`,
  );
});

afterAll(() => {
  steering[Symbol.dispose]();
  line.close();
});

/** Fragments seen since the last call, by where they came from. */
function seen(): Readonly<Record<string, number>> {
  const listing = run("nft", "reset", "counters", "table", "inet", "seen");
  return Object.fromEntries(
    [...listing.matchAll(/counter (\w+) \{\s+packets (\d+)/g)].map(([, name, packets]) => [name, Number(packets)]),
  );
}

const request = (family: 4 | 6): Ports => ({
  source: CLIENT[family],
  destination: LINE_VIPS[family],
  sourcePort: 40_000,
  destinationPort: 81,
});
const answer = (family: 4 | 6): Ports => ({
  source: LINE_VIPS[family],
  destination: CLIENT[family],
  sourcePort: 81,
  destinationPort: 40_000,
});
const parts = (packet: Uint8Array, identification: number, bytes = 1_000) => fragments(packet, identification, bytes);
const payload = Array.from({ length: 2_500 }, (_, i) => i & 255);

test("without a prefix of interfaces fragments stay what they are, from everywhere", async () => {
  reach({ ...desired, targetInterfaces: null });
  expect(run("nft", "list", "tables")).not.toContain("meridio-defrag");
  seen();
  const sent = FAMILIES.flatMap((family) => parts(udp(request(family), payload), 0x100 + family));
  expect(await line.passes("client", sent, sent)).toMatchObject({ missing: [] });
  expect(seen()).toEqual({ uplink: 6, target: 0 });
});

test("meridio-defrag: what comes from outside is whole when it is looked at, what comes from targets stays in fragments", async () => {
  reach(desired);
  expect(
    run("nft", "list", "table", "inet", "meridio-defrag")
      .replace(/ comment "[^"]*"/g, "")
      .replace(/\s+/g, " "),
  ).toContain(
    'chain pre-defrag { type filter hook prerouting priority -500; policy accept; iifname "load-balan*" notrack }' +
      " chain in { type filter hook prerouting priority raw; policy accept; notrack ct state untracked accept }" +
      " chain out { type filter hook output priority raw; policy accept; notrack }",
  );
  seen();
  for (const family of FAMILIES) {
    const sent = parts(udp(request(family), payload), 0x200 + family);
    const back = parts(udp(answer(family), payload), 0x300 + family);
    // They leave in fragments again, no larger than they came.
    expect((await line.passes("client", sent, family === 4 ? sent : [])).missing).toEqual([]);
    expect((await line.passes("target", back, back)).missing).toEqual([]);
  }
  expect(seen()).toEqual({ uplink: 0, target: 6 });
});

test("connection tracking keeps nothing", async () => {
  reach(desired);
  for (const family of FAMILIES) {
    await line.serve(LINE_VIPS[family], 8080);
    expect(await line.echo("udp", LINE_VIPS[family], 8080, 3_000)).toEqual({ isEqual: true });
    expect(await line.echo("tcp", LINE_VIPS[family], 8080, 3_000)).toEqual({ isEqual: true });
  }
  expect(readFileSync("/proc/sys/net/netfilter/nf_conntrack_count", "utf8").trim()).toBe("0");
});

test("with a port NAT of SCTP, whose checksum covers all of a packet, answers of targets in fragments are translated too", async () => {
  const nat = {
    protocol: "sctp",
    port: 81,
    targetPort: 8181,
    vips: Object.values(LINE_VIPS).map((vip) => `${vip}/${vip.includes(":") ? 128 : 32}`),
  } as const;
  reach({ ...desired, portNats: [nat] });
  seen();
  for (const family of FAMILIES) {
    const fromTarget = sctp({ ...answer(family), sourcePort: 8181 }, { body: 900 });
    const toClient = sctp(answer(family), { body: 900 });
    const expected = parts(toClient, 0x400 + family, 504);
    await line.captured(line.packets.client);
    await line.passes("target", parts(fromTarget, 0x400 + family, 504), family === 4 ? expected : []);
    // IPv6 may cut elsewhere, or not at all: what counts is what they are together.
    const got = async () => Buffer.concat((await line.captured(line.packets.client)).map((bytes) => bytes.slice(40)));
    if (family === 6)
      await expect.poll(async () => (await got()).includes(Buffer.from(toClient.slice(40, 500)))).toBe(true);
  }
  expect(seen()).toEqual({ uplink: 0, target: 0 });
  reach({ ...desired, portNats: [] });
  const udpBack = parts(udp(answer(4), payload), 0x500);
  expect((await line.passes("target", udpBack, udpBack)).missing).toEqual([]);
  expect(seen()).toEqual({ uplink: 0, target: 3 });
});
