import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { COUNTER_PACKETS } from "#tables";
import { until } from "../harness/balancer.js";
import { echoRequest, fragmentationNeeded, ipv4, ipv6, PROTOCOL, sctp, tcp, udp } from "../harness/raw-packets.js";
import {
  CLIENT4,
  CLIENT6,
  counted,
  folder,
  type Line,
  nfqlb,
  running,
  startAll,
  stopAll,
  Trace,
  udp4,
  VIP4,
  VIP6,
} from "../harness/traced.js";
import { readPcapngStrictly } from "../oracle/pcapng.js";

/** Destination port of the packet that ends a trace: what was sent before it has been seen. */
const LAST_PORT = 9_999;
const MORE_FRAGMENTS = 0x2000;

const last = () => udp4(1, LAST_PORT);
const first = ipv4(CLIENT4, VIP4, PROTOCOL.udp, udp(1_000, 5_000, 24), {
  identification: 77,
  fragment: MORE_FRAGMENTS,
});
const later = ipv4(CLIENT4, VIP4, PROTOCOL.udp, new Uint8Array(16), { identification: 77, fragment: 4 });
const unknownLater = ipv4("192.0.2.8", VIP4, PROTOCOL.udp, new Uint8Array(16), { identification: 78, fragment: 4 });
const unusable = ipv4(CLIENT4, VIP4, PROTOCOL.tcp, new Uint8Array(2));
/** One of every kind. */
const MIX: readonly Uint8Array[] = [
  udp4(1_000, 5_000),
  udp4(1_001, 5_000, 1_172),
  ipv6(CLIENT6, VIP6, PROTOCOL.udp, udp(1_000, 5_000, 4)),
  ipv4(CLIENT4, VIP4, PROTOCOL.tcp, tcp(1_000, 80, 0x02)),
  ipv4(CLIENT4, VIP4, PROTOCOL.tcp, tcp(1_000, 80, 0x10)),
  ipv4("192.0.2.8", VIP4, PROTOCOL.tcp, tcp(1_000, 80, 0x12)),
  ipv4(CLIENT4, VIP4, PROTOCOL.sctp, sctp(1_000, 6_000)),
  ipv4(CLIENT4, VIP4, PROTOCOL.gre, new Uint8Array(8)),
  ipv4(
    "192.0.2.1",
    VIP4,
    PROTOCOL.icmp,
    fragmentationNeeded(1_400, ipv4(VIP4, CLIENT4, PROTOCOL.tcp, tcp(80, 1_000, 0))),
  ),
  first,
  later,
  unknownLater,
  unusable,
  ipv4(CLIENT4, VIP4, PROTOCOL.icmp, echoRequest(7)),
];

beforeAll(startAll);
afterAll(stopAll);

test("trace rules are set, listed and deleted as upstream documents it", () => {
  const all = [
    "--protocols=tcp,udp",
    `--dsts=${VIP4}/32`,
    "--dports=80",
    "--sports=1-9",
    "--srcs=::/0",
    "--match=tcp[0:2]=5",
  ];
  expect(nfqlb("trace-flow-set", '--name=a "b"', ...all)).toEqual({ stdout: "OK\n", stderr: "", status: 0 });
  expect(nfqlb("trace-flow-set", "--name=any")).toEqual({ stdout: "OK\n", stderr: "", status: 0 });
  expect(nfqlb("trace-flow-list-names")).toEqual({ stdout: '[\n  "a \\"b\\"",\n  "any"\n]\n', stderr: "", status: 0 });
  expect(nfqlb("trace-flow-list", "--name=any").stdout).toBe(
    '{\n  "name": "any",\n  "priority": 0,\n  "matches_count": 0\n}',
  );
  expect(JSON.parse(nfqlb("trace-flow-list").stdout)).toMatchObject([
    { name: 'a "b"', protocols: ["tcp", "udp"], dports: ["80"], match: ["tcp[0:2]=0x5"] },
    { name: "any" },
  ]);
  expect(nfqlb("trace-flow-set", "--name=x", "--protocols=tipc")).toMatchObject({
    stdout: expect.stringMatching(/^Invalid protocols: flow "[^"]*", protocols "[^"]*": .*\n$/),
    status: 255,
  });
  expect(nfqlb("trace-flow-set", "--name=x", "--dports=1")).toMatchObject({ status: 1 });
  expect(nfqlb("trace-flow-set", "--name=x", "--target=web")).toMatchObject({ status: 1 });
  expect(nfqlb("flow-list-names").stdout).toBe('[\n  "8",\n  "http",\n  "udp"\n]\n'); // the flow rules are others
  for (const name of ['a "b"', "any", "unknown"]) {
    expect(nfqlb("trace-flow-delete", `--name=${name}`)).toEqual({ stdout: "OK\n", stderr: "", status: 0 });
  }
  expect(nfqlb("trace-flow-list").stdout).toBe("[]\n");
});

test("a trace without selection, with two, or with one that does not exist says so", () => {
  for (const args of [[], ["--mask=2", "--selection=packet"]]) {
    expect(nfqlb("trace", ...args)).toEqual({
      stdout: "",
      stderr: "Specify any of --mask or --selection\n",
      status: 1,
    });
  }
  expect(nfqlb("trace", "--selection=packets").stderr).toMatch(/Invalid --selection \[packets\]; of log,packet,frag/);
  expect(nfqlb("trace", "--mask=09").stderr).toMatch(/Invalid --mask/);
  for (const text of ["--mask=0x40", "--mask=0100", "--mask=64", "--selection=flows"]) {
    expect(nfqlb("trace", text, "--duration=0.001").stdout).toBe("Mask=0x00000040\nTrace active, mask=0x00000040\n");
  }
});

test("trace rules select exactly the packets they name, in upstream's order of rules", async () => {
  const rules: [string, ...string[]][] = [
    ["pmtu", "--protocols=tcp", "--sports=1000", "--match=tcp[13:1]=0xff"],
    ["syn", "--protocols=tcp", "--match=tcp[13:1]&0x12=0x02"],
    ["v6", "--dsts=::/0", "--srcs=2001:db8:c::/64"],
    ["from8", "--srcs=192.0.2.8/32"],
    ["port5000", "--protocols=udp", "--dports=5000", `--dsts=${VIP4}/32`],
    ["sctp", "--protocols=sctp"],
    ["end", "--protocols=udp", `--dports=${LAST_PORT}`],
  ];
  for (const [name, ...args] of rules) expect(nfqlb("trace-flow-set", `--name=${name}`, ...args).status).toBe(0);
  const trace = await Trace.start("--selection=flows", "--json", "--count=11");
  for (const packet of [...MIX, last()]) running.sender.send(packet);
  expect(await trace.ended()).toBe(0);
  // An ICMP error is found by the packet it quotes and passes byte matches of other protocols, a ping by its addresses alone
  // (nfqlb 1.2.0, docs on promiscuous ping and match), and so is a later fragment (decision 0021).
  const want = ["port5000", "port5000", "v6", "syn", "from8", "sctp", "pmtu", "port5000", "from8", "pmtu", "end"].map(
    (rule, i) => [rule, i + 1],
  );
  const got = trace.json().map((line) => [line["trace"], line["n"]]);
  expect(got).toEqual(want);
  const matches = (JSON.parse(nfqlb("trace-flow-list").stdout) as { matches_count: number }[]).map(
    (one) => one.matches_count,
  );
  expect(matches).toEqual([2, 1, 1, 2, 3, 1, 1]);
  for (const [name] of rules) nfqlb("trace-flow-delete", `--name=${name}`);
});

test("the other selections take what their names say", async () => {
  const kinds: Record<string, readonly Uint8Array[]> = {
    packet: [...MIX, last()],
    frag: [first, later, unknownLater],
    sctp: [MIX[6]!],
    target: [...MIX.slice(0, 7), MIX[8]!, first, last()],
  };
  const traces = await Promise.all(
    Object.keys(kinds).map((name) => Trace.start(`--selection=${name}`, `--count=${kinds[name]!.length}`, "--json")),
  );
  for (const packet of [...MIX, last()]) running.sender.send(packet);
  for (const [i, [name, packets]] of Object.entries(kinds).entries()) {
    expect(await traces[i]!.ended(), name).toBe(0);
    const lines = traces[i]!.json();
    expect(
      lines.map((line) => line["len"]),
      name,
    ).toEqual(packets.map(({ length }) => length));
    expect(lines.every((line) => (line["selection"] as string[]).join() === name)).toBe(true);
  }
});

test("the text has upstream's form", async () => {
  nfqlb("trace-flow-set", "--name=all");
  const trace = await Trace.start("--selection=flows", "--count=4");
  for (const packet of [MIX[8]!, MIX[7]!, MIX[5]!, MIX[3]!]) running.sender.send(packet);
  await trace.ended();
  nfqlb("trace-flow-delete", "--name=all");
  const blocks = trace.stdout.split("\n\n").map((block) => block.split("\n"));
  expect(blocks[0]).toEqual(["Mask=0x00000040", "Trace active, mask=0x00000040"]);
  expect(blocks.slice(1).map((lines) => lines.slice(0, lines[1]!.startsWith("ICMP") ? 4 : 3))).toEqual([
    [
      "Match for trace-flow: all",
      "ICMP_DEST_UNREACH/FRAG_NEEDED: mtu=1400",
      "proto=tcp, len=56, ::ffff:192.0.2.7 1000 -> ::ffff:10.0.0.1 80",
      expect.stringMatching(/^target=web, fwmark=10[123]$/),
    ],
    ["Match for trace-flow: all", "proto=47, len=28, ::ffff:192.0.2.7 0 -> ::ffff:10.0.0.1 0", "NO target, fwmark=-1"],
    [
      "Match for trace-flow: all",
      "proto=tcp, len=40, ::ffff:192.0.2.8 1000 -> ::ffff:10.0.0.1 80",
      "NO servers, target=empty, fwmark=-1",
    ],
    [
      "Match for trace-flow: all",
      "proto=tcp, len=40, ::ffff:192.0.2.7 1000 -> ::ffff:10.0.0.1 80",
      expect.stringMatching(/^target=web, fwmark=10[123]$/),
    ],
  ]);
});

test("a capture file holds the packets sent, and explain decides them as the data plane did", async () => {
  const path = join(folder, "trace.pcapng");
  const count = MIX.length;
  const trace = await Trace.start("--selection=packet", "--json", `--write=${path}`, `--count=${count}`);
  expect(readPcapngStrictly(readFileSync(path))).toEqual([]); // readable before the first packet
  const startNs = BigInt(Date.now()) * 1_000_000n;
  for (const packet of MIX) running.sender.send(packet);
  expect(await trace.ended()).toBe(0);
  const endNs = BigInt(Date.now() + 1) * 1_000_000n;
  const packets = readPcapngStrictly(readFileSync(path));
  expect(packets.map(({ bytes }) => Buffer.from(bytes).toString("hex"))).toEqual(
    MIX.map((packet) => Buffer.from(packet.subarray(0, 256)).toString("hex")),
  );
  expect(packets.map(({ originalLength }) => originalLength)).toEqual(MIX.map(({ length }) => length));
  for (const { interfaceName, queue, timestampNs } of packets) {
    expect([interfaceName, queue]).toEqual(["nfqlb", 4]);
    expect(timestampNs > startNs - 1_000_000n && timestampNs < endNs).toBe(true);
  }
  const explained = nfqlb("explain", "--json", `--pcap=${path}`)
    .stdout.trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Line & { readonly missing?: number });
  expect(explained.map(({ missing = 0 }) => missing)).toEqual(MIX.map(({ length }) => Math.max(0, length - 256)));
  for (const line of explained) delete (line as { missing?: number }).missing;
  const traced = trace.json();
  const decisions = traced.map(({ time: _t, queue: _q, trace: _r, len: _l, selection: _s, ...decision }) => decision);
  expect(decisions).toEqual(explained);
  expect(Object.keys(traced[0]!)).toEqual([
    ...Object.keys(explained[0]!),
    "time",
    "queue",
    "trace",
    "len",
    "selection",
  ]);
  for (const [i, { comments }] of packets.entries()) {
    const { verdict, reason } = explained[i]!;
    expect(comments).toHaveLength(1);
    expect(comments[0]).toMatch(/^[^\n]+$/);
    expect(comments[0]).toContain(String(verdict));
    expect(comments[0]).toContain(String(reason));
  }
});

test("two watchers both see every packet once; beyond the rate what is missing is counted, and no packet is lost", async () => {
  const before = counted(COUNTER_PACKETS);
  const watchers = await Promise.all([
    Trace.start("--selection=packet", "--json"),
    Trace.start("--mask=0x22", "--json"),
  ]);
  const sourcePorts = Array.from({ length: 600 }, (_, i) => 2_000 + i);
  for (const port of sourcePorts) running.sender.send(udp4(port, 5_000));
  for (const watcher of watchers) {
    await until("600 packets", () => (watcher.json().length >= 600 ? true : null));
    expect(watcher.json().map((line) => line["sport"])).toEqual(sourcePorts);
  }
  const flood = 2_500;
  for (let i = 0; i < flood; i++) running.sender.send(udp4(20_000 + i, 5_000));
  await until("all decided", () => (counted(COUNTER_PACKETS) - before === 600 + flood ? true : null));
  for (const watcher of watchers) expect(await watcher.stop()).toBe(0);
  const [plain] = watchers;
  const missing = Number(/--trace_rate: packet (\d+)\n$/.exec(plain!.stderr)?.[1]);
  const lost = Number(/too slow: (\d+)\n/.exec(plain!.stderr)?.[1] ?? 0); // on a machine that stalls for a second
  expect(plain!.json().length + missing + lost).toBe(600 + flood);
  expect(missing).toBeGreaterThan(0);
  expect(new Set(plain!.json().map((line) => line["sport"])).size).toBe(plain!.json().length);
});
