import { afterAll, beforeAll, expect, test } from "vitest";
import { clientAddress, type Family, VIPS } from "../harness/flows.js";
import { echoRequest, icmpError, ipPacket, sctp, TCP, tcp, UDP, udp } from "../harness/packets.js";
import { BALANCE, targetRoutes } from "../harness/recipe.js";
import { shell, Wire } from "../harness/wire.js";

const TARGETS = 4;
const FAMILIES = [4, 6] as const;
let wire: Wire;

beforeAll(async () => {
  wire = await Wire.open(TARGETS);
  shell(`${targetRoutes(TARGETS)}
    ${BALANCE}
    nfqlb init
    nfqlb activate 101 102 103 104`);
});

afterAll(() => wire.close());

const vip = (family: Family) => VIPS[family];
const toVip = (flow: number, family: Family) => ({ source: clientAddress(flow, family), destination: vip(family) });
const fromVip = (flow: number, family: Family) => ({ source: vip(family), destination: clientAddress(flow, family) });

/** One of each error, about a packet from the VIP to a client; the second word is an MTU or a pointer. */
const ERRORS = {
  4: [3, 4, 5, 11, 12].map((type) => [type, type === 3 ? 4 : 0] as const),
  6: [1, 2, 3, 4].map((type) => [type, 0] as const),
} as const;

/** IPv6 only: the packet with a Hop-by-Hop and a Destination Options header, and perhaps a Fragment header, in it. */
function withHeaders(bytes: Uint8Array, fragmentField: number | null): Uint8Array {
  const next = bytes[6]!;
  const fragment = fragmentField === null ? [] : [60, 0, fragmentField >> 8, fragmentField & 255, 0xca, 0xfe, 0, 1];
  const chain = [
    fragmentField === null ? 60 : 44,
    0,
    1,
    4,
    0,
    0,
    0,
    0,
    ...fragment,
    next,
    1,
    1,
    12,
    ...Array(12).fill(0),
  ];
  const header = bytes.slice(0, 40);
  header[6] = 0;
  new DataView(header.buffer).setUint16(4, bytes.length - 40 + chain.length);
  return Uint8Array.from([...header, ...chain, ...bytes.slice(40)]);
}

test.each(FAMILIES)(
  "every kind of error, IPv%i, comes to the target of the connection that it quotes",
  async (family) => {
    await wire.serve("lb");
    const FLOWS = 12;
    const packets: Uint8Array[] = [];
    const perFlow: number[] = [];
    for (let flow = 0; flow < FLOWS; flow++) {
      const start = packets.length;
      const ports = { sourcePort: 40_000 + flow * 13, destinationPort: 6000 };
      const answer = { ...fromVip(flow, family), sourcePort: ports.destinationPort, destinationPort: ports.sourcePort };
      const kinds = [
        [udp({ ...toVip(flow, family), ...ports }), udp(answer, [1, 2, 3])],
        [tcp({ ...toVip(flow, family), ...ports }, 16), tcp(answer, 16)],
        [sctp({ ...toVip(flow, family), ...ports }), sctp(answer)],
      ] as const;
      const [packet, quoted] = kinds[flow % 3]!;
      packets.push(packet);
      const quotes = family === 4 ? [quoted] : [quoted, withHeaders(quoted, null), withHeaders(quoted, 1)];
      for (const quote of quotes)
        for (const [type, code] of ERRORS[family])
          packets.push(
            icmpError({ source: clientAddress(500 + flow, family), destination: vip(family) }, type, code, 1400, quote),
          );
      perFlow.push(packets.length - start);
    }
    const { targets, outcomes } = await wire.deliver(packets, packets.length);
    expect(outcomes).toEqual({ forwarded: packets.length });
    for (let flow = 0, at = 0; flow < FLOWS; at += perFlow[flow]!, flow++)
      expect(new Set(targets.slice(at, at + perFlow[flow]!)), `flow ${flow}`).toEqual(new Set([targets[at]]));
    expect(new Set(targets).size).toBe(TARGETS);
  },
);

test.each(FAMILIES)("errors about later fragments, IPv%i, follow the one about the first", async (family) => {
  await wire.serve("lb --ft_ttl=60000");
  const FLOWS = 8;
  const firsts: Uint8Array[] = [];
  const laters: Uint8Array[] = [];
  const clients: Uint8Array[] = [];
  for (let flow = 0; flow < FLOWS; flow++) {
    const port = 41_000 + flow * 17;
    clients.push(udp({ ...toVip(flow, family), sourcePort: port, destinationPort: 6000 }));
    const whole = udp({ ...fromVip(flow, family), sourcePort: 6000, destinationPort: port }, [1, 2, 3]);
    const router = { source: clientAddress(500 + flow, family), destination: vip(family) };
    for (const [list, field] of [
      [firsts, family === 4 ? 0x2000 : 1],
      [laters, family === 4 ? 160 : 160 << 3],
    ] as const) {
      const isLater = list === laters;
      const payload = isLater ? Uint8Array.from([9, 9, 9, 9, 9, 9, 9, 9]) : whole.slice(family === 4 ? 20 : 40);
      const quoted = ipPacket(fromVip(flow, family), UDP, payload);
      if (family === 4) new DataView(quoted.buffer).setUint16(6, field);
      const quote = family === 4 ? quoted : withHeaders(quoted, field);
      list.push(icmpError(router, family === 4 ? 3 : 2, family === 4 ? 4 : 0, 1400, quote));
    }
  }
  const unknown = await wire.deliver(laters, 0);
  expect(unknown).toEqual({ targets: laters.map(() => -1), outcomes: { unusable: FLOWS } });
  const own = await wire.deliver(clients, FLOWS);
  expect(await wire.deliver(firsts, FLOWS)).toEqual({ targets: own.targets, outcomes: { forwarded: FLOWS } });
  expect(await wire.deliver(laters, FLOWS)).toEqual({ targets: own.targets, outcomes: { fragment: FLOWS } });
  expect(new Set(own.targets).size).toBeGreaterThan(1);
});

/** For what takes milliseconds on a quiet machine. */
const PATIENCE = { timeout: 10_000 };
const IDENTIFIERS = 40;
const REQUESTS = 3;

/** Echo requests of one client with several identifiers, 3 each. */
const pings = (family: Family) =>
  Array.from({ length: IDENTIFIERS * REQUESTS }, (_, i) =>
    echoRequest(toVip(3, family), 0x1000 + Math.floor(i / REQUESTS) * 7, 1 + (i % REQUESTS)),
  );

/** Identifier and sequence number of an echo message, as one text. */
const echoOf = (bytes: Uint8Array) => {
  const l4 = bytes[0]! >> 4 === 4 ? 20 : 40;
  return Buffer.from(bytes.slice(l4 + 4, l4 + 8)).toString("hex");
};
const isReply = (bytes: Uint8Array) =>
  bytes[0]! >> 4 === 4 ? bytes[9] === 1 && bytes[20] === 0 : bytes[6] === 58 && bytes[40] === 129;

/** Sends the pings; all must be answered once, and each identifier by one target. */
async function expectPings(family: Family): Promise<readonly number[]> {
  const packets = pings(family);
  await wire.toClient();
  const { targets, outcomes } = await wire.deliver(packets, packets.length);
  expect(outcomes).toEqual({ forwarded: packets.length });
  for (let i = 0; i < packets.length; i += REQUESTS)
    expect(new Set(targets.slice(i, i + REQUESTS)), `identifier ${i / REQUESTS}`).toEqual(new Set([targets[i]]));
  const replies: string[] = [];
  await expect
    .poll(async () => {
      replies.push(...(await wire.toClient()).filter(isReply).map(echoOf));
      return replies.length;
    }, PATIENCE)
    .toBe(packets.length);
  expect(replies.toSorted()).toEqual(packets.map(echoOf).toSorted());
  return targets;
}

test.each(FAMILIES)("ping, IPv%i: identifiers spread over the targets, each is answered by one", async (family) => {
  await wire.serve("lb");
  expect(new Set(await expectPings(family)).size).toBe(TARGETS);
});

test.each(FAMILIES)("promiscuous ping, IPv%i: echo requests alone match a flow by its addresses", async (family) => {
  const tcpFlow = `nfqlb flow-set --name=web --target=nfqlb --protocols=tcp --dports=80 --dsts=${VIPS[4]}/32,${VIPS[6]}/128`;
  const request = pings(family)[0]!;
  request[request.length - 20 - 4] = family === 4 ? 13 : 127; // a type that is neither echo nor error
  const count = IDENTIFIERS * REQUESTS;

  await wire.serve("flowlb");
  shell(tcpFlow);
  expect((await wire.deliver(pings(family), 0)).outcomes).toEqual({ noFlow: count });
  shell("nfqlb flow-set --name=all --target=nfqlb");
  expect(new Set(await expectPings(family)).size).toBe(TARGETS);
  shell("nfqlb flow-delete --name=all");
  await wire.serve("flowlb --promiscuous_ping");
  expect(new Set(await expectPings(family)).size).toBe(TARGETS);
  expect((await wire.deliver([request], 0)).outcomes).toEqual({ noFlow: 1 });
  shell("nfqlb flow-delete --name=web");
});

/** Errors that the router has sent because a packet was too big. */
function errorsSent(family: Family): number {
  const { router } = wire.topology.hosts;
  if (family === 6) return Number(/Icmp6OutPktTooBigs\s+(\d+)/.exec(router.run("cat", "/proc/net/snmp6"))![1]);
  const [names, values] = router
    .run("cat", "/proc/net/snmp")
    .split("\n")
    .filter((line) => line.startsWith("Icmp:"))
    .map((line) => line.split(" "));
  return Number(values![names!.indexOf("OutDestUnreachs")]);
}

/** What a captured packet is about: a connection that opens, or an error about one; `client:port` either way. */
function about(bytes: Uint8Array): { readonly kind: "syn" | "error"; readonly client: string } | null {
  const is4 = bytes[0]! >> 4 === 4;
  const l4 = is4 ? (bytes[0]! & 15) * 4 : 40;
  const protocol = bytes[is4 ? 9 : 6];
  const end = (at: number, from: number, length: number) =>
    Buffer.from(bytes.slice(at + from, at + from + length)).toString("hex");
  const [source, destination, length] = is4 ? [12, 16, 4] : [8, 24, 16];
  if (protocol === TCP && (bytes[l4 + 13]! & 0x12) === 2)
    return { kind: "syn", client: `${end(0, source, length)}:${end(l4, 0, 2)}` };
  if (!(is4 ? protocol === 1 && bytes[l4] === 3 && bytes[l4 + 1] === 4 : protocol === 58 && bytes[l4] === 2))
    return null;
  const quoted = l4 + 8;
  const ports = quoted + (is4 ? (bytes[quoted]! & 15) * 4 : 40);
  return { kind: "error", client: `${end(quoted, destination, length)}:${end(ports, 2, 2)}` };
}

/** Errors about packets that were too big, by whether they came to the target that has the connection. */
async function errorsAtTargets(family: Family): Promise<{ readonly right: number; readonly wrong: number }> {
  const perTarget = (await wire.toTargets()).map((packets) =>
    packets
      .filter(([first]) => first! >> 4 === family)
      .map(about)
      .filter((one) => one !== null),
  );
  const counts = { right: 0, wrong: 0 };
  for (const packets of perTarget) {
    const own = new Set(packets.filter(({ kind }) => kind === "syn").map(({ client }) => client));
    for (const { kind, client } of packets) if (kind === "error") counts[own.has(client) ? "right" : "wrong"]++;
  }
  return counts;
}

// Last, because the connections of the control run go on trying, and would be counted among others' packets.
test.each(FAMILIES)(
  "path-MTU discovery through a VIP, IPv%i: each error comes to the target that it is about",
  async (family) => {
    wire.topology.hosts.router.ip("link set client mtu 1400"); // the client itself still announces segments of 1500-byte packets
    await wire.serve("lb");
    const CONNECTIONS = 24;
    const BYTES = 200_000;
    await wire.toTargets();
    const before = errorsSent(family);
    const result = await wire.topology.sendTcp(family, CONNECTIONS, { bytes: BYTES, stallMs: 10_000 });
    expect(result.failures).toEqual([]);
    expect(result.answered).toBe(CONNECTIONS);
    expect(Object.keys(result.targets).length).toBeGreaterThan(1);
    const sent = errorsSent(family) - before;
    expect(sent).toBeGreaterThanOrEqual(CONNECTIONS); // every connection needs one at least
    expect(await errorsAtTargets(family)).toEqual({ right: sent, wrong: 0 });

    // The control: errors that all go to one target, as a balancer sends them that does not look inside. Others stand still.
    const [iptables, icmp] = family === 4 ? ["iptables", "icmp"] : ["ip6tables", "icmpv6"];
    shell(`${iptables} -t mangle -I PREROUTING -i uplink -p ${icmp} -d ${vip(family)} -j ACCEPT
    ${iptables} -t mangle -I PREROUTING -i uplink -p ${icmp} -d ${vip(family)} -j MARK --set-mark 101`);
    const control = await wire.topology.sendTcp(family, 8, { first: 100, bytes: BYTES, stallMs: 1_500 });
    shell(`${iptables} -t mangle -D PREROUTING 1; ${iptables} -t mangle -D PREROUTING 1`);
    expect(Object.keys(control.targets).filter((name) => name !== "t1")).toEqual([]);
    expect(control.failures).toHaveLength(8 - control.answered);
    expect(control.failures.length).toBeGreaterThan(0);
    wire.topology.hosts.router.ip("link set client mtu 1500");
  },
);
