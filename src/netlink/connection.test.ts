import { expect, test } from "vitest";
import { bytesOf, fakeKernel } from "../../test/fakes/fake-kernel.js";
import { MemoryKernel } from "../../test/fakes/memory-kernel.js";
import { NetlinkConnection } from "./connection.js";
import { RouteConnection } from "./route/connection.js";
import { defaultRoute } from "./route/route.js";
import type { Rule } from "./route/rule.js";

// Framing is tested with literal bytes only: an encoder and a decoder of one hand would excuse each other.
// Sequence numbers of a fresh connection begin at 1; port id 0x2a.
const ACK_1 = "24000000 0200 0001 01000000 2a000000  00000000  20000000 2000 0505 01000000 00000000";
/** RTM_NEWRULE refused: synthetic, laid out as net/netlink/af_netlink.c netlink_ack (v6.18) does with NETLINK_EXT_ACK. */
const EEXIST_WITH_TEXT =
  "3c000000 0200 0003 01000000 2a000000  efffffff  20000000 2000 0506 01000000 00000000 " +
  "1000 0100 52756c652065786973747300 0800 0200 18000000";
const body = bytesOf("02000000 00000000 00000001");
const DONE_1 = "14000000 0300 0200 01000000 2a000000 00000000";
const entry = (flags: string, sequence: string, value: string) =>
  `14000000 2000 ${flags} ${sequence} 2a000000 ${value}`;

test("a request is framed as struct nlmsghdr and its acknowledgement is waited for", () => {
  const kernel = fakeKernel(() => [bytesOf(ACK_1)]);
  new NetlinkConnection(kernel).request("RTM_NEWRULE", 32, 0x600, body);
  expect(Buffer.from(kernel.sent[0]!).toString("hex")).toBe(
    "1c000000200005060100000000000000" + "020000000000000000000001",
  );
});

test("a body whose length is no multiple of four is padded, its length is told unpadded", () => {
  const kernel = fakeKernel(() => [bytesOf(ACK_1)]);
  new NetlinkConnection(kernel).request("x", 32, 0, bytesOf("aabbcc"));
  expect(Buffer.from(kernel.sent[0]!).toString("hex")).toBe("13000000200005000100000000000000" + "aabbcc00");
});

test("O3: a refusal carries the errno's name, the kernel's text and the offset of the bad attribute", () => {
  const connection = new NetlinkConnection(fakeKernel(() => [bytesOf(EEXIST_WITH_TEXT)]));
  expect(() => connection.request("RTM_NEWRULE fwmark 5001", 32, 0, body)).toThrowError(
    expect.objectContaining({
      code: "ERR_NETLINK",
      errno: "EEXIST",
      kernelText: "Rule exists",
      offset: 24,
      message: "RTM_NEWRULE fwmark 5001: EEXIST (Rule exists)",
    }),
  );
});

test("answers to other requests are passed over", () => {
  const stray = ACK_1.replace("0001 01000000", "0001 63000000");
  const connection = new NetlinkConnection(fakeKernel(() => [bytesOf(stray), bytesOf(ACK_1)]));
  expect(() => connection.request("x", 32, 0, body)).not.toThrow();
});

test("a dump gathers messages of several datagrams, also several in one", () => {
  const first = bytesOf(entry("0200", "01000000", "0a000000") + entry("0200", "01000000", "0b000000"));
  const connection = new NetlinkConnection(
    fakeKernel(() => [first, bytesOf(entry("0200", "01000000", "0c000000") + DONE_1)]),
  );
  const bodies = connection.dump("x", 34, body).map((message) => Buffer.from(message.body).toString("hex"));
  expect(bodies).toEqual(["0a000000", "0b000000", "0c000000"]);
});

test("a dump that was interrupted is asked for again, and given up after ten times", () => {
  const once = fakeKernel((_request, n) =>
    n === 0
      ? [bytesOf(entry("1200", "01000000", "0a000000") + DONE_1)]
      : [bytesOf(entry("0200", "02000000", "0b000000") + DONE_1.replace("0200 01000000", "0200 02000000"))],
  );
  expect(new NetlinkConnection(once).dump("x", 34, body)).toHaveLength(1);
  const always = fakeKernel((_request, n) => {
    const sequence = `0${(n + 1).toString(16)}000000`;
    return [bytesOf(entry("1200", sequence, "0a000000") + DONE_1.replace("0200 01000000", `0200 ${sequence}`))];
  });
  expect(() => new NetlinkConnection(always).dump("RTM_GETRULE", 34, body)).toThrow(
    /RTM_GETRULE: EINTR \(dump interrupted 10 times\)/,
  );
});

test("a dump may end with an error", () => {
  const failed = DONE_1.replace(/00000000$/, "ffffffff");
  const connection = new NetlinkConnection(fakeKernel(() => [bytesOf(failed)]));
  expect(() => connection.dump("x", 34, body)).toThrowError(expect.objectContaining({ errno: "EPERM" }));
});

test("a last message without its padding is whole; a length beyond the datagram is ERR_DECODE", () => {
  const unaligned = "13000000 2000 0200 01000000 2a000000 0a0b0c";
  const connection = new NetlinkConnection(
    fakeKernel((_request, n) =>
      n === 0 ? [bytesOf(unaligned), bytesOf(DONE_1)] : [bytesOf("ff000000 2000 0200 02000000 2a000000 00")],
    ),
  );
  expect(connection.dump("x", 34, body)[0]!.body).toHaveLength(3);
  expect(() => connection.dump("x", 34, body)).toThrowError(expect.objectContaining({ code: "ERR_DECODE" }));
});

test("no answer is a time-out, an overrun is told, an answer larger than the buffer is EMSGSIZE", () => {
  expect(() => new NetlinkConnection(fakeKernel(() => [])).request("x", 1, 0, body)).toThrow(/x: ETIMEDOUT/);
  expect(() => new NetlinkConnection(fakeKernel(() => ["overrun"])).request("x", 1, 0, body)).toThrow(/ENOBUFS/);
  const huge = new Uint8Array(300_000);
  expect(() => new NetlinkConnection(fakeKernel(() => [huge])).request("x", 1, 0, body)).toThrow(/EMSGSIZE/);
});

test("O3: a batch names the first request that was refused", () => {
  const ack = (sequence: string, errno: string) =>
    bytesOf(`24000000 0200 0001 ${sequence} 2a000000  ${errno}  20000000 2000 0505 ${sequence} 00000000`);
  const kernel = fakeKernel(() => [
    ack("02000000", "00000000"),
    ack("03000000", "feffffff"),
    ack("04000000", "efffffff"),
  ]);
  const frame = { type: 16, flags: 0, body };
  const requests = ["first", "second", "third"].map((operation) => ({ ...frame, operation }));
  expect(() => new NetlinkConnection(kernel).batch(frame, requests, frame)).toThrowError(
    expect.objectContaining({ operation: "second", errno: "ENOENT" }),
  );
});

test("what a dump gave is the caller's: the next receive does not change it", () => {
  const kernel = fakeKernel((_request, n) => {
    const sequence = `0${n + 1}000000`;
    return [
      bytesOf(entry("0200", sequence, `0${n}0${n}0${n}0${n}`) + DONE_1.replace("0200 01000000", `0200 ${sequence}`)),
    ];
  });
  const connection = new NetlinkConnection(kernel);
  const [first] = connection.dump("x", 34, body);
  connection.dump("x", 34, body);
  expect(Buffer.from(first!.body).toString("hex")).toBe("00000000");
});

test("a dump that ends with an error and the kernel's text tells both", () => {
  // NLMSG_DONE with NETLINK_EXT_ACK: int error, then NLMSGERR_ATTR_MSG; synthetic, as netlink_dump_done lays it out
  const done = "24000000 0300 0202 01000000 2a000000 eaffffff 0f00 0100 62616420746578742e0a00 00";
  const connection = new NetlinkConnection(fakeKernel(() => [bytesOf(done)]));
  expect(() => connection.dump("RTM_GETROUTE", 26, body)).toThrow(/RTM_GETROUTE: EINVAL \(bad text\.\n\)/);
});

test("after an overrun the next request gets its own answer", () => {
  const kernel = fakeKernel((_request, n) =>
    n === 0 ? ["overrun", bytesOf(ACK_1)] : [bytesOf(ACK_1.replace("0001 01000000", "0001 02000000"))],
  );
  const connection = new NetlinkConnection(kernel);
  expect(() => connection.request("x", 32, 0, body)).toThrow(/ENOBUFS/);
  expect(() => connection.request("x", 32, 0, body)).not.toThrow();
});

test("an acknowledgement that is cut off is ERR_DECODE, not a success", () => {
  const short = "12000000 0200 0000 01000000 2a000000 0000 0000";
  const connection = new NetlinkConnection(fakeKernel(() => [bytesOf(short)]));
  expect(() => connection.request("x", 32, 0, body)).toThrowError(expect.objectContaining({ code: "ERR_DECODE" }));
});

/** A kernel in which `change` is called between the datagrams of dumps, `times` times. */
function changingKernel(change: (other: RouteConnection, n: number) => void, times: number) {
  const kernel = new MemoryKernel();
  const other = new RouteConnection(kernel.open());
  let changes = 0;
  kernel.betweenDatagrams = () => {
    if (changes++ < times) change(other, changes);
  };
  return new RouteConnection(kernel.open());
}

test("a dump during which routes change is asked for again, since the kernel says so", () => {
  const gateway = new Uint8Array([10, 1, 0, 9]);
  const at = (table: number) => defaultRoute(table, gateway, 90);
  const route = changingKernel((other, n) => other.deleteRoute(at(n)), 3);
  for (let table = 1; table <= 20; table++) route.addRoute(at(table));
  expect(route.routes(4).map(({ table }) => table)).toEqual(Array.from({ length: 17 }, (_, i) => i + 4));
});

test("a dump during which rules change is repeated until two agree: the kernel does not say so", () => {
  const any = {
    family: 4,
    priority: 20,
    fwmask: 0xffffffff,
    action: "table",
    table: 1,
    goto: null,
    protocol: 90,
  } as const;
  const rule = (fwmark: number): Rule => ({ ...any, fwmark });
  const marks = (route: RouteConnection) => route.rules(4).map(({ fwmark }) => fwmark);
  const fewTimes = changingKernel((other, n) => other.deleteRule(rule(n)), 3);
  for (let fwmark = 1; fwmark <= 20; fwmark++) fewTimes.addRule(rule(fwmark));
  expect(marks(fewTimes)).toEqual(Array.from({ length: 17 }, (_, i) => i + 4));
  const always = changingKernel((other, n) => other.addRule({ ...rule(1_000 + n), priority: 30 }), 1_000);
  for (let fwmark = 1; fwmark <= 20; fwmark++) always.addRule(rule(fwmark));
  expect(marks(always).slice(0, 20)).toEqual(Array.from({ length: 20 }, (_, i) => i + 1));
});
