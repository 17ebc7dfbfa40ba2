import fc from "fast-check";
import { expect, test } from "vitest";
import { readPcapngStrictly } from "../../test/oracle/pcapng.js";
import { readCapture } from "./nfqlb/capture.js";
import { captureBlock, captureHead } from "./nfqlb/capture-writer.js";

const SNAP_BYTES = 256;

const whole = (parts: readonly Uint8Array[]) => new Uint8Array(Buffer.concat(parts));

/** No IP packet, which says itself how long it is. */
const anyBytes = fc
  .uint8Array({ maxLength: SNAP_BYTES })
  .map((bytes) => bytes.map((byte, i) => (i === 0 ? byte | 0x80 : byte)));
const anyPacket = fc.record({
  queue: fc.nat(65_535),
  seconds: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  nanoseconds: fc.integer({ min: 0, max: 999_999_999 }),
  bytes: anyBytes,
  beyond: fc.nat(60_000),
  comment: fc.string({ unit: "grapheme" }),
});

test("a capture file is what the draft says, and what we read is what was written", () => {
  const holds = fc.property(fc.array(anyPacket, { maxLength: 20 }), (given) => {
    const packets = given.map(({ beyond, ...packet }) => ({ ...packet, length: packet.bytes.length + beyond }));
    const file = whole([captureHead("test", "name", SNAP_BYTES), ...packets.map(captureBlock)]);
    expect(readPcapngStrictly(file)).toEqual(
      packets.map(({ queue, seconds, nanoseconds, bytes, length, comment }) => ({
        interfaceName: "name",
        queue,
        timestampNs: BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds),
        bytes,
        originalLength: length,
        comments: [comment],
      })),
    );
    const read = [...readCapture(file)].map(({ bytes }) => Buffer.from(bytes).toString("hex"));
    expect(read).toEqual(packets.map(({ bytes }) => Buffer.from(bytes).toString("hex")));
  });
  fc.assert(holds);
});

test("a comment longer than an option can be is cut", () => {
  const packet = { queue: 0, seconds: 1, nanoseconds: 2, bytes: new Uint8Array(3), length: 3 };
  const file = whole([
    captureHead("test", "name", SNAP_BYTES),
    captureBlock({ ...packet, comment: "x".repeat(70_000) }),
  ]);
  expect(readPcapngStrictly(file)[0]!.comments[0]).toHaveLength(65_535);
});
