// The declared codecs, which the kernel's own bytes prove, are the oracle.
import fc from "fast-check";
import { expect, test } from "vitest";
import { bytesNamed, vectorsOf } from "../../../test/vectors/netlink/vectors.js";
import { encodeMessage, NLM_F_REPLACE, splitMessages } from "../message.js";
import { decodeNeighbor, encodeNeighbor, type NeighborKey, NeighborState, neighborMessage } from "./neighbor.js";
import { addressKey, MOST_REQUEST_BYTES, NeighborView, writeNeighborRequest } from "./neighbor-view.js";

const NEW = 28;
const DELETED = 29;
const ROOM_BYTES = 4_096;
/** What stands in front of it. */
const BEFORE = 48;

/** What a message says by the view; null: it leaves it to be decoded. */
function viewOf(datagram: Uint8Array) {
  const buffer = new Uint8Array(ROOM_BYTES);
  buffer.set(datagram, BEFORE);
  const view = new NeighborView(buffer);
  if (!view.read(BEFORE, datagram.length)) return null;
  const { change, linkIndex, state, key, family, mac } = view;
  return { change, family, linkIndex, state, key, mac, decode: () => view.decode() };
}

/** How many attributes of a body say that they are the address. */
function addressesIn(body: Uint8Array): number {
  const view = new DataView(body.buffer, body.byteOffset, body.length);
  let count = 0;
  for (let at = 12; at + 4 <= body.length; at += (Math.max(4, view.getUint16(at, true)) + 3) & ~3)
    if ((view.getUint16(at + 2, true) & 0x3fff) === 1) count++;
  return count;
}

test("what the kernel tells of neighbors is read as the declared codecs read it", () => {
  const told = vectorsOf("neighbor").filter(({ direction }) => direction === "from-kernel");
  let withMac = 0;
  for (const [i, { name }] of told.entries()) {
    const body = bytesNamed("neighbor", name);
    const { address, family, linkIndex, state, linkLayerAddress } = decodeNeighbor(body)!;
    const mac = linkLayerAddress?.length === 6 ? Number(`0x${Buffer.from(linkLayerAddress).toString("hex")}`) : 0;
    if (mac !== 0) withMac++;
    const change = i % 2 === 0 ? "new" : "deleted";
    const { decode, ...seen } = viewOf(encodeMessage(change === "new" ? NEW : DELETED, 0, 0, body))!;
    expect(seen).toEqual({ change, family, linkIndex, state, mac, key: addressKey(address) });
    expect(decode()).toEqual(decodeNeighbor(body));
  }
  expect(told.length).toBeGreaterThan(5);
  expect(withMac).toBeGreaterThan(2);
});

test("whatever the bytes are: taken is only what decodes to the same; the rest is left to the codecs", () => {
  const bodies = vectorsOf("neighbor").map(({ name }) => bytesNamed("neighbor", name));
  const anyChange = fc.record({ at: fc.nat(60), to: fc.nat(255), cut: fc.nat(8) });
  const holds = fc.property(fc.constantFrom(...bodies), anyChange, (body, { at, to, cut }) => {
    const datagram = encodeMessage(NEW, 0, 0, body);
    if (at < datagram.length) datagram[at] = to;
    const given = datagram.subarray(0, datagram.length - (cut > 4 ? cut - 4 : 0));
    const seen = viewOf(given);
    if (seen === null) return;
    const [message] = splitMessages(given);
    let decoded: ReturnType<typeof decodeNeighbor>;
    try {
      decoded = decodeNeighbor(message!.body);
    } catch {
      return; // an attribute behind the address is broken: nobody looks at it
    }
    if (addressesIn(message!.body) > 1) return; // the codecs take the last one, the view the first; the kernel writes one
    const { address, family, linkIndex, state } = decoded!;
    expect(seen).toMatchObject({ family, linkIndex, state, key: addressKey(address) });
  });
  fc.assert(holds, { numRuns: 2_000 });
});

test("other messages, several in a datagram, and other families are left alone", () => {
  const body = bytesNamed("neighbor", vectorsOf("neighbor").find(({ direction }) => direction === "from-kernel")!.name);
  const bridge = body.slice();
  bridge[0] = 7; // AF_BRIDGE
  const one = encodeMessage(NEW, 0, 0, body);
  const two = new Uint8Array([...one, ...one]);
  const left = [encodeMessage(16, 0, 0, body), encodeMessage(NEW, 0, 0, bridge), two, one.subarray(0, 20)];
  expect(left.map(viewOf)).toEqual([null, null, null, null]);
});

test("a question is the message that the declared codecs make, whatever stood in its place", () => {
  const anyAddress = fc.constantFrom(4, 16).chain((length) => fc.uint8Array({ minLength: length, maxLength: length }));
  const anyLink = fc.integer({ min: 1, max: 2 ** 31 - 1 });
  const holds = fc.property(
    anyAddress,
    anyLink,
    fc.nat(0xffff),
    fc.nat(100),
    (address, linkIndex, sequence, before) => {
      const key: NeighborKey = { family: address.length === 4 ? 4 : 6, linkIndex, address };
      const bytes = new Uint8Array(before + MOST_REQUEST_BYTES).fill(0xff);
      const room = { bytes, words: new DataView(bytes.buffer) };
      const request = { netlinkFlags: NLM_F_REPLACE, state: NeighborState.probe, entryFlags: 1 };
      const end = writeNeighborRequest(room, before, key, request, sequence, 5);
      const body = encodeNeighbor({ ...key, state: request.state, flags: 1, linkLayerAddress: null, protocol: 0 });
      expect(bytes.subarray(before, end)).toEqual(encodeMessage(NEW, NLM_F_REPLACE | 5, sequence, body));
      expect(neighborMessage.decode(body, "").header.state).toBe(NeighborState.probe);
    },
  );
  fc.assert(holds);
});
