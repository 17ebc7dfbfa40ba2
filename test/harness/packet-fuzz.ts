// Mutated packets against the slow model; run bundled. Arguments: number of packets, seed. Prints one JSON object.
import { readFileSync } from "node:fs";
import { Classification, classify, compile, parseFlowRule } from "#flow";
import { hashAddresses, hashKey, Packet, parse, RC_FIRST_FRAGMENT, RC_LATER_FRAGMENT } from "#packet";
import { scan } from "../oracle/flow-scan.js";
import { djb2Model, understand } from "../oracle/packet-model.js";

const count = Number(process.argv[2] ?? 1_000_000);
let state = Number(process.argv[3] ?? 1) >>> 0 || 1;
const file = process.argv[4]!;

/** xorshift32: the same packets for the same seed. */
function random(limit: number): number {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  state >>>= 0;
  return state % limit;
}

const vectors = JSON.parse(readFileSync(file, "utf8")) as { packets: { packet: string; l3: string }[] };
const seeds = vectors.packets.map(({ packet, l3 }) => ({
  bytes: [...Buffer.from(packet, "hex")].slice(0, 200),
  etherType: Number(l3),
}));
const PROTOCOLS = [0, 1, 6, 17, 43, 44, 47, 50, 51, 58, 59, 60, 132, 135];
const INTERESTING = [0, 1, 2, 3, 4, 5, 7, 8, 11, 12, 0x1f, 0x20, 0x45, 0x60, 127, 128, 129, 255];
const BEFORE = 64;
const QUOTED = { none: 0, first: RC_FIRST_FRAGMENT, later: RC_LATER_FRAGMENT };

const rules = [
  parseFlowRule({ name: "a", target: "t", priority: "9", protocols: "tcp", match: "tcp[13:1]&0x12=0x02" }),
  parseFlowRule({
    name: "b",
    target: "t",
    priority: "8",
    protocols: "udp,sctp",
    dports: "1-1000",
    match: "udp[4:2]=8,sctp[4:4]=0",
  }),
  parseFlowRule({
    name: "c",
    target: "t",
    priority: "7",
    dsts: "10.0.0.0/8,2001:db8::/32",
    protocols: "tcp,udp,sctp",
    sports: "1024-65535",
  }),
  parseFlowRule({ name: "d", target: "t", srcs: "192.0.2.0/24" }),
];
const program = compile(rules, [0, 1, 2, 3]);

function mutate(): { bytes: number[]; etherType: number } {
  const seed = seeds[random(seeds.length)]!;
  const bytes = [...seed.bytes];
  for (let n = random(6); n > 0; n--) {
    const kind = random(8);
    const at = bytes.length === 0 ? 0 : random(Math.min(bytes.length, 80));
    if (kind < 3) bytes[at] = INTERESTING[random(INTERESTING.length)]!;
    else if (kind === 3) bytes[seed.etherType === 0x0800 ? 9 : 6] = PROTOCOLS[random(PROTOCOLS.length)]!;
    else if (kind === 4) bytes[at] = random(256);
    else if (kind === 5) bytes.length = random(bytes.length + 1);
    else if (kind === 6)
      bytes.splice(at, 0, PROTOCOLS[random(PROTOCOLS.length)]!, random(3), 0, 0, 0, 0, 0, 0); // a header more
    else bytes.splice(at, random(9));
  }
  for (let i = 0; i < bytes.length; i++) bytes[i] ??= 0;
  return {
    bytes: bytes.slice(0, 400),
    etherType: random(50) === 0 ? random(65_536) : random(20) === 0 ? 0x0800 : seed.etherType,
  };
}

const memory = new Uint8Array(BEFORE + 400 + 256);
const packet = new Packet();
const hits = new Float64Array(4);
const out = new Classification();
let usable = 0;
let worstMs = 0;
const kinds = new Map<number, number>();
for (let n = 0; n < count; n++) {
  const { bytes, etherType } = mutate();
  const encap = random(3) === 0 ? 9899 : 0;
  memory.fill(n % 2 === 0 ? 0x00 : 0xff); // what stands around the packet must not matter
  memory.set(bytes, BEFORE);
  const end = BEFORE + bytes.length;
  const startMs = performance.now();
  const rc = parse(memory, BEFORE, end, etherType, encap, packet);
  const want = understand(bytes, etherType, encap);
  const fail = (what: string): never => {
    throw new Error(
      `${what}: ${JSON.stringify({ packet: Buffer.from(bytes).toString("hex"), etherType, encap, rc, want })}`,
    );
  };
  if (rc !== want.rc) fail("rc");
  if (packet.quotedFragment !== QUOTED[want.quoted]) fail("quoted fragment");
  if (want.quoted !== "none" && packet.fragmentId !== want.fragmentId) fail("identification of the quoted packet");
  kinds.set(rc, (kinds.get(rc) ?? 0) + 1);
  if (rc >= 0) {
    usable++;
    if (Buffer.from(packet.key).toString("hex") !== want.key) fail("key");
    if (packet.fragmentId !== want.fragmentId) fail("fragment id");
    if (n % 16 === 0) {
      if (hashKey(packet, 0) !== djb2Model(want.key, 0, 40)) fail("hash");
      if (hashAddresses(packet) !== djb2Model(want.key, 0, 32)) fail("address hash");
    }
    if (rc !== 2) {
      const rule = classify(program, packet, memory, end, n % 2 === 0, hits, out);
      worstMs = Math.max(worstMs, performance.now() - startMs);
      if (rule !== scan(rules, packet, memory, end, n % 2 === 0).rule) fail("rule");
    }
  }
}
process.stdout.write(JSON.stringify({ packets: count, usable, kinds: Object.fromEntries(kinds), worstMs }));
