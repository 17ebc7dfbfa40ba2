import fc from "fast-check";
import { Address4, Address6 } from "ip-address";
import { expect, test } from "vitest";
import { formatAddress, formatPrefix, isIpv4, parseAddress, parsePrefix, prefixContains } from "./index.js";

const any16 = fc.uint8Array({ minLength: 16, maxLength: 16 });
const anyV4 = fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255), fc.nat(255)).map((bytes) => bytes.join("."));
const sparse = fc.array(fc.constantFrom(0, 0, 0, 0, 1, 0xff, 0xabcd), { minLength: 8, maxLength: 8 }).map((words) => {
  const bytes = new Uint8Array(16);
  for (const [i, word] of words.entries()) new DataView(bytes.buffer).setUint16(i * 2, word);
  return bytes;
});

test("formatAddress writes RFC 5952, as the oracle does, and parseAddress reads it back", () => {
  const holds = fc.property(fc.oneof(any16, sparse), (bytes) => {
    const text = formatAddress(bytes);
    expect(parseAddress(text)).toEqual(bytes);
    if (!isIpv4(bytes)) expect(text).toBe(Address6.fromByteArray([...bytes]).correctForm());
  });
  fc.assert(holds, { numRuns: 2_000 });
});

test("parseAddress reads every dotted quad as the mapped address", () => {
  fc.assert(
    fc.property(anyV4, (text) => {
      expect([...parseAddress(text).subarray(12)]).toEqual(new Address4(text).toArray());
      expect(formatAddress(parseAddress(text))).toBe(text);
    }),
  );
});

test("text that the strict oracle refuses is refused", () => {
  const junk = fc.stringMatching(/^[0-9a-f:.%/ x]{0,24}$/);
  const holds = fc.property(junk, (text) => {
    const isValid = text.includes(":")
      ? Address6.isValid(text) && !/[%/]/.test(text)
      : Address4.isValid(text) && !text.includes("/");
    if (!isValid) expect(() => parseAddress(text)).toThrow(/not an IPv4 or IPv6 address/);
  });
  fc.assert(holds, { numRuns: 5_000 });
});

test.each([
  "010.1.2.3",
  "1.2.3",
  "1.2.3.4 ",
  " 1.2.3.4",
  "256.1.1.1",
  "1.2.3.4.5",
  "12345::",
  "::1::",
  "1:2:3:4:5:6:7",
  ":::",
  "::1%eth0",
  "[::1]",
  "",
  "1.2.3.-4",
  "::1.2.3",
  "1::2:3:4:5:6:7:8",
])("parseAddress refuses %j", (text) => {
  expect(() => parseAddress(text)).toThrowError(
    expect.objectContaining({ code: "ERR_CONFIG", field: "address", value: text }),
  );
});

test("a prefix clears its host bits and contains just the addresses that share its bits", () => {
  expect(formatPrefix(parsePrefix("10.1.2.3/8"))).toBe("10.0.0.0/8");
  expect(formatPrefix(parsePrefix("2001:db8:ffff::1/33"))).toBe("2001:db8:8000::/33");
  expect(parsePrefix("0.0.0.0/0")).toMatchObject({ bits: 96 });
  const holds = fc.property(any16, any16, fc.nat(128), (base, address, bits) => {
    const prefix = parsePrefix(`${formatAddress(base)}/${isIpv4(base) ? Math.min(32, bits) : bits}`);
    const asBits = (bytes: Uint8Array) => Array.from(bytes, (byte) => byte.toString(2).padStart(8, "0")).join("");
    const near = base.map((byte, i) => (i < 8 ? byte : address[i]!));
    for (const one of [address, near, base]) {
      expect(prefixContains(prefix, one)).toBe(
        asBits(one).slice(0, prefix.bits) === asBits(prefix.address).slice(0, prefix.bits),
      );
    }
  });
  fc.assert(holds, { numRuns: 1_000 });
});

test.each([
  "10.0.0.1",
  "10.0.0.1/33",
  "10.0.0.1/-1",
  "10.0.0.1/08",
  "2000::/129",
  "/24",
  "10.0.0.0/24xyz",
  "10.0.0.0/",
])("parsePrefix refuses %j", (text) => {
  expect(() => parsePrefix(text)).toThrowError(expect.objectContaining({ code: "ERR_CONFIG" }));
});
