// The set-ups that upstream's documents and scripts show, typed as an operator types them, with our programs and real
// traffic: README.md and nfqlb.sh (lb), flow.md, syn-only.md, the start scripts of its function tests.
import { once } from "node:events";
import { connect } from "node:net";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { clientAddress, type Family, FLOWS, TCP_PORT, udpPacket, VIPS } from "../harness/flows.js";
import { sctp, sctpInUdp, tcp, udp } from "../harness/packets.js";
import { BALANCE, FORGET, targetRoutes } from "../harness/recipe.js";
import { shell, stopServing, untilServing, Wire } from "../harness/wire.js";

const TARGETS = 4;
/** For what takes milliseconds on a quiet machine. */
const PATIENCE = { timeout: 10_000 };
const FAMILIES = [4, 6] as const;
let wire: Wire;

beforeAll(async () => {
  wire = await Wire.open(TARGETS);
  shell(targetRoutes(TARGETS));
});

afterAll(() => wire.close());

afterEach(async () => {
  await stopServing();
  shell(FORGET);
});

/** A packet of each flow arrives; the target of each. */
async function flowsOf(family: Family): Promise<readonly number[]> {
  const packets = Array.from({ length: FLOWS }, (_, flow) => udpPacket(flow, family));
  const { targets, outcomes } = await wire.deliver(packets, FLOWS);
  expect(outcomes).toEqual({ forwarded: FLOWS });
  return targets;
}

test("lb: init, activate, rules; a target is taken out and put back", async () => {
  shell(`
    ${BALANCE}
    nfqlb init
    nfqlb activate 101 102 103 104
    nfqlb lb --queue=2 >> ${wire.log} 2>&1 &`);
  await untilServing();
  for (const family of FAMILIES) {
    const before = await flowsOf(family);
    expect(new Set(before)).toEqual(new Set([0, 1, 2, 3]));
    shell("nfqlb deactivate 102");
    const without = await flowsOf(family);
    expect(new Set(without)).toEqual(new Set([0, 2, 3]));
    const moved = before.filter((target, flow) => target !== 1 && without[flow] !== target).length;
    expect(moved).toBeLessThan(FLOWS / 20); // Maglev's small extra
    shell("nfqlb activate 102");
    expect(await flowsOf(family)).toEqual(before);
  }
  for (const family of FAMILIES)
    expect(await wire.topology.sendTcp(family, 24)).toMatchObject({ answered: 24, failures: [] });
});

test("lb for local clients: the mark chooses a destination NAT, no routes; several queues", async () => {
  shell(`
    for n in 1 2 3; do
      iptables -t nat -A OUTPUT -m mark --mark $((n + 100)) -j DNAT --to-destination 172.16.$n.2
      ip6tables -t nat -A OUTPUT -m mark --mark $((n + 100)) -j DNAT --to-destination fd16:$n::2
    done
    iptables -t mangle -A OUTPUT -d ${VIPS[4]}/32 -j NFQUEUE --queue-balance 4:6
    ip6tables -t mangle -A OUTPUT -d ${VIPS[6]}/128 -j NFQUEUE --queue-balance 4:6
    nfqlb show > /dev/null 2>&1 || nfqlb init
    nfqlb activate 101 102 103
    nfqlb lb --queue=4:6 >> ${wire.log} 2>&1 &`);
  await untilServing();
  for (const family of FAMILIES) {
    const names = await Promise.all(
      Array.from({ length: 24 }, async () => {
        const socket = connect({ host: VIPS[family], port: TCP_PORT });
        socket.setTimeout(5_000, () => socket.destroy(new Error("nothing for 5 s")));
        await once(socket, "connect");
        const { localAddress, localPort } = socket;
        socket.write("0\n");
        const [chunk] = (await once(socket, "data")) as [Buffer];
        await once(socket, "close");
        return {
          source: family === 4 ? `${localAddress}:${localPort}` : `[${localAddress}]:${localPort}`,
          name: String(chunk).trim(),
        };
      }),
    );
    expect(new Set(names.map(({ name }) => name)).size).toBeGreaterThan(1); // ports are random: not always all three
    const vip = family === 4 ? VIPS[4] : `[${VIPS[6]}]`;
    for (const { source, name } of names.slice(0, 4)) {
      const answer = shell(`nfqlb fwmark --shm=nfqlb --proto=tcp --src=${source} --dst=${vip}:${TCP_PORT}`);
      expect(name).toBe(`t${(JSON.parse(answer) as { fwmark: number }).fwmark - 100}`);
    }
  }
});

/** A flow's addresses and ports. */
const ports = (flow: number, family: Family, sourcePort: number, destinationPort: number) => ({
  source: clientAddress(flow, family),
  destination: VIPS[family],
  sourcePort,
  destinationPort,
});

test("flowlb: two tables, flows with every option, two queues; each packet goes where its flow says", async () => {
  shell(`
    iptables -t mangle -A PREROUTING -i uplink -d ${VIPS[4]}/32 -j NFQUEUE --queue-balance 2:3 --queue-bypass
    ip6tables -t mangle -A PREROUTING -i uplink -d ${VIPS[6]}/128 -j NFQUEUE --queue-balance 2:3 --queue-bypass
    nfqlb flowlb --queue=2:3 >> ${wire.log} 2>&1 &`);
  await untilServing();
  const VIP_LIST = `${VIPS[4]}/32,${VIPS[6]}/128`;
  shell(`
    nfqlb init --shm=lb-1
    nfqlb activate --shm=lb-1 101 103 103 104
    nfqlb init --shm=lb-2 --M=100 --N=4
    nfqlb activate --shm=lb-2 --index=2 102
    nfqlb flow-set --name=flow-1 --prio=100 --target=lb-1 --proto=udp,tcp --dst=${VIP_LIST} \
      --dport=22,200-300,44,20000 --src=fd99::/64,10.200.0.0/24 --sport=20000-30000
    nfqlb flow-set --name=flow-2 --prio=50 --target=lb-1 --proto=sctp --dst=${VIP_LIST} --dport=4000 --udpencap=9899
    nfqlb flow-set --name=syn --prio=90 --target=lb-2 --protocols=tcp --dports=5001 --match='tcp[13:1] & 0x12 = 0x02, tcp[2:2] = 5001'
    nfqlb flow-set --name=other --prio=10 --target=lb-2 --protocols=udp --srcs=10.200.1.0/24,fd99::100/120`);
  const LB_1 = [0, 2, 3];
  const LB_2 = [1];
  const NOWHERE = [-1];
  const plan = FAMILIES.flatMap((family) =>
    Array.from({ length: 20 }, (_, i) => i).flatMap((i): [Uint8Array, readonly number[]][] => [
      [udp(ports(i, family, 20_000 + i, 22)), LB_1],
      [udp(ports(i, family, 30_000 - i, 250)), LB_1],
      [tcp(ports(i, family, 25_000 + i, 20_000), 16), LB_1],
      [udp(ports(i, family, 19_999 - i, 22)), NOWHERE], // source port
      [udp(ports(i, family, 20_000 + i, 301)), NOWHERE], // destination port
      [udp(ports(256 + i, family, 20_000 + i, 301)), LB_2], // source address
      [tcp(ports(i, family, 1_000 + i, 5_001), 2), LB_2],
      [tcp(ports(i, family, 1_000 + i, 5_001), 16), NOWHERE], // no SYN
      [sctp(ports(i, family, 1_000 + i, 4_000)), LB_1],
      [sctpInUdp(ports(i, family, 1_000 + i, 4_000), [9_899, 9_899]), LB_1],
      [sctp(ports(i, family, 1_000 + i, 4_001)), NOWHERE],
    ]),
  );
  const packets = plan.map(([packet]) => packet);
  const arriving = plan.filter(([, targets]) => targets !== NOWHERE).length;
  const { targets, outcomes } = await wire.deliver(packets, arriving);
  expect(outcomes).toEqual({ forwarded: arriving, noFlow: packets.length - arriving });
  const wrong = plan.flatMap(([, wanted], i) => (wanted.includes(targets[i]!) ? [] : [`${i}: ${targets[i]}`]));
  expect(wrong).toEqual([]);
  expect(new Set(targets)).toEqual(new Set([-1, 0, 1, 2, 3]));
  const list = () =>
    JSON.parse(shell("nfqlb flow-list")) as { name: string; matches_count: number; user_ref: string }[];
  expect(list().map(({ name, matches_count, user_ref }) => [name, matches_count, user_ref])).toEqual([
    ["flow-1", 120, "lb-1"],
    ["syn", 40, "lb-2"],
    ["#flow-2", 40, "NULL"],
    ["flow-2", 80, "lb-1"],
    ["other", 40, "lb-2"],
  ]);
  shell("nfqlb flow-delete --name=flow-2");
  expect(JSON.parse(shell("nfqlb flow-list-names"))).toEqual(["flow-1", "syn", "other"]);
  const inUdp = [sctpInUdp(ports(7, 4, 1, 4_000), [9_899, 9_899])];
  expect((await wire.deliver(inUdp, 0)).outcomes).toEqual({ noFlow: 1 });
});

/** Where packets with the marks 77 (no target) and 78 (no flow) go: targets 4 and 3, as another service would take them. */
const MARKED = `
  ip rule add fwmark 77 table 104
  ip -6 rule add fwmark 77 table 104
  ip rule add fwmark 78 table 103
  ip -6 rule add fwmark 78 table 103`;
const UNMARKED = MARKED.replaceAll("rule add", "rule del");

/** UDP of 20 flows of each family to a port. */
const packetsTo = (port: number) =>
  FAMILIES.flatMap((family) => Array.from({ length: 20 }, (_, i) => udp(ports(i, family, 2_000 + i * 7, port))));

test("lb --tshm --notargets_fwmark: without a target packets go by that mark, a target takes them over", async () => {
  shell(`
    ${BALANCE}
    ${MARKED}
    nfqlb init --shm=web
    nfqlb lb --tshm=web --notargets_fwmark=77 --queue=2 >> ${wire.log} 2>&1 &`);
  await untilServing();
  const packets = packetsTo(6_000);
  const count = packets.length;
  const all = (target: number) => packets.map(() => target);
  expect(await wire.deliver(packets, count)).toEqual({ targets: all(3), outcomes: { noTarget: count } });
  shell("nfqlb activate --shm=web 101 102");
  const { targets, outcomes } = await wire.deliver(packets, count);
  expect(outcomes).toEqual({ forwarded: count });
  expect(new Set(targets)).toEqual(new Set([0, 1]));
  shell("nfqlb deactivate --shm=web 101 102");
  expect(await wire.deliver(packets, count)).toEqual({ targets: all(3), outcomes: { noTarget: count } });
  shell("nfqlb delete --shm=web");
  expect(await wire.deliver(packets, count)).toEqual({ targets: all(3), outcomes: { noTarget: count } });
  await stopServing();

  shell(`
    nfqlb init --shm=web
    nfqlb lb --tshm=web --queue=2 >> ${wire.log} 2>&1 &`); // no mark: dropped
  await untilServing();
  expect(await wire.deliver(packets, 0)).toEqual({ targets: all(-1), outcomes: { noTarget: count } });
  shell(UNMARKED);
});

test("flowlb --notargets_fwmark --nolb_fwmark: each mark for its own packets; rejected instead if nft says so", async () => {
  shell(`
    ${BALANCE}
    ${MARKED}
    nfqlb init --shm=full
    nfqlb activate --shm=full 101 102
    nfqlb init --shm=empty
    nfqlb flowlb --notargets_fwmark=77 --nolb_fwmark=78 --queue=2 >> ${wire.log} 2>&1 &`);
  await untilServing();
  shell(`
    nfqlb flow-set --name=full --target=full --protocols=udp --dports=6001
    nfqlb flow-set --name=empty --target=empty --protocols=udp --dports=6002`);
  const [full, empty, none] = [packetsTo(6_001), packetsTo(6_002), packetsTo(6_003)];
  const count = full.length;
  const { targets, outcomes } = await wire.deliver([...full, ...empty, ...none], 3 * count);
  expect(outcomes).toEqual({ forwarded: count, noTarget: count, noFlow: count });
  expect(new Set(targets.slice(0, count))).toEqual(new Set([0, 1]));
  expect(new Set(targets.slice(count, 2 * count))).toEqual(new Set([3]));
  expect(new Set(targets.slice(2 * count))).toEqual(new Set([2]));

  shell(`
    echo 0 > /proc/sys/net/ipv4/icmp_ratemask # every error counts here: no limit on their rate
    echo 3-127 > /proc/sys/net/ipv6/icmp/ratemask
    nft add table inet refuse
    nft add chain inet refuse forward '{ type filter hook forward priority 0; policy accept; }'
    nft add rule inet refuse forward meta mark 77 counter reject with icmpx type host-unreachable
    nft add rule inet refuse forward meta mark 78 counter reject with icmpx type admin-prohibited`);
  await wire.toClient();
  const refused = await wire.deliver([...empty, ...none], 0);
  expect(refused.outcomes).toEqual({ noTarget: count, noFlow: count });
  // What the client is told: type, code and the port it wanted, per packet. Code 1 and 3, code 13 and 1: RFC 792, RFC 4443.
  const errors = new Map<string, number>();
  const note = (bytes: Uint8Array) => {
    const is4 = bytes[0]! >> 4 === 4;
    const l4 = is4 ? 20 : 40;
    if (bytes[is4 ? 9 : 6] !== (is4 ? 1 : 58) || bytes[l4] !== (is4 ? 3 : 1)) return;
    const quotedPorts = l4 + 8 + (is4 ? 20 : 40);
    const error = `${is4 ? "IPv4" : "IPv6"} ${bytes[l4 + 1]} ${(bytes[quotedPorts + 2]! << 8) | bytes[quotedPorts + 3]!}`;
    errors.set(error, (errors.get(error) ?? 0) + 1);
  };
  await expect
    .poll(async () => {
      for (const bytes of await wire.toClient()) note(bytes);
      return [...errors].map(([error, times]) => `${error}: ${times}`).toSorted();
    }, PATIENCE)
    .toEqual(["IPv4 1 6002: 20", "IPv4 13 6003: 20", "IPv6 1 6003: 20", "IPv6 3 6002: 20"]);
  expect(refused.targets).toEqual(Array(2 * count).fill(-1));
  shell(`nft delete table inet refuse; ${UNMARKED}`);
});

/** Everything that leaves for a client is sent through the balancer, or (again) past it. */
function answerThrough(isBalancer: boolean): void {
  for (const [i, target] of wire.topology.hosts.targets.entries()) {
    const net = isBalancer ? 16 : 17;
    target.ip(`route replace default via 172.${net}.${i + 1}.1`, `route replace default via fd${net}:${i + 1}::1`);
  }
}

test("SYN-only: the first packet of a connection is balanced, connmark keeps the others", async () => {
  answerThrough(true);
  shell(`
    for iptables in iptables ip6tables; do
      for chain in VIP VIPOUT ESTABLISHED; do $iptables -t mangle -N $chain; done
      $iptables -t mangle -A VIP -m conntrack --ctstate ESTABLISHED -j ESTABLISHED
      $iptables -t mangle -A ESTABLISHED -j CONNMARK --restore-mark
      $iptables -t mangle -A ESTABLISHED -j ACCEPT
      $iptables -t mangle -A VIP -j NFQUEUE --queue-num 2
      $iptables -t mangle -A VIPOUT -m conntrack --ctstate NEW -j CONNMARK --save-mark
    done
    iptables -t mangle -A PREROUTING -i uplink -d ${VIPS[4]}/32 -j VIP
    ip6tables -t mangle -A PREROUTING -i uplink -d ${VIPS[6]}/128 -j VIP
    iptables -t mangle -A POSTROUTING -d ${VIPS[4]}/32 -j VIPOUT
    ip6tables -t mangle -A POSTROUTING -d ${VIPS[6]}/128 -j VIPOUT
    nfqlb init
    nfqlb activate 101 102 103 104
    nfqlb lb --queue=2 >> ${wire.log} 2>&1 &`);
  await untilServing();
  const CONNECTIONS = 24;
  let queued = 0;
  const expectQueued = (more: number) => {
    queued += more;
    const { packets, outcomes } = JSON.parse(shell("nfqlb stats --all")) as {
      packets: number;
      outcomes: Record<string, number>;
    };
    expect({ packets, forwarded: outcomes["forwarded"] }).toEqual({ packets: queued, forwarded: queued });
  };
  for (const family of FAMILIES) {
    const first = await wire.topology.sendTcp(family, CONNECTIONS, { first: 200, bytes: 50_000 });
    expect(first.failures).toEqual([]);
    expect(Object.keys(first.targets).length).toBeGreaterThan(1);
    expectQueued(CONNECTIONS); // the SYNs and nothing else

    await wire.topology.openTcp(family, CONNECTIONS, 300);
    shell("nfqlb deactivate 102 103 104");
    const names = await wire.topology.finishTcp();
    expect(names.filter((name) => !/^t[1-4]$/.test(name))).toEqual([]); // none was cut off
    expect(new Set(names).size).toBeGreaterThan(1); // and they did not move to the target that is left
    const later = await wire.topology.sendTcp(family, CONNECTIONS, { first: 400 });
    expect(later).toMatchObject({ failures: [], targets: { t1: CONNECTIONS } });
    shell("nfqlb activate 102 103 104");
    expectQueued(2 * CONNECTIONS);
  }
  answerThrough(false);
});
