import { expect, test } from "vitest";
import { FragmentSpan } from "./fragment.js";

const span = (hex: string, etherType: number) => {
  const bytes = new Uint8Array(Buffer.from(hex.replaceAll(" ", ""), "hex"));
  const result = new FragmentSpan();
  result.read(bytes, 0, bytes.length, etherType);
  const { packetBytes, from, to, isLast } = result;
  return { packetBytes, from, to, isLast };
};
const V4 = 0x0800;
const V6 = 0x86dd;
const ADDRESSES6 = "fd010000000000000000000000000002 20010db8000000000000000000000001";

// Synthetic: headers by hand from RFC 791 and RFC 8200. Real fragments of the kernel and their reassembly by it are in
// test/netns/fragments.test.ts.
test("an IPv4 fragment: offset, length and end by its header, padding behind it ignored", () => {
  const header = (length: string, field: string) => `4500${length} 0001${field} 40110000 0a000002 0a000001`;
  expect(span(header("05dc", "2000"), V4)).toEqual({ packetBytes: 1500, from: 0, to: 185, isLast: false });
  expect(span(header("05dc", "20b9"), V4)).toEqual({ packetBytes: 1500, from: 185, to: 370, isLast: false });
  expect(span(`${header("001d", "00b9")} ${"aa".repeat(26)}`, V4)).toEqual({
    packetBytes: 29,
    from: 185,
    to: 187,
    isLast: true,
  });
  expect(span(header("001d", "20b9"), V4)).toMatchObject({ from: 185, to: 186, isLast: false }); // a part of a unit
  expect(span(header("0000", "20b9"), V4)).toMatchObject({ packetBytes: 0, from: 185, to: 185 }); // a length that lies
  expect(span(`4600001c 000100b9 40110000 0a000002 0a000001 01010101 bbbbbbbb`, V4)).toMatchObject({
    from: 185,
    to: 186,
    isLast: true,
  });
});

test("an IPv6 fragment: the same, behind extension headers too", () => {
  const fragmentHeader = "1100 05a9 00000007"; // offset 181 * 8, more to come
  expect(span(`60000000 05b0 2c40 ${ADDRESSES6} ${fragmentHeader}`, V6)).toEqual({
    packetBytes: 1496,
    from: 181,
    to: 362,
    isLast: false,
  });
  expect(span(`60000000 0018 3c40 ${ADDRESSES6} 2c00010400000000 1100 05a8 00000007 0000000000000000`, V6)).toEqual({
    packetBytes: 64,
    from: 181,
    to: 182,
    isLast: true,
  });
});
