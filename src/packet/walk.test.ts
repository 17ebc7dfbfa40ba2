import fc from "fast-check";
import { expect, test } from "vitest";
import { understand } from "../../test/oracle/packet-model.js";
import { Packet, parse, RC_FIRST_FRAGMENT, RC_LATER_FRAGMENT } from "./index.js";
import { MAX_EXTENSION_BYTES, MAX_EXTENSION_HEADERS } from "./walk.js";

const [HOP_BY_HOP, UDP, ROUTING, FRAGMENT, AH, ICMPV6, OPTIONS] = [0, 17, 43, 44, 51, 58, 60];
const UDP_BYTES = [0x9c, 0x40, 0x13, 0x88, 0, 12, 0, 0, 1, 2, 3, 4];
const ETHERTYPE_IPV6 = 0x86dd;

type Header = { readonly type: number; readonly bytes: number; readonly fragmentField?: number };

/** An IPv6 packet with these extension headers, each a multiple of 8 bytes, and then `last`. */
function packetOf(headers: readonly Header[], last: number, payload: readonly number[]): number[] {
  const types = [...headers.map(({ type }) => type), last];
  const chain = headers.flatMap(({ bytes, type, fragmentField = 1 }, i) => {
    const next = types[i + 1]!;
    if (type === FRAGMENT) return [next, 0, fragmentField >> 8, fragmentField & 255, 0xca, 0xfe, 0xba, 0xbe];
    return [next, bytes / 8 - 1, ...Array.from({ length: bytes - 2 }, (_, k) => (k * 37 + i) & 255)];
  });
  const length = chain.length + payload.length;
  const addresses = [0x20, 1, 0x0d, 0xb8, ...Array(11).fill(0), 23, 0x20, 1, 0x0d, 0xb8, ...Array(11).fill(0), 1];
  return [0x60, 0, 0, 0, length >> 8, length & 255, types[0]!, 64, ...addresses, ...chain, ...payload];
}

const errorAbout = (quoted: readonly number[], own: readonly Header[] = []) =>
  packetOf(own, ICMPV6, [2, 0, 0, 0, 0, 0, 5, 0, ...quoted]);

function parsed(bytes: readonly number[]): Packet {
  const packet = new Packet();
  parse(new Uint8Array(bytes), 0, bytes.length, ETHERTYPE_IPV6, 0, packet);
  return packet;
}

const options = (count: number, bytes: number): Header[] =>
  Array.from({ length: count }, () => ({ type: OPTIONS, bytes }));

test("as many and as long extension headers as the bounds allow are walked, own and quoted; one more is unusable", () => {
  const most = options(MAX_EXTENSION_HEADERS, 8);
  const longest = [{ type: ROUTING, bytes: MAX_EXTENSION_BYTES - 8 }, ...options(1, 8)];
  for (const headers of [most, longest]) {
    expect(parsed(packetOf(headers, UDP, UDP_BYTES))).toMatchObject({ rc: 0, protocol: UDP, destinationPort: 5000 });
    expect(parsed(errorAbout(packetOf(headers, UDP, UDP_BYTES)))).toMatchObject({ rc: 8, sourcePort: 5000 });
    const over = [...headers, { type: OPTIONS, bytes: 8 }];
    expect(parsed(packetOf(over, UDP, UDP_BYTES)).rc).toBe(-1);
    expect(parsed(errorAbout(packetOf(over, UDP, UDP_BYTES))).rc).toBe(-1);
    const fragment = [...headers, { type: FRAGMENT, bytes: 8 }];
    expect(parsed(packetOf(fragment, UDP, UDP_BYTES)).rc).toBe(-1);
  }
});

test("an ICMPv6 error's own headers and those that it quotes have the bytes together: what is decided is always copied", () => {
  const about = (bytes: number, own: readonly Header[]) =>
    errorAbout(packetOf([{ type: ROUTING, bytes }], UDP, UDP_BYTES), own);
  for (const ownBytes of [8, 72, MAX_EXTENSION_BYTES - 8]) {
    const own = [{ type: OPTIONS, bytes: ownBytes }];
    const longest = about(MAX_EXTENSION_BYTES - ownBytes, own);
    expect(longest.length).toBeLessThanOrEqual(256);
    expect(parsed(longest)).toMatchObject({ rc: 8, sourcePort: 5000 });
    expect(parsed(about(MAX_EXTENSION_BYTES - ownBytes + 8, own)).rc).toBe(-1);
  }
  expect(parsed(errorAbout(packetOf([], UDP, UDP_BYTES), options(1, MAX_EXTENSION_BYTES)))).toMatchObject({ rc: 8 });
});

test("a Fragment header counts too, and a later fragment within the bounds is one", () => {
  const headers = options(MAX_EXTENSION_HEADERS - 1, 8);
  const first = [...headers, { type: FRAGMENT, bytes: 8, fragmentField: 1 }];
  const later = [...headers, { type: FRAGMENT, bytes: 8, fragmentField: 8 }];
  expect(parsed(packetOf(first, UDP, UDP_BYTES))).toMatchObject({ rc: RC_FIRST_FRAGMENT, fragmentId: 0xcafebabe });
  expect(parsed(packetOf(later, UDP, UDP_BYTES))).toMatchObject({ rc: RC_LATER_FRAGMENT, fragmentId: 0xcafebabe });
});

test("AH is its packet's protocol, behind other headers and in a quoted packet too", () => {
  const ah = [UDP, 4, 0, 0, ...Array(20).fill(7), ...UDP_BYTES];
  const headers = [
    { type: HOP_BY_HOP, bytes: 8 },
    { type: ROUTING, bytes: 24 },
  ];
  expect(parsed(packetOf(headers, AH, ah))).toMatchObject({ rc: 32, protocol: AH, destinationPort: 0 });
  expect(parsed(errorAbout(packetOf(headers, AH, ah)))).toMatchObject({ rc: 40, protocol: AH, sourcePort: 0 });
});

test("any chain of headers, own and quoted, is understood as the slow model understands it", () => {
  const header = fc.oneof(
    fc.record({
      type: fc.constantFrom(HOP_BY_HOP, ROUTING, OPTIONS),
      bytes: fc.oneof(
        fc.constant(8),
        fc.integer({ min: 1, max: 24 }).map((units) => units * 8),
      ),
    }),
    fc.record({ type: fc.constant(FRAGMENT), bytes: fc.constant(8), fragmentField: fc.constantFrom(0, 1, 8, 9) }),
  );
  const chain = fc.oneof(
    fc.array(header, { maxLength: 6 }),
    fc.array(fc.constant({ type: OPTIONS, bytes: 8 }), { minLength: 14, maxLength: 19 }),
  );
  const seen = new Set<number>();
  const own = fc.oneof(fc.constant([]), chain);
  const property = fc.property(chain, fc.constantFrom(UDP, AH, 50, 59), fc.boolean(), fc.nat(60), own, (...any) => {
    const [headers, last, isQuoted, cut, outerHeaders] = any;
    const whole = packetOf(headers, last, UDP_BYTES);
    const sent = isQuoted ? errorAbout(whole, outerHeaders) : whole;
    const bytes = sent.slice(0, sent.length - (cut > 40 ? cut - 40 : 0));
    const packet = parsed(bytes);
    const want = understand(bytes, ETHERTYPE_IPV6, 0);
    expect(packet.rc).toBe(want.rc);
    if (packet.rc >= 0) expect(Buffer.from(packet.key).toString("hex")).toBe(want.key);
    seen.add(packet.rc);
  });
  fc.assert(property, { numRuns: 20_000 });
  expect([...seen].toSorted((a, b) => a - b)).toEqual([-1, 0, 1, 2, 8, 32, 33, 40]);
});
