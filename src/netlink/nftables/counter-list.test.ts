import { expect, test } from "vitest";
import { bytesOf } from "../../../test/fakes/fake-kernel.js";
import { vectorsOf } from "../../../test/vectors/netlink/vectors.js";
import { counterAttributes, ruleAttributes } from "./codecs.js";
import { readRuleCounter } from "./counter-list.js";

const NFGENMSG_BYTES = 4;

const read = (attributes: Uint8Array) => readRuleCounter(Buffer.from(attributes), 0, attributes.length);

/** The same by the declared codecs. */
function decoded(attributes: Uint8Array) {
  const { chain = "", expressions = [] } = ruleAttributes.decode(attributes, "");
  const found = expressions.find(({ name }) => name === "counter");
  if (found?.data === undefined) return null;
  const { packets = 0n, bytes = 0n } = counterAttributes.decode(found.data, "");
  return { chain, packets: Number(packets), bytes: Number(bytes) };
}

test("a rule's counter read by hand is what the declared codecs read, in all bytes of nft and the kernel", () => {
  const vectors = vectorsOf("nft-rule");
  let counters = 0;
  for (const { name, hex } of vectors) {
    const attributes = bytesOf(hex).subarray(NFGENMSG_BYTES);
    const found = read(attributes);
    expect(found, name).toEqual(decoded(attributes));
    counters += found === null ? 0 : 1;
  }
  expect(counters).toBeGreaterThan(4);
  expect(counters).toBeLessThan(vectors.length);
});

test("large numbers, the counter behind other expressions, attributes cut short", () => {
  const counter = counterAttributes.encode({ bytes: 2n ** 52n + 3n, packets: 2n ** 32n + 5n }, "");
  const expressions = [
    { name: "meta", data: new Uint8Array([8, 0, 1, 0, 1, 2, 3, 4]) },
    { name: "counter", data: counter },
  ];
  const attributes = ruleAttributes.encode({ table: "t", chain: "fwmark-5001", expressions }, "");
  expect(read(attributes)).toEqual({ chain: "fwmark-5001", packets: 2 ** 32 + 5, bytes: 2 ** 52 + 3 });
  expect(read(ruleAttributes.encode({ table: "t", chain: "c" }, ""))).toBe(null);
  for (let length = 0; length < attributes.length; length++) {
    let outcome: unknown = null;
    try {
      outcome = read(attributes.subarray(0, length));
    } catch (error) {
      expect(error).toBeInstanceOf(RangeError);
    }
    expect(outcome === null || typeof outcome === "object").toBe(true);
  }
});
