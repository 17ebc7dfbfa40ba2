// Upstream's set-up for fragments (fragments.md, the start script of its function tests), typed as an operator types it.
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { compatQueue, NftConnection } from "#netlink/nftables";
import { clientAddress, type Family, VIPS } from "../harness/flows.js";
import { fragments, identity, udp } from "../harness/packets.js";
import { BALANCE, FORGET, otherBalancer, TUN, targetRoutes } from "../harness/recipe.js";
import { SecondBalancer } from "../harness/second-balancer.js";
import { decisionsOf, shell, stopServing, untilServing, Wire } from "../harness/wire.js";

const TARGETS = 4;
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

const DATAGRAMS = 30;
const FRAGMENT_BYTES = 1_000;

const ports = (flow: number, family: Family) => ({
  source: clientAddress(flow, family),
  destination: VIPS[family],
  sourcePort: 3_000 + flow,
  destinationPort: 6_004,
});

/** Fragmented datagrams of 3,500 bytes from as many clients; in each the fragments are in order. */
const datagrams = (family: Family, identification: number) =>
  Array.from({ length: DATAGRAMS }, (_, i) =>
    fragments(udp(ports(i, family), new Uint8Array(3_500).fill(i)), identification + i, FRAGMENT_BYTES),
  );

/** What stays of a fragment that conntrack put together and cut again: an IPv6 one gets another identification. */
function refragmented(bytes: Uint8Array): string {
  const copy = Uint8Array.from(bytes);
  if (copy[0]! >> 4 === 6 && copy[6] === 44) copy.fill(0, 44, 48);
  return identity(copy);
}

/**
 * Each datagram's fragments came to one target, which is the one of its ports.
 * @param expected outcomes per datagram
 */
async function expectDatagrams(list: readonly Uint8Array[][], expected: Record<string, number>): Promise<void> {
  const packets = list.flat();
  const decisions = list.length * Object.values(expected).reduce((sum, n) => sum + n, 0);
  const options = { identify: refragmented, decisions };
  const { targets, outcomes } = await wire.deliver(packets, packets.length, options);
  expect(outcomes).toEqual(Object.fromEntries(Object.entries(expected).map(([name, n]) => [name, n * list.length])));
  const perDatagram = list.map((parts, i) => new Set(targets.slice(i * parts.length, (i + 1) * parts.length)));
  for (const reached of perDatagram) expect(reached.size).toBe(1);
  expect(new Set(targets)).toEqual(new Set([0, 1, 2, 3]));
}

/** A packet in chain `to-nfqlb` of the nft table goes to queue 2: `queue num 2`, or the xt target where there is no such expression. */
function queueByNft(table: string): void {
  using nft = new NftConnection();
  const queue = compatQueue({ first: 2, last: 2, isFanout: false });
  nft.transaction([{ kind: "addRule", table, chain: "to-nfqlb", expressions: [queue], comment: "" }]);
}

test("fragments, nft before the kernel's defragmentation: they come as they are, although conntrack is in use", async () => {
  shell(`
    iptables -A FORWARD -m conntrack --ctstate INVALID -j ACCEPT
    ip6tables -A FORWARD -m conntrack --ctstate INVALID -j ACCEPT
    nft add table inet handlefrag
    nft add chain inet handlefrag to-nfqlb
    nft add chain inet handlefrag vip '{ type filter hook prerouting priority -450; policy accept; }'
    nft add rule inet handlefrag vip iifname uplink ip daddr ${VIPS[4]}/32 counter jump to-nfqlb
    nft add rule inet handlefrag vip iifname uplink ip6 daddr ${VIPS[6]}/128 counter jump to-nfqlb
    nfqlb init
    nfqlb activate 101 102 103 104
    nfqlb lb --queue=2 --ft_ttl=5000 >> ${wire.log} 2>&1 &`);
  queueByNft("handlefrag");
  await untilServing();
  for (const family of FAMILIES) await expectDatagrams(datagrams(family, 0x1000), { forwarded: 1, fragment: 3 });
  shell("nft delete table inet handlefrag");

  // The trap that upstream's document warns of: behind conntrack the queue gets whole datagrams.
  shell(BALANCE);
  for (const family of FAMILIES) await expectDatagrams(datagrams(family, 0x2000), { forwarded: 1 });
});

/** The same datagrams with their fragments in other orders: reversed, the first one in the middle. */
const disordered = (family: Family, identification: number) =>
  datagrams(family, identification).map((parts, i) =>
    i % 2 === 0 ? parts.toReversed() : [parts[2]!, parts[0]!, parts[3]!, parts[1]!],
  );

test("fragments with --tun: those that come before the first one are held and come back through the device", async () => {
  shell(`
    ${BALANCE}
    ${TUN}
    nfqlb init
    nfqlb activate 101 102 103 104
    nfqlb lb --queue=2 --tun=nfqlb0 --ft_ttl=5000 --ft_frag=200 >> ${wire.log} 2>&1 &`);
  await untilServing();
  // Per two datagrams: 3 + 1 fragments are held, decided again when they come back, and 2 follow a known first one.
  for (const family of FAMILIES)
    await expectDatagrams(disordered(family, 0x3000), { forwarded: 1, heldFragment: 2, fragment: 3 });
  shell("ip link del nfqlb0");
});

test("two tiers: a router that splits every datagram between two balancers", { timeout: 60_000 }, async () => {
  const second = await SecondBalancer.create(wire.topology);
  const tier = (own: number, routes: string) => `
    ${routes}
    ${TUN}
    nfqlb init --shm=nfqlb --M=900 --N=20
    nfqlb activate 101 102 103 104
    nfqlb init --shm=nfqlbLb --ownfw=${own} --M=400 --N=10
    nfqlb activate --shm=nfqlbLb 201 202
    nfqlb lb --lbshm=nfqlbLb --tun=nfqlb0 --queue=2 --ft_ttl=5000 --ft_frag=200 >> ${wire.log} 2>&1 &`;
  shell(tier(201, `${BALANCE}${otherBalancer(202, "192.168.4.2", "fd04::2")}`));
  second.shell(tier(202, `${BALANCE}${otherBalancer(201, "192.168.4.1", "fd04::1")}${targetRoutes(TARGETS, 18)}`));
  await untilServing();
  await untilServing(second.folder);
  let sent = 0;
  for (const family of FAMILIES)
    for (const list of [datagrams(family, 0x4000), disordered(family, 0x5000)]) {
      const packets = list.flat();
      const { targets } = await wire.deliver(packets, packets.length, { decisions: 0 });
      sent += packets.length;
      for (const [i, parts] of list.entries())
        expect(new Set(targets.slice(i * parts.length, (i + 1) * parts.length)).size).toBe(1);
      expect(new Set(targets)).toEqual(new Set([0, 1, 2, 3]));
    }
  const both = () => [decisionsOf(), decisionsOf(second.folder)];
  const account = () => {
    const sum = (outcome: string) => both().reduce((all, outcomes) => all + outcomes[outcome]!, 0);
    const all = both().reduce((sum, outcomes) => sum + Object.values(outcomes).reduce((a, b) => a + b, 0), 0);
    return { sent: all - sum("tier") - sum("heldFragment"), arrived: sum("forwarded") + sum("fragment") };
  };
  // Every fragment has come from the router, and been decided once more if it was handed over or held.
  await expect.poll(account, { timeout: 10_000 }).toEqual({ sent, arrived: sent });
  for (const outcomes of both()) {
    expect(outcomes["tier"]).toBeGreaterThan(0);
    expect(outcomes["forwarded"]).toBeGreaterThan(0);
  }
  await second.close();
  shell("ip link del nfqlb0");
});
