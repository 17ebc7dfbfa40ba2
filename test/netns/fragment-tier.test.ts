import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { FragmentNet } from "../harness/fragment-net.js";
import { enterFreshNamespaces } from "../harness/namespace.js";

// Two balancers behind a router that sends the fragments of a packet to both in turn.
const FAMILIES = [4, 6] as const;
/** Lifetimes that a busy machine does not use up. */
const PATIENT = "--ft_ttl=2000";
let net: FragmentNet;

beforeAll(async () => {
  enterFreshNamespaces();
  net = await FragmentNet.create(2);
  for (const balancer of net.balancers)
    for (const family of FAMILIES) balancer.queue(family, "-j NFQUEUE --queue-num 2");
});
afterAll(() => net.close());
afterEach(async () => {
  for (const balancer of net.balancers) await balancer.stop();
});

const traffic = { bytes: 10_000, window: 1, rate: 500, paths: [1, 2] } as const;

/** Each packet a balancer saw came from the router, or was handed over once, or was held before. */
function expectOnce(sent: number) {
  const all = net.balancers.map((balancer) => balancer.all());
  const packets = all.reduce((sum, one) => sum + one.packets, 0);
  const handedOver = all.reduce((sum, one) => sum + one.outcomes["tier"]!, 0);
  const held = all.reduce((sum, one) => sum + one.fragments["held"]!, 0);
  expect(packets).toBe(sent + handedOver + held);
  return all;
}

test("fragments that reach different balancers meet at the one that owns their addresses", async () => {
  for (const balancer of net.balancers) {
    balancer.setTier([201, 202]);
    await balancer.startWithTun(PATIENT, "--lbshm=tier");
  }
  let fragments = 0;
  for (const family of FAMILIES)
    for (const order of ["in order", "reversed", "shuffled"] as const) {
      const sent = await net.send({ ...traffic, family, order, count: 60 });
      fragments += sent.fragments;
      const account = await net.account(sent.first, 60);
      expect(account).toEqual({ targets: net.expected(family, sent.first, 60), duplicates: 0, wrong: 0 });
    }
  for (const { outcomes, fragments: counts } of expectOnce(fragments)) {
    expect(outcomes["tier"]).toBeGreaterThan(300); // about half of what came from the router
    expect(outcomes["forwarded"]).toBeGreaterThan(60);
    expect(outcomes["unknownFragment"]).toBe(0);
    expect(counts).toMatchObject({ heldNow: 0, heldDiscarded: 0 });
  }
  const tier = net.balancers.reduce((sum, balancer) => sum + balancer.all().outcomes["tier"]!, 0);
  expect(tier).toBeLessThanOrEqual(fragments); // none travelled twice
});

test("balancers whose tier tables disagree hand a fragment over once and no more", async () => {
  const [one, two] = net.balancers;
  one!.setTier([202]);
  two!.setTier([201]);
  for (const balancer of net.balancers) await balancer.startWithTun(PATIENT, "--lbshm=tier", "--tier_dev=peer");
  const sent = await net.send({ ...traffic, family: 4, order: "in order", count: 30, paths: [1] });
  const account = await net.account(sent.first, 30);
  expect(account).toEqual({ targets: net.expected(4, sent.first, 30), duplicates: 0, wrong: 0 });
  const [first, second] = expectOnce(sent.fragments);
  expect(first!.outcomes["tier"]).toBe(sent.fragments);
  expect(second!.outcomes["tier"]).toBe(0);
});
