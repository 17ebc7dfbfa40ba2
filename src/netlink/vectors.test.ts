// Bytes made by ip, nft, libnetfilter_queue and the kernel (scripts/netlink-vectors.mjs), and the laws of every codec.
import { readdirSync } from "node:fs";
import { expect, test } from "vitest";
import { bytesOf } from "../../test/fakes/fake-kernel.js";
import { type Kind, kinds } from "../../test/harness/netlink-kinds.js";
import { fromPlain, toPlain, vectorsOf } from "../../test/vectors/netlink/vectors.js";

const hexOf = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
const folder = new URL("../../test/vectors/netlink/", import.meta.url);
const files = readdirSync(folder)
  .filter((file) => file.endsWith(".json"))
  .map((file) => file.replace(/\.json$/, ""))
  .map((kind) => [kind, vectorsOf(kind)] as const);

/** An attribute that no kernel has, its last byte without padding. */
const UNKNOWN = { type: 0x3abc, payload: bytesOf("0102030405") };
const UNKNOWN_BYTES = bytesOf("0900bc3a0102030405");

/** Whether `bytes` decode, or are refused as they should be. */
function expectDecodesOrRefuses(kind: Kind, bytes: Uint8Array): void {
  for (const decode of [() => kind.codec.decode(bytes, "x"), () => kind.read?.(bytes)]) {
    try {
      decode();
    } catch (error) {
      if ((error as { code?: unknown }).code === "ERR_DECODE") continue;
      throw new Error(`${hexOf(bytes)}: not ERR_DECODE`, { cause: error });
    }
  }
}

test("every kind of message has bytes of a tool and of a kernel, and none was made by hand", () => {
  expect(files.map(([kind]) => kind).toSorted()).toEqual(Object.keys(kinds).toSorted());
  for (const [kind, vectors] of files) {
    const directions = new Set(vectors.map(({ direction }) => direction));
    // The kernel never tells a queue's configuration over netlink.
    expect([...directions].toSorted(), kind).toEqual(
      kind === "queue-config" ? ["request"] : ["from-kernel", "request"],
    );
    expect(vectors.filter(({ made, kernel }) => made === "" || kernel === "")).toEqual([]);
    expect(vectors.filter(({ synthetic }) => synthetic === true)).toEqual([]);
  }
});

for (const [name, vectors] of files) {
  const kind = kinds[name]!;
  const { codec, attributesAt } = kind;

  test.for(vectors)(`${name}: $made: $name`, ({ hex, value: plain, order }) => {
    const bytes = bytesOf(hex);
    const value = fromPlain(plain);
    expect(toPlain(codec.decode(bytes, name))).toEqual(plain);
    const encoded = codec.encode(value, name);
    if (order === undefined) expect(hexOf(encoded)).toBe(hex);
    else expect(toPlain(codec.decode(encoded, name))).toEqual(plain);
    expect(encoded.length).toBe((bytes.length + 3) & ~3);
    // deterministic, and leaves its input alone
    expect(hexOf(codec.encode(value, name))).toBe(hexOf(encoded));
    expect(toPlain(value)).toEqual(plain);
    expect(hexOf(bytes)).toBe(hex);
  });

  test(`${name}: every proper prefix, and every single changed byte, decodes or is ERR_DECODE`, () => {
    for (const { hex } of vectors) {
      const bytes = bytesOf(hex);
      for (let length = 0; length < bytes.length; length++) expectDecodesOrRefuses(kind, bytes.subarray(0, length));
      for (const [at, byte] of bytes.entries()) {
        for (const other of [0, 0x7f, 0xff, byte ^ 1, byte ^ 0x80]) expectDecodesOrRefuses(kind, bytes.with(at, other));
      }
    }
  });

  test(`${name}: a message that ends within its header is ERR_DECODE`, () => {
    const bytes = bytesOf(vectors[0]!.hex);
    for (let length = 0; length < attributesAt; length++) {
      const decode = () => codec.decode(bytes.subarray(0, length), name);
      expect(decode).toThrowError(expect.objectContaining({ code: "ERR_DECODE" }));
    }
  });

  test(`${name}: an unknown attribute is kept, sent back, and not fatal`, () => {
    for (const { hex } of vectors) {
      const bytes = bytesOf(hex);
      const more = new Uint8Array(((bytes.length + 3) & ~3) + UNKNOWN_BYTES.length);
      more.set(bytes);
      more.set(UNKNOWN_BYTES, (bytes.length + 3) & ~3);
      const value = codec.decode(more, name);
      expect(value.attributes.unknown.at(-1)).toEqual(UNKNOWN);
      expect(hexOf(codec.encode(value, name))).toContain(hexOf(UNKNOWN_BYTES));
    }
  });
}
