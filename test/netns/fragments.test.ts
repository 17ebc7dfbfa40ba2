import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { type FragmentBalancer, FragmentNet } from "../harness/fragment-net.js";
import { enterFreshNamespaces } from "../harness/namespace.js";

const FAMILIES = [4, 6] as const;
const ORDERS = ["in order", "reversed", "shuffled"] as const;
/** Fragments of a datagram of 10,000 bytes on links with an MTU of 1500. */
const FRAGMENTS = 7;
/** Lifetimes that a busy machine does not use up. */
const PATIENT = "--ft_ttl=2000";
let net: FragmentNet;
let balancer: FragmentBalancer;

beforeAll(async () => {
  enterFreshNamespaces();
  net = await FragmentNet.create(1);
  balancer = net.balancers[0]!;
});
afterAll(() => net.close());
afterEach(() => balancer.stop());

const oneQueue = () => {
  for (const family of FAMILIES) balancer.queue(family, "-j NFQUEUE --queue-num 2");
};

/** Every datagram arrived once, whole, at the target of its addresses and ports. */
async function expectAll(family: 4 | 6, { first }: { first: number }, count: number): Promise<void> {
  const account = await net.account(first, count);
  expect(account).toEqual({ targets: net.expected(family, first, count), duplicates: 0, wrong: 0 });
}

test("datagrams of 10,000 bytes arrive whole at the right target in any order of their fragments", async () => {
  oneQueue();
  await balancer.startWithTun("flowlb", PATIENT);
  balancer.nfqlb("flow-set", "--name=udp", "--target=nfqlb", "--protocols=udp", "--dports=5000");
  let datagrams = 0;
  for (const family of FAMILIES)
    for (const order of ORDERS) {
      const sent = await net.send({ family, count: 60, bytes: 10_000, order, window: 1, rate: 500 });
      expect(sent.fragments).toBe(60 * FRAGMENTS);
      await expectAll(family, sent, 60);
      datagrams += 60;
      const { outcomes, fragments, packets } = balancer.all();
      // Each fragment was decided once, and once more where it was held before.
      expect(outcomes).toMatchObject({
        forwarded: datagrams,
        fragment: datagrams * (FRAGMENTS - 1),
        unknownFragment: 0,
      });
      expect(packets).toBe(datagrams * FRAGMENTS + fragments["held"]!);
      expect(outcomes["heldFragment"]).toBe(fragments["held"]);
      expect(fragments).toMatchObject({ completed: datagrams, heldNow: 0, heldDiscarded: 0, reinjectFailures: 0 });
      if (order === "reversed") expect(fragments["held"]).toBeGreaterThanOrEqual(60 * (FRAGMENTS - 1));
    }
  await expect.poll(() => balancer.all().fragments["recordsNow"]).toBe(0);
  expect(Object.keys(balancer.stats())).toEqual(
    "hsize ttlMillis collisions inserts rejected lookups objGC mtu bucketsMax bucketsAllocated bucketsUsed fragsMax fragsAllocated fragsDiscarded reAssembled".split(
      " ",
    ),
  );
  expect(balancer.stats()).toMatchObject({
    hsize: 500,
    mtu: 1500,
    fragsMax: 100,
    inserts: 360,
    reAssembled: 360,
    objGC: 0,
  });
});

/** Fragments of even number into queue 2, odd ones into queue 3: bit 0 of the offset, in units of 185 and 181. */
const twoQueues = () => {
  const byOffset = (test: string) => [`-m u32 --u32 ${test}=0 -j NFQUEUE --queue-num 2`, "-j NFQUEUE --queue-num 3"];
  balancer.queue(4, ...byOffset("4&0x1"));
  balancer.queue(6, ...byOffset("40&0x8"));
};

test("fragments of a packet that come through different queues, and so threads, still go one way", async () => {
  twoQueues();
  await balancer.startWithTun(PATIENT, "--queue=2:3", "--ft_frag=3000");
  for (const family of FAMILIES)
    for (const order of ["reversed", "shuffled"] as const) {
      const sent = await net.send({ family, count: 200, bytes: 10_000, order, window: 2, rate: 1_000 });
      await expectAll(family, sent, 200);
    }
  const { outcomes, fragments } = balancer.all();
  expect(outcomes).toMatchObject({ forwarded: 800, fragment: 800 * (FRAGMENTS - 1), unknownFragment: 0 });
  expect(fragments).toMatchObject({ heldNow: 0, heldDiscarded: 0, reinjectedInVain: 0, reinjectFailures: 0 });
  for (const { packets, drops } of balancer.queues()) {
    expect(packets).toBeGreaterThan(800 * 3);
    expect(drops).toBe(0);
  }
});

test("a thread that holds fragments and waits for packets is woken when another one has their first fragment", async () => {
  twoQueues();
  // Longer than the account waits, so nothing but the wake-up brings a datagram through: no packet follows it.
  await balancer.startWithTun("--queue=2:3", "--ft_ttl=60000");
  for (let datagram = 0; datagram < 4; datagram++) {
    const sent = await net.send({ family: 4, count: 1, bytes: 10_000, order: "reversed", window: 1, rate: 100 });
    await expectAll(4, sent, 1);
  }
  const { outcomes, fragments } = balancer.all();
  expect(outcomes).toMatchObject({ forwarded: 4, fragment: 4 * (FRAGMENTS - 1), unknownFragment: 0 });
  expect(fragments).toMatchObject({ heldNow: 0, heldDiscarded: 0, reinjectFailures: 0 });
});

test("10,000 fragmented datagrams per second, shuffled: none is lost, and memory stays bounded", async () => {
  oneQueue();
  await balancer.startWithTun(PATIENT, "--qlength=16384", "--ft_size=16384", "--ft_frag=1000");
  const traffic = { bytes: 3_000, order: "shuffled", window: 8 } as const;
  const warmUp = await net.send({ ...traffic, family: 4, count: 2_000, rate: 5_000 });
  await expectAll(4, warmUp, 2_000);
  const before = balancer.residentBytes();
  for (const family of FAMILIES) {
    const sent = await net.send({ ...traffic, family, count: 10_000, rate: 10_000 });
    await expectAll(family, sent, 10_000);
    console.log(`IPv${family}: 10,000 datagrams in ${sent.ms} ms`);
  }
  expect(balancer.residentBytes() - before).toBeLessThan(24 << 20);
  const { fragments } = balancer.all();
  expect(fragments).toMatchObject({ records: 22_000, completed: 22_000, heldNow: 0, heldDiscarded: 0 });
  expect(fragments["held"]).toBeGreaterThan(10_000);
  expect(balancer.queues().map(({ drops }) => drops)).toEqual([0]);
});

test.each([
  ["random sources", null],
  ["one source", "10.66.6.6"],
])("a flood of fragments without a first one from %s does not stop a well-behaved source", async (_, source) => {
  oneQueue();
  await balancer.startWithTun(PATIENT, "--qlength=16384");
  const flood = { family: 4, count: 20_000, rate: 20_000, source, path: 1 } as const;
  const sent = await net.send({ family: 4, count: 200, bytes: 10_000, order: "reversed", window: 1, rate: 200 }, flood);
  await expectAll(4, sent, 200);
  await expect.poll(() => balancer.all().fragments["heldNow"], { timeout: 5_000 }).toBe(0); // their time is over
  const { outcomes, fragments } = balancer.all();
  expect(outcomes).toMatchObject({ forwarded: 200, fragment: 200 * (FRAGMENTS - 1), unknownFragment: 0 });
  expect(fragments).toMatchObject({ held: 20_000 + 200 * (FRAGMENTS - 1), heldDiscarded: 20_000 });
});

test("without a tun device a later fragment that comes first is dropped alone", async () => {
  oneQueue();
  await balancer.start();
  const reversed = await net.send({ family: 4, count: 20, bytes: 10_000, order: "reversed", window: 1, rate: 500 });
  await expect.poll(() => balancer.all().packets).toBe(reversed.fragments);
  expect((await net.account(reversed.first, 20, 0)).targets.every((target) => target === -1)).toBe(true);
  expect(balancer.all().outcomes).toMatchObject({
    forwarded: 20,
    unknownFragment: 20 * (FRAGMENTS - 1),
    heldFragment: 0,
  });
  const inOrder = await net.send({ family: 6, count: 20, bytes: 10_000, order: "in order", window: 1, rate: 500 });
  await expectAll(6, inOrder, 20);
});

test("fragments longer than --mtu are not held, and those of one packet that are short enough go on", async () => {
  oneQueue();
  await balancer.startWithTun("--mtu=1400");
  const sent = await net.send({ family: 4, count: 20, bytes: 10_000, order: "reversed", window: 1, rate: 500 });
  await expect.poll(() => balancer.all().packets).toBe(sent.fragments + 20);
  expect((await net.account(sent.first, 20, 0)).targets.every((target) => target === -1)).toBe(true);
  const { outcomes, fragments } = balancer.all();
  expect(fragments).toMatchObject({ tooLongToHold: 20 * (FRAGMENTS - 2), held: 20, heldNow: 0, heldDiscarded: 0 });
  expect(outcomes).toMatchObject({ forwarded: 20, fragment: 20, unknownFragment: 20 * (FRAGMENTS - 2) });
});

test("options that cannot be are refused at the start, in upstream's words where it has some", () => {
  const refused = (...args: string[]) => {
    const { stderr, status } = balancer.nfqlb("lb", ...args);
    return { stderr, status };
  };
  const tun = "--tun=nfqlbtun";
  expect(refused(tun, "--mtu=1501")).toEqual({ stderr: "Tun mtu too small; 1500 < 1501\n", status: 1 });
  expect(refused("--ft_size=0")).toEqual({ stderr: "Invalid --ft_size [0]; a whole number 1..4194304\n", status: 1 });
  expect(refused("--tun=none")).toEqual({
    stderr: "--tun=none: no such device; make it with: ip tuntap add none mode tun\n",
    status: 1,
  });
  expect(refused("--tun=lo")).toMatchObject({ stderr: "--tun=lo: no tun device\n", status: 1 });
  expect(refused("--tier_dev=lo,none")).toEqual({ stderr: "--tier_dev: no device [none]\n", status: 1 });
});
