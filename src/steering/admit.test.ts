import { expect, test } from "vitest";
import { admit } from "./admit.js";
import { diff } from "./diff.js";
import { formatPlan } from "./format.js";
import { Memo } from "./memo.js";
import { type ActualKernel, type DesiredKernel, type DesiredNat, NOTHING_DESIRED } from "./state.js";

const ALL = { queueStatement: "native", hasConntrack: true, hasSctpChecksum: true } as const;
const nat = (protocol: DesiredNat["protocol"], port: number, targetPort: number, ...vips: string[]): DesiredNat => ({
  protocol,
  port,
  targetPort,
  vips,
});
const desired: DesiredKernel = {
  ...NOTHING_DESIRED,
  queue: { first: 0, last: 3, isFanout: false },
  portNats: [nat("tcp", 80, 8080, "10.0.0.0/24"), nat("sctp", 80, 8080, "10.0.0.0/24")],
  targetInterfaces: "load-balan",
};
const nothing = (features: ActualKernel["features"]): ActualKernel => ({
  rules: [],
  routes: [],
  isAstray: () => false,
  tables: new Map(),
  features,
  memo: new Memo(),
});

test("D2: where the kernel cannot renew SCTP's checksum, port NATs of SCTP are refused with the reason, and no rule is made", () => {
  const features = { ...ALL, hasSctpChecksum: false };
  const { admitted, refusals } = admit(desired, features);
  expect(refusals).toEqual([
    { what: "port NAT", name: "80-8080-sctp", reason: expect.stringMatching(/checksum of SCTP/), fwmark: null },
  ]);
  expect(formatPlan(diff(admitted, nothing(features))).join("\n")).not.toMatch(/80-8080-sctp|sctp dport/);
  expect(formatPlan(diff(admitted, nothing(features))).join("\n")).toContain(
    "80-8080-tcp ip daddr @80-8080-tcp-ipv4 tcp dport 80",
  );
  expect(admit(desired, ALL)).toEqual({ admitted: desired, refusals: [] });
});

test("without connection tracking there is nothing to reassemble with, and nothing to be kept out of", () => {
  const text = formatPlan(diff(desired, nothing({ ...ALL, hasConntrack: false }))).join("\n");
  expect(text).not.toMatch(/meridio-defrag|notrack|ct state/);
  expect(text).toContain("tcp dport set 8080 counter");
});

test.each<readonly [string, DesiredNat, boolean]>([
  ["the same again", nat("tcp", 80, 8080, "10.0.0.9/32"), false],
  ["the same again for other VIPs, for it would have the same name", nat("tcp", 80, 8080, "10.1.0.0/24"), false],
  ["the same port to elsewhere", nat("tcp", 80, 9090, "10.0.0.9/32"), false],
  ["another port to the same place", nat("tcp", 81, 8080, "10.0.0.0/8"), false],
  ["one that goes on from there", nat("tcp", 8080, 9090, "10.0.0.9/32"), false],
  ["one that ends there", nat("tcp", 70, 80, "10.0.0.9/32"), false],
  ["other ports", nat("tcp", 81, 8081, "10.0.0.9/32"), true],
  ["another protocol", nat("udp", 80, 8080, "10.0.0.9/32"), true],
  ["other VIPs", nat("tcp", 80, 9090, "10.0.1.0/24"), true],
])("a second port NAT: %s", (_, second, isServed) => {
  const { admitted, refusals } = admit({ ...desired, portNats: [desired.portNats[0]!, second] }, ALL);
  expect(admitted.portNats).toHaveLength(isServed ? 2 : 1);
  expect(refusals.map(({ reason }) => reason)).toEqual(isServed ? [] : [expect.stringContaining("as 80-8080-tcp")]);
});

test("R5: a target has one address per family at most", () => {
  const target = (fwmark: number, ...addresses: string[]) => ({ fwmark, addresses });
  const good = [target(5001, "10.0.0.1", "fd00::1"), target(5002, "fd00::2")];
  const bad = [target(5003, "10.0.0.3", "10.0.0.4"), target(5004, "fd00::4", "10.0.0.5", "fd00::5")];
  const { admitted, refusals } = admit({ ...desired, targets: [...good, ...bad] }, ALL);
  expect(admitted.targets).toEqual(good);
  expect(refusals.map(({ what, fwmark, name }) => [what, fwmark, name])).toEqual([
    ["target", 5003, "10.0.0.3,10.0.0.4"],
    ["target", 5004, "fd00::4,10.0.0.5,fd00::5"],
  ]);
});

test("a plan as nft commands", () => {
  const text = formatPlan(
    diff({ ...desired, vips: ["10.0.0.0/24", "10.0.1.1/32", "::/0"], portNats: [] }, nothing(ALL)),
  ).map((line) => line.replace(/ comment "stateless-lb [0-9a-f]{16}"$/, ""));
  expect(text).toContain(
    "nft add chain inet meridio-nfqlb snat-local { type route hook output priority -300; policy accept; }",
  );
  expect(text).toContain('nft add rule inet meridio-defrag pre-defrag iifname "load-balan*" notrack');
  expect(text).toContain("nft add set inet meridio-nfqlb ipv4-vips { type ipv4_addr; flags interval; }");
  expect(text.at(-2)).toBe("nft add element inet meridio-nfqlb ipv4-vips { 10.0.0.0-10.0.0.255, 10.0.1.1 }");
  expect(text.at(-1)).toBe(
    "nft add element inet meridio-nfqlb ipv6-vips { ::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff }",
  );
});
