// Path MTU through a VIP: who learns it is the client's, or the target's, kernel; its route cache is the judge.
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { diff, NOTHING_DESIRED, Steering } from "#steering";
import { CLIENT, LINE_VIPS, Line, OTHER_VIPS, TARGET, TARGET_LINK } from "../harness/line.js";
import { enterFreshNamespaces, type Host, ip, run } from "../harness/namespace.js";

const FAMILIES = [4, 6] as const;
/** A multiple of 256: its low byte is zero. */
const FWMARK = 5120;
const MTU = 1_400;
let line: Line;
let steering: Steering;

beforeAll(async () => {
  enterFreshNamespaces();
  line = await Line.create();
  steering = new Steering();
  const desired = {
    ...NOTHING_DESIRED,
    targets: [{ fwmark: FWMARK, addresses: [TARGET[4], TARGET[6]] }],
    vips: [...Object.values(LINE_VIPS), ...Object.values(OTHER_VIPS)].map(
      (vip) => `${vip}/${vip.includes(":") ? 128 : 32}`,
    ),
    queue: { first: 0, last: 0, isFanout: false },
    portNats: (["udp", "tcp"] as const).map((protocol) => ({
      protocol,
      port: 80,
      targetPort: 8080,
      vips: [`${OTHER_VIPS[4]}/32`, `${OTHER_VIPS[6]}/128`],
    })),
  };
  const plan = diff(desired, steering.read());
  expect(steering.apply([...plan.additions, ...plan.vips, ...plan.removals])).toEqual([]);
  // Instead of the data plane: every packet to a VIP gets the target's mark, and nothing is queued.
  run("nft", "insert rule inet meridio-nfqlb nfqlb accept");
  run("nft", "insert rule inet meridio-nfqlb nfqlb-local accept");
  run(
    "nft",
    `table inet decisions { chain decide { type filter hook prerouting priority -10;
      ip daddr 10.0.0.0/24 meta mark set ${FWMARK}; ip6 daddr 2001:db8::/64 meta mark set ${FWMARK}; }
    }`,
  );
  ip("route del 10.0.0.0/24", "route del 2001:db8::/64");
  for (const vips of [LINE_VIPS, OTHER_VIPS]) for (const family of FAMILIES) await line.serve(vips[family], 8080);
});

afterAll(() => {
  steering[Symbol.dispose]();
  line.close();
});

beforeEach(() => {
  for (const host of [line.client, line.target])
    for (const family of FAMILIES) host.run("ip", `-${family}`, "route", "flush", "cache");
});

/** Of the link between this namespace and the target, at both ends. */
function setTargetMtu(mtu: number): void {
  ip(`link set ${TARGET_LINK} mtu ${mtu}`);
  line.target.ip(`link set eth0 mtu ${mtu}`);
}

const mtuOf = (host: Host, address: string, ...from: string[]) =>
  Number(/ mtu (\d+)/.exec(host.run("ip", "route", "get", address, ...from))?.[1] ?? 1_500);
/** Packets that a rule with this text has counted. */
const counted = (table: string, rule: string) =>
  [...run("nft", "list", "table", "inet", table).matchAll(/.*/g)]
    .filter(([text]) => text.includes(rule))
    .reduce((sum, [text]) => sum + Number(/packets (\d+)/.exec(text)?.[1] ?? 0), 0);

test.each(FAMILIES)(
  "D3, D4, O11: the client learns the path MTU to a VIP of a target whose mark ends in a zero byte, IPv%i",
  async (family) => {
    setTargetMtu(MTU);
    const vip = LINE_VIPS[family];
    expect(mtuOf(line.client, vip)).toBe(1_500);
    await line.echo("udp", vip, 8080, 1_440, 1); // too big for the last link
    await expect.poll(() => mtuOf(line.client, vip), { timeout: 3_000 }).toBe(MTU);
    const errors = (await line.captured(line.packets.client)).filter(
      (bytes) => bytes[family === 4 ? 9 : 6] === (family === 4 ? 1 : 58),
    );
    const sources = errors.map((bytes) =>
      Buffer.from(family === 4 ? bytes.slice(12, 16) : bytes.slice(8, 24)).toString("hex"),
    );
    expect(sources).toContain(family === 4 ? "0a000001" : "20010db8000000000000000000000001");
    expect(await line.echo("udp", vip, 8080, 1_440)).toEqual({ isEqual: true }); // in fragments now
  },
);

test.each(FAMILIES)("the client learns the path MTU to a VIP behind port NAT, IPv%i", async (family) => {
  setTargetMtu(MTU);
  const vip = OTHER_VIPS[family];
  await line.echo("udp", vip, 80, 1_440, 1);
  await expect.poll(() => mtuOf(line.client, vip), { timeout: 3_000 }).toBe(MTU);
  expect(await line.echo("udp", vip, 80, 1_440)).toEqual({ isEqual: true });
});

test.each(FAMILIES)(
  "a target behind port NAT learns the path MTU of its answers: a connection goes on, IPv%i",
  async (family) => {
    setTargetMtu(1_500);
    line.narrowRouter(MTU - 100); // the client itself announces segments for 1500
    expect(await line.echo("tcp", OTHER_VIPS[family], 80, 200_000)).toEqual({ isEqual: true });
    expect(mtuOf(line.target, CLIENT[family], "from", OTHER_VIPS[family])).toBe(MTU - 100);
    line.narrowRouter(1_500);
  },
);

test("D4: packets with a mark that ends in a zero byte are counted for their target", async () => {
  setTargetMtu(1_500);
  const before = steering.counters().get(FWMARK)!;
  for (const family of FAMILIES) expect(await line.echo("udp", LINE_VIPS[family], 8080, 10)).toEqual({ isEqual: true });
  const after = steering.counters().get(FWMARK)!;
  expect(after.packets - before.packets).toBe(2);
  expect(after.bytes - before.bytes).toBe(28 + 10 + 48 + 10);
});

test("the rewrite leaves other errors, and errors about other packets, alone", async () => {
  const before = counted("meridio-nfqlb", "addr set");
  setTargetMtu(MTU);
  await line.echo("udp", TARGET[4], 8080, 1_440, 1); // not to a VIP
  await expect.poll(() => mtuOf(line.client, TARGET[4]), { timeout: 3_000 }).toBe(MTU);
  expect(counted("meridio-nfqlb", "addr set")).toBe(before);
  expect(before).toBeGreaterThan(0);
});
