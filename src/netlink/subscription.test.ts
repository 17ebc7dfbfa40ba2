import { expect, test } from "vitest";
import { batchOf } from "../../test/fakes/datagram-batch.js";
import { bytesOf, fakeKernel } from "../../test/fakes/fake-kernel.js";
import { MemoryKernel } from "../../test/fakes/memory-kernel.js";
import { RouteConnection } from "./route/connection.js";
import { decodeRule, type Rule } from "./route/rule.js";
import { Subscription } from "./subscription.js";

const rule = (fwmark: number): Rule => ({
  family: 4,
  priority: 20,
  fwmark,
  fwmask: 0xffffffff,
  action: "table",
  table: fwmark,
  goto: null,
  protocol: 90,
});
const RTM_NEWRULE = 32;

/** A picture of the rules that is kept by events alone, and made anew when some were lost. */
function follow(kernel: MemoryKernel, capacity: number) {
  const picture = new Map<number, Rule>();
  const route = new RouteConnection(kernel.open());
  const told: string[] = [];
  const onOverrun = () => {
    told.push("overrun");
    picture.clear();
    for (const one of route.rules(4)) picture.set(one.fwmark!, one);
  };
  const subscription = new Subscription(
    batchOf(kernel.subscriber(capacity)),
    (messages) => {
      for (const { type, body } of messages) {
        const one = decodeRule(body)!;
        told.push(`${type === RTM_NEWRULE ? "new" : "deleted"} ${one.fwmark}`);
        if (type === RTM_NEWRULE) picture.set(one.fwmark!, one);
        else picture.delete(one.fwmark!);
      }
    },
    onOverrun,
  );
  return { picture, told, route, subscription };
}

test("events keep a picture that equals the kernel's", () => {
  const { picture, told, route, subscription } = follow(new MemoryKernel(), 100);
  route.addRule(rule(1));
  route.addRule(rule(2));
  route.deleteRule(rule(1));
  subscription.drain();
  expect(told).toEqual(["new 1", "new 2", "deleted 1"]);
  expect([...picture.values()]).toEqual(route.rules(4));
});

test("an overrun is told once, when nothing is waiting, and what stood behind the loss is not told", () => {
  const { picture, told, route, subscription } = follow(new MemoryKernel(), 3);
  for (let fwmark = 1; fwmark <= 10; fwmark++) route.addRule(rule(fwmark));
  subscription.drain();
  expect(told).toEqual(["overrun"]);
  expect([...picture.values()]).toEqual(route.rules(4));
  route.deleteRule(rule(4));
  subscription.drain();
  expect(told).toEqual(["overrun", "deleted 4"]);
  expect([...picture.values()]).toEqual(route.rules(4));
});

test("changes that come while the buffer is being emptied after a loss are in the picture too", () => {
  const kernel = new MemoryKernel();
  const route = new RouteConnection(kernel.open());
  const inner = kernel.subscriber(3);
  let fwmark = 100;
  // One more change per receive: until the buffer is empty the kernel drops them without another ENOBUFS.
  const busy = {
    ...inner,
    receive: (into: Uint8Array) => {
      const length = inner.receive(into);
      if (fwmark < 104 && length >= 0) route.addRule(rule(fwmark++));
      return length;
    },
  };
  const picture = new Set<number>();
  const subscription = new Subscription(
    batchOf(busy, 1),
    (messages) => {
      for (const { body } of messages) picture.add(decodeRule(body)!.fwmark!);
    },
    () => {
      picture.clear();
      for (const one of route.rules(4)) picture.add(one.fwmark!);
    },
  );
  for (let i = 1; i <= 10; i++) route.addRule(rule(i));
  for (let i = 0; i < 5; i++) subscription.drain();
  expect([...picture].toSorted((a, b) => a - b)).toEqual(
    route
      .rules(4)
      .map((one) => one.fwmark!)
      .toSorted((a, b) => a - b),
  );
});

test("a datagram that is cut off, or longer than the buffer, is as good as lost; other errors are thrown", () => {
  const told: string[] = [];
  const drain = (...answers: readonly Uint8Array[]) => {
    const socket = fakeKernel(() => answers);
    socket.send(new Uint8Array(0));
    new Subscription(
      batchOf(socket),
      () => told.push("messages"),
      () => told.push("overrun"),
    ).drain();
  };
  drain(bytesOf("ff000000 2000 0000 00000000 00000000"));
  drain(new Uint8Array(70_000));
  expect(told).toEqual(["overrun", "overrun"]);
  const broken = {
    ...fakeKernel(() => []),
    receive: () => {
      throw new Error("EBADF");
    },
  };
  expect(() =>
    new Subscription(
      batchOf(broken),
      () => {},
      () => {},
    ).drain(),
  ).toThrow("EBADF");
});

test("what a listener throws is thrown, and what follows is told at the next call", () => {
  const kernel = new MemoryKernel();
  const route = new RouteConnection(kernel.open());
  let calls = 0;
  const onMessages = () => {
    if (calls++ === 0) throw new Error("listener");
  };
  const subscription = new Subscription(batchOf(kernel.subscriber(10)), onMessages, () => {});
  route.addRule(rule(1));
  route.addRule(rule(2));
  expect(() => subscription.drain()).toThrow("listener");
  subscription.drain();
  expect(calls).toBe(2);
});
