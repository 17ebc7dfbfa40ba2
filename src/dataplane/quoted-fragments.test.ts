import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { Classification } from "#flow";
import { createStreamTable, updateStreamTable } from "#tables";
import { Decider, OUTCOME, QuotedFragments, StreamTables, soloFragments } from "./index.js";

const LIFETIME_MS = 200;
const folder = mkdtempSync(join(tmpdir(), "quoted-"));
afterAll(() => rmSync(folder, { recursive: true }));
createStreamTable(folder, "web", { size: 997, targets: 32, ownFwmark: 0 });
updateStreamTable(folder, "web", (fwmarks) => {
  for (let i = 0; i < 32; i++) fwmarks[i] = 100 + i;
});

/** A balancer with one table; `at` sets its clock. */
function balancer() {
  let now = 0;
  const streams = new StreamTables(folder);
  streams.setNames(["web"]);
  const decider = new Decider({
    options: { hashMode: 1, noFlowFwmark: -1, noTargetFwmark: -1, isPromiscuousPing: false },
    classification: new Classification(),
    program: null,
    udpEncapPort: 0,
    streams,
    fragments: soloFragments({ size: 8, buckets: 0, lifetimeMs: LIFETIME_MS, isForgetful: false }, () => now),
    quoted: new QuotedFragments(LIFETIME_MS, () => now),
    tier: null,
    isHandedOver: () => false,
    hits: new Float64Array(1),
  });
  return {
    at: (ms: number) => {
      now = ms;
    },
    decide: (bytes: readonly number[], etherType: number) => {
      const fwmark = decider.decide(new Uint8Array(bytes), 0, bytes.length, etherType);
      streams.leave();
      return { fwmark, outcome: decider.outcome };
    },
  };
}

type Fragment = { readonly id: number; readonly port: number; readonly offset: number; readonly isMore: boolean };
const V4 = 0x0800;
const V6 = 0x86dd;
const VIP4 = [10, 0, 0, 1];
const CLIENT4 = [192, 0, 2, 17];
const udp = (source: number, destination: number) => [source >> 8, source & 255, destination >> 8, destination & 255];
const ipv4 = (protocol: number, from: readonly number[], to: readonly number[], rest: readonly number[]) =>
  [0x45, 0, 0, 20 + rest.length, 0, 0, 0, 0, 64, protocol, 0, 0].concat(from, to, rest);
const VIP6 = [0x20, 1, 0x0d, 0xb8, ...Array<number>(11).fill(0), 1];
const CLIENT6 = [0x20, 1, 0x0d, 0xb8, ...Array<number>(11).fill(0), 9];
const ipv6 = (next: number, from: readonly number[], to: readonly number[], rest: readonly number[]) =>
  [0x60, 0, 0, 0, 0, rest.length, next, 64].concat(from, to, rest);

/** A router's error about a fragment from the VIP to the client's port. */
function error4({ id, port, offset, isMore }: Fragment, protocol = 17): number[] {
  const quoted = ipv4(protocol, VIP4, CLIENT4, offset === 0 ? udp(5000, port) : [1, 2, 3, 4, 5, 6, 7, 8]);
  quoted.splice(4, 4, id >> 8, id & 255, (isMore ? 0x20 : 0) | (offset >> 8), offset & 255);
  return ipv4(1, [203, 0, 113, 9], VIP4, [3, 4, 0, 0, 0, 0, 5, 20, ...quoted]);
}

function error6({ id, port, offset, isMore }: Fragment): number[] {
  const field = (offset << 3) | (isMore ? 1 : 0);
  const header = [17, 0, field >> 8, field & 255, 0, 0, id >> 8, id & 255];
  const quoted = ipv6(44, VIP6, CLIENT6, [...header, ...(offset === 0 ? udp(5000, port) : [1, 2, 3, 4, 5, 6, 7, 8])]);
  return ipv6(58, [0xfe, 0x80, ...Array<number>(13).fill(0), 9], VIP6, [2, 0, 0, 0, 0, 0, 5, 0, ...quoted]);
}

const first = (id: number, port: number): Fragment => ({ id, port, offset: 0, isMore: true });
const later = (id: number): Fragment => ({ id, port: 0, offset: 160, isMore: false });

test.each([
  ["IPv4", V4, error4, ipv4(17, CLIENT4, VIP4, [...udp(40_001, 5000), 0, 8, 0, 0])],
  ["IPv6", V6, error6, ipv6(17, CLIENT6, VIP6, [...udp(40_001, 5000), 0, 8, 0, 0])],
] as const)("%s: errors about a packet's fragments all go where its connection goes", (_, type, error, packet) => {
  const { decide, at } = balancer();
  const { fwmark } = decide(packet, type);
  expect(fwmark).toBeGreaterThanOrEqual(100);
  expect(decide(error(later(7)), type)).toEqual({ fwmark: -1, outcome: OUTCOME.unusable }); // not known yet
  expect(decide(error(first(7, 40_001)), type)).toEqual({ fwmark, outcome: OUTCOME.forwarded });
  expect(decide(error(later(7)), type)).toEqual({ fwmark, outcome: OUTCOME.fragment });
  expect(decide(error(later(8)), type)).toEqual({ fwmark: -1, outcome: OUTCOME.unusable }); // another packet
  at(LIFETIME_MS + 1);
  expect(decide(error(later(7)), type)).toEqual({ fwmark: -1, outcome: OUTCOME.unusable });
});

test("what a client's own fragments left on record is never taken for a quoted packet, nor the other way round", () => {
  const { decide } = balancer();
  const fragment = ipv4(17, CLIENT4, VIP4, [...udp(40_001, 5000), 0, 8, 0, 0]);
  fragment.splice(4, 4, 0, 7, 0x20, 0);
  expect(decide(fragment, V4).outcome).toBe(OUTCOME.forwarded);
  expect(decide(error4(later(7)), V4).outcome).toBe(OUTCOME.unusable);
  decide(error4(first(9, 40_001)), V4);
  const clientsLater = ipv4(17, CLIENT4, VIP4, [0, 0, 0, 0]);
  clientsLater.splice(4, 4, 0, 9, 0, 160);
  expect(decide(clientsLater, V4).outcome).toBe(OUTCOME.unknownFragment);
});

test("IPv4: the protocol belongs to the packet's identity; the same packet's second error replaces the first", () => {
  const { decide } = balancer();
  decide(error4(first(7, 40_001)), V4);
  expect(decide(error4(later(7), 6), V4).outcome).toBe(OUTCOME.unusable);
  const marks = Array.from({ length: 20 }, (_, i) => decide(error4(first(7, 41_000 + i * 7)), V4).fwmark);
  expect(new Set(marks).size).toBeGreaterThan(5);
  expect(decide(error4(later(7)), V4).fwmark).toBe(marks.at(-1));
});

test("the memory is a ring: the 64 latest packets are known, older ones not", () => {
  const { decide } = balancer();
  for (let id = 1; id <= 65; id++) decide(error4(first(id, 40_000 + id)), V4);
  const isKnown = (id: number) => decide(error4(later(id)), V4).outcome === OUTCOME.fragment;
  expect(Array.from({ length: 66 }, (_, i) => isKnown(i + 1))).toEqual([false, ...Array(64).fill(true), false]);
});
