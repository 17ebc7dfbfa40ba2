import fc from "fast-check";
import { expect, test } from "vitest";
import {
  align,
  attr,
  attributes,
  be16,
  be32,
  be64,
  DecodeError,
  list,
  nested,
  raw,
  struct,
  text,
  u8,
  u16,
  u32,
} from "./index.js";

const header = struct("fib_rule_hdr", {
  family: u8,
  destinationLength: u8,
  sourceLength: u8,
  tos: u8,
  table: u8,
  res1: u8,
  res2: u8,
  action: u8,
  flags: u32,
});
const rule = attributes("FRA", {
  goto: attr(4, u32),
  priority: attr(6, u32),
  fwmark: attr(10, u32),
  suppressPrefixLength: attr(14, u32),
  table: attr(15, u32),
  fwmask: attr(16, u32),
  protocol: attr(21, u8),
});

// iproute2 6.1.0: ip rule add priority 20 fwmark 5001 table 5001; its RTM_GETRULE dump on Linux 6.18, nlmsghdr removed.
const KERNEL_RULE =
  "02000000fc000001 00000000 08000f0089130000 08000e00ffffffff 0500150000000000 0800060014000000 08000a0089130000 08001000ffffffff";
const unhex = (hex: string) => new Uint8Array(Buffer.from(hex.replace(/\s/g, ""), "hex"));

test("the kernel's own bytes of a rule are understood", () => {
  const bytes = unhex(KERNEL_RULE);
  expect(header.decode(bytes, "")).toMatchObject({ family: 2, table: 0xfc, action: 1, flags: 0 });
  expect(rule.decode(bytes.subarray(header.size), "")).toEqual({
    table: 5001,
    suppressPrefixLength: 0xffffffff,
    protocol: 0,
    priority: 20,
    fwmark: 5001,
    fwmask: 0xffffffff,
  });
});

test("every prefix and every changed byte of them decodes or is ERR_DECODE", () => {
  const bytes = unhex(KERNEL_RULE);
  const decode = (some: Uint8Array) => {
    try {
      header.decode(some, "");
      rule.decode(some.subarray(header.size), "");
    } catch (error) {
      expect(error).toBeInstanceOf(DecodeError);
    }
  };
  for (let length = 0; length < bytes.length; length++) decode(bytes.subarray(0, length));
  for (let at = 0; at < bytes.length; at++) for (const value of [0, 1, 0x7f, 0xff]) decode(bytes.with(at, value));
});

const tree = attributes("T", {
  name: attr(1, text),
  numbers: nested(2, list(1, attributes("N", { big: attr(1, be64), small: attr(2, be16) }))),
  bytes: attr(3, raw),
  half: attr(4, u16),
  word: attr(5, be32),
});

test("what is encoded is decoded as it was; absent is absent; unknown attributes are kept", () => {
  const numbers = fc.array(fc.record({ big: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), small: fc.nat(65_535) }), {
    maxLength: 3,
  });
  const value = fc.record(
    {
      name: fc.stringMatching(/^[a-z]{0,9}$/),
      numbers,
      bytes: fc.uint8Array({ maxLength: 9 }),
      half: fc.nat(65_535),
      word: fc.nat(),
      unknown: fc.constant([{ type: 77, payload: new Uint8Array([1, 2, 3]) }]),
    },
    { requiredKeys: [] },
  );
  const holds = fc.property(value, (one) => {
    expect(tree.decode(tree.encode(one, ""), "")).toEqual(one);
  });
  fc.assert(holds);
});

test("align is the next multiple of 4, for every length that 32 bits can say", () => {
  for (const base of [0, 4, 4_096, 2 ** 31 - 8, 2 ** 31 - 4, 2 ** 31, 2 ** 32 - 8])
    expect([0, 1, 2, 3, 4].map((more) => align(base + more) - base)).toEqual([0, 4, 4, 4, 4]);
  expect(align(2 ** 32 - 1)).toBe(2 ** 32);
});

test("a number that does not fit its field is refused with the field's path", () => {
  expect(() => rule.encode({ protocol: 256 }, "rule")).toThrow(
    /rule\.FRA\.protocol: 256 is not a whole number 0\.\.255/,
  );
  expect(() => rule.encode({ table: -1 }, "rule")).toThrow(RangeError);
  expect(() => rule.decode(unhex("0500 0f00 01000000"), "rule")).toThrow(/rule\.FRA\.table: 4 bytes needed, 1 found/);
});
