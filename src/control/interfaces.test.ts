import { expect, test } from "vitest";
import { surplusInterfaces, type TargetInterface } from "./interfaces.js";

const link = (index: number, name: string, ...prefixes: string[]): TargetInterface => ({
  index,
  name,
  isUp: true,
  prefixes,
});
const names = (interfaces: readonly TargetInterface[], isBlocked = false) =>
  surplusInterfaces(interfaces, "conduit-a-", isBlocked).map(({ name }) => name);

test("R22: of interfaces that share a subnet all but the newest are surplus, in either family", () => {
  const old = link(3, "conduit-a--x1y2", "172.16.1.1/24", "fd00:1::1/64");
  const other = link(4, "conduit-a--abcd", "172.16.2.1/24", "fd00:2::1/64");
  const now = link(9, "conduit-a--wxyz", "172.16.1.7/24");
  expect(names([now, other, old])).toEqual(["conduit-a--x1y2"]);
  expect(names([other, old, link(8, "conduit-a--six6", "fd00:1::9/64")])).toEqual(["conduit-a--x1y2"]);
  expect(names([old, other])).toEqual([]);
});

test("interfaces of others, those that are down and those without addresses are left alone; fe80:: is no subnet", () => {
  const now = link(9, "conduit-a--wxyz", "172.16.1.7/24", "fe80::1/64");
  expect(names([link(2, "ext-vlan0", "172.16.1.1/24"), now])).toEqual([]);
  expect(names([{ ...link(2, "conduit-a--down", "172.16.1.1/24"), isUp: false }, now])).toEqual([]);
  expect(names([link(2, "conduit-a--fe80", "fe80::2/64"), now])).toEqual([]);
});

test("while no frontend is announced all of ours are surplus", () => {
  const ours = link(3, "conduit-a--x1y2", "172.16.1.1/24");
  expect(names([ours, link(4, "conduit-a--bare"), link(2, "eth0", "10.0.0.1/8")], true)).toEqual(["conduit-a--x1y2"]);
});
