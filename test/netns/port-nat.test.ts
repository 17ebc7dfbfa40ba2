// Port NAT on real packets: what leaves is, byte for byte, what a sender would have sent to (or from) the other port.
import { afterAll, beforeAll, expect, test } from "vitest";
import { type DesiredKernel, diff, NOTHING_DESIRED, Steering } from "#steering";
import { CLIENT, LINE_VIPS, Line, OTHER_VIPS, TARGET, TARGET_LINK } from "../harness/line.js";
import { enterFreshNamespaces, run } from "../harness/namespace.js";
import { echoRequest, fragments, icmpError, ipPacket, type Ports, sctp, tcp, udp } from "../harness/packets.js";

const FAMILIES = [4, 6] as const;
const PORT = 80;
const TARGET_PORT = 8080;
const protocols = ["tcp", "udp", "sctp"] as const;
let line: Line;
let steering: Steering;

const vips = [`${LINE_VIPS[4]}/32`, `${LINE_VIPS[6]}/128`];
const desiredOf = (more: Partial<DesiredKernel> = {}): DesiredKernel => ({
  ...NOTHING_DESIRED,
  queue: { first: 0, last: 0, isFanout: false },
  portNats: protocols.map((protocol) => ({ protocol, port: PORT, targetPort: TARGET_PORT, vips })),
  ...more,
});

/** Puts a desired state in force and checks that nothing is left to do. */
function reach(desired: DesiredKernel): void {
  const plan = diff(desired, steering.read());
  expect(steering.apply([...plan.additions, ...plan.vips, ...plan.removals])).toEqual([]);
  const { additions, vips: queueing, removals } = diff(desired, steering.read());
  expect([...additions, ...queueing, ...removals]).toEqual([]);
}

beforeAll(async () => {
  enterFreshNamespaces();
  line = await Line.create();
  steering = new Steering();
  reach(desiredOf());
});

afterAll(() => {
  steering[Symbol.dispose]();
  line.close();
});

const request = (family: 4 | 6, destinationPort: number, sourcePort = 40_000): Ports => ({
  source: CLIENT[family],
  destination: LINE_VIPS[family],
  sourcePort,
  destinationPort,
});
const answer = (family: 4 | 6, sourcePort: number, destinationPort = 40_000): Ports => ({
  source: LINE_VIPS[family],
  destination: CLIENT[family],
  sourcePort,
  destinationPort,
});
const text = (length: number) => Array.from({ length }, (_, i) => 65 + (i % 26));

/** A UDP datagram as a sender makes it: a checksum that comes out as zero is sent as ones. */
function datagram(ports: Ports, payload: readonly number[], isChecked = true): Uint8Array {
  const bytes = udp(ports, payload);
  const at = (ports.source.includes(":") ? 40 : 20) + 6;
  if (!isChecked) bytes.fill(0, at, at + 2);
  else if (bytes[at] === 0 && bytes[at + 1] === 0) bytes.fill(255, at, at + 2);
  return bytes;
}

/** A datagram of two bytes whose checksum comes out as zero. */
function zeroSum(ports: Ports): number[] {
  const bytes = udp(ports, [0, 0]);
  const at = (ports.source.includes(":") ? 40 : 20) + 6;
  return Array.from(bytes.subarray(at, at + 2));
}

test.each(FAMILIES)(
  "D1: UDP of every length is translated, both ways, IPv%i, and its payload is not touched",
  async (family) => {
    const lengths = [...Array.from({ length: 64 }, (_, i) => i), 512, 1_400];
    const make = (ports: (length: number) => Ports) => lengths.map((length) => datagram(ports(length), text(length)));
    expect(
      await line.passes(
        "client",
        make((length) => request(family, PORT, 40_000 + length)),
        make((length) => request(family, TARGET_PORT, 40_000 + length)),
      ),
    ).toMatchObject({ missing: [] });
    expect(
      await line.passes(
        "target",
        make((length) => answer(family, TARGET_PORT, 40_000 + length)),
        make((length) => answer(family, PORT, 40_000 + length)),
      ),
    ).toMatchObject({ missing: [] }); // the client's kernel answers the datagrams that nobody asked for
  },
);

test("D1: a UDP checksum of zero stays zero, and one that comes out as zero is sent as ones", async () => {
  const none = (port: number) =>
    [0, 1, 4, 20].map((length) => datagram(request(4, port, 41_000 + length), text(length), false));
  expect(await line.passes("client", none(PORT), none(TARGET_PORT))).toMatchObject({ missing: [] });
  for (const family of FAMILIES) {
    const payload = zeroSum(request(family, TARGET_PORT));
    const ones = datagram(request(family, TARGET_PORT), payload);
    expect(ones.slice(-4, -2)).toEqual(Uint8Array.of(255, 255));
    expect(await line.passes("client", [datagram(request(family, PORT), payload)], [ones])).toMatchObject({
      missing: [],
    });
  }
});

test.each(FAMILIES)("TCP is translated with a right checksum, both ways, IPv%i", async (family) => {
  const syn = (port: number) => [tcp(request(family, port), 2), tcp(request(family, port, 40_001), 16)];
  expect(await line.passes("client", syn(PORT), syn(TARGET_PORT))).toMatchObject({ missing: [] });
  const back = (port: number) => [tcp(answer(family, port), 18), tcp(answer(family, port, 40_001), 16)];
  expect(await line.passes("target", back(TARGET_PORT), back(PORT))).toMatchObject({ missing: [] });
});

test.each(FAMILIES)("D2: SCTP is translated with a new CRC32c and whole chunks, both ways, IPv%i", async (family) => {
  const bodies = [0, 4, 16, 900];
  const chunks = (ports: (i: number) => Ports) => bodies.map((body, i) => sctp(ports(i), { body, tag: 7 }));
  expect(
    await line.passes(
      "client",
      chunks((i) => request(family, PORT, 42_000 + i)),
      chunks((i) => request(family, TARGET_PORT, 42_000 + i)),
    ),
  ).toMatchObject({ missing: [] });
  expect(
    await line.passes(
      "target",
      chunks((i) => answer(family, TARGET_PORT, 42_000 + i)),
      chunks((i) => answer(family, PORT, 42_000 + i)),
    ),
  ).toMatchObject({ missing: [] });
});

test.each(FAMILIES)(
  "other ports, addresses and protocols, and the other direction, are left alone, IPv%i",
  async (family) => {
    const other = { ...request(family, PORT), destination: OTHER_VIPS[family] };
    const untouched = [
      udp(request(family, 81), text(9)),
      udp(request(family, 81, PORT), text(9)),
      udp(other, text(9)),
      tcp(other, 2),
      ipPacket(request(family, PORT), 253, udp(request(family, PORT), text(5)).slice(family === 4 ? 20 : 40)),
      echoRequest(request(family, PORT), PORT, TARGET_PORT),
    ];
    expect(await line.passes("client", untouched, untouched)).toMatchObject({ missing: [] });
  },
);

/** Errors about a packet, quoting what follows its IP header in full, or 8 bytes of it. */
function errors(
  family: 4 | 6,
  ends: { source: string; destination: string },
  quoted: Uint8Array,
  lengths: readonly number[],
) {
  const types =
    family === 4
      ? [
          [3, 3],
          [3, 4],
          [11, 0],
          [12, 0],
        ]
      : [
          [1, 4],
          [2, 0],
          [3, 0],
          [4, 0],
        ];
  return types.flatMap(([type, code]) =>
    lengths.map((length) => icmpError(ends, type!, code!, 1_400, quoted.slice(0, (family === 4 ? 20 : 40) + length))),
  );
}

test.each(FAMILIES)("ICMP errors about answers quote the target's port when they reach it, IPv%i", async (family) => {
  const fromRouter = { source: CLIENT[family], destination: LINE_VIPS[family] };
  const about = (port: number) => [
    ...errors(family, fromRouter, datagram(answer(family, port), text(40)), [8, 30, 48]),
    ...(family === 4
      ? errors(family, fromRouter, datagram(answer(family, port, 40_002), text(40), false), [8, 48])
      : []),
    ...errors(family, fromRouter, tcp(answer(family, port, 40_003), 16), [8, 16, 20]),
    ...errors(family, fromRouter, sctp(answer(family, port, 40_004), { body: 40 }), [8]),
  ];
  expect(await line.passes("client", about(PORT), about(TARGET_PORT))).toMatchObject({ missing: [] });
});

test.each(FAMILIES)("ICMP errors about requests quote the client's port when they reach it, IPv%i", async (family) => {
  for (const source of [LINE_VIPS[family], TARGET[family]]) {
    const fromTarget = { source, destination: CLIENT[family] };
    const about = (port: number) => [
      ...errors(family, fromTarget, datagram(request(family, port), text(40)), [8, 48]),
      ...errors(family, fromTarget, tcp(request(family, port, 40_003), 2), [8, 20]),
      ...errors(family, fromTarget, sctp(request(family, port, 40_004), { body: 40 }), [8]),
    ];
    expect(await line.passes("target", about(TARGET_PORT), about(PORT))).toMatchObject({ missing: [] });
  }
});

test.each(FAMILIES)(
  "what only looks like an ICMP error about a translated packet is left alone, IPv%i",
  async (family) => {
    const ends = { source: CLIENT[family], destination: LINE_VIPS[family] };
    const quoted = datagram(answer(family, PORT), text(40));
    const later = quoted.slice();
    if (family === 4) later.set([0, 5], 6); // a later fragment: no ports in it
    const untouched = [
      icmpError(ends, family === 4 ? 8 : 128, 0, 7, quoted), // an echo request that carries such a packet
      ...(family === 4
        ? [icmpError(ends, 11, 1, 0, later), icmpError(ends, 9, 0, 0, quoted), icmpError(ends, 13, 0, 0, quoted)]
        : []),
      icmpError(ends, 3, family === 4 ? 4 : 0, 0, datagram(answer(family, 81), text(40))),
      icmpError(
        ends,
        3,
        family === 4 ? 4 : 0,
        0,
        datagram({ ...answer(family, PORT), source: OTHER_VIPS[family] }, text(40)),
      ),
    ];
    expect(await line.passes("client", untouched, untouched)).toMatchObject({ missing: [] });
  },
);

test("fragments that are not reassembled: the first one is translated, the others are what they were", async () => {
  for (const [i, family] of FAMILIES.entries()) {
    const parts = (ports: Ports) => fragments(datagram(ports, text(3_000)), 0x7700 + i, 1_400);
    expect(
      await line.passes("client", parts(request(family, PORT)), parts(request(family, TARGET_PORT))),
    ).toMatchObject({
      missing: [],
    });
    expect(await line.passes("target", parts(answer(family, TARGET_PORT)), parts(answer(family, PORT)))).toMatchObject({
      missing: [],
    });
  }
});

test.each([
  ["without", null],
  ["with", TARGET_LINK.slice(0, 10)],
] as const)(
  "real sockets talk through port NAT %s the kernel's reassembly: UDP of 3,000 bytes, TCP",
  async (_, targetInterfaces) => {
    reach(desiredOf({ targetInterfaces }));
    for (const family of FAMILIES) {
      const address = LINE_VIPS[family];
      if (targetInterfaces === null) await line.serve(address, TARGET_PORT);
      for (const bytes of [0, 1, 100, 1_472, 3_000, 9_000]) {
        expect(await line.echo("udp", address, PORT, bytes), `${bytes} bytes to ${address}`).toEqual({ isEqual: true });
      }
      expect(await line.echo("tcp", address, PORT, 300_000)).toEqual({ isEqual: true });
    }
    reach(desiredOf());
  },
);

test("O18: prefixes and overlapping or adjacent VIPs are translated; a VIP that goes is not any more", async () => {
  const [nat] = desiredOf().portNats;
  const udpTo = (destination: string, port: number) => udp({ ...request(4, port), destination }, text(9));
  reach(desiredOf({ portNats: [{ ...nat!, protocol: "udp", vips: ["10.0.0.0/29", "10.0.0.1/32", "10.0.0.8/29"] }] }));
  expect(run("nft", "list", "table", "inet", "meridio-nat")).toContain("elements = { 10.0.0.0/28 }");
  const both = [LINE_VIPS[4], OTHER_VIPS[4]];
  const sent = both.map((vip) => udpTo(vip, PORT));
  expect(
    await line.passes(
      "client",
      sent,
      both.map((vip) => udpTo(vip, TARGET_PORT)),
    ),
  ).toMatchObject({ missing: [] });
  reach(desiredOf({ portNats: [{ ...nat!, protocol: "udp", vips: ["10.0.0.9/32"] }] }));
  expect(await line.passes("client", sent, [sent[0]!, udpTo(OTHER_VIPS[4], TARGET_PORT)])).toMatchObject({
    missing: [],
  });
  reach(desiredOf({ portNats: [{ ...nat!, protocol: "udp", vips: [] }] }));
  expect(await line.passes("client", sent, sent)).toMatchObject({ missing: [] });
  reach(desiredOf({ portNats: [] })); // the hook stays, empty: taking it away would cost packets
  expect(run("nft", "list", "table", "inet", "meridio-nat")).not.toMatch(/set|dport|@th/);
  reach(desiredOf());
});
