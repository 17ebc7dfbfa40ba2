import { expect, test } from "vitest";
import { readCapture } from "./nfqlb/capture.js";

const ETHERNET = 1;
const RAW = 101;
const words = (...values: readonly number[]) => Buffer.from(new Uint32Array(values).buffer); // we run on little endian
const bytes = (hex: string) => Buffer.from(hex.replaceAll(" ", ""), "hex");

/** The only packet of a pcap file, from its IP header on, and how much of it is missing. */
function read(linkType: number, frame: Uint8Array, original = frame.length) {
  const head = words(0xa1b2c3d4, 0x0004_0002, 0, 0, 65_535, linkType);
  const file = Buffer.concat([head, words(0, 0, frame.length, original), frame]);
  const [packet] = [...readCapture(new Uint8Array(file))];
  return { hex: Buffer.from(packet!.bytes).toString("hex"), missing: packet!.missing };
}

/** Total length 22: an ICMP echo request of two bytes. */
const v4 = "4500 0016 0000 0000 4001 0000 c633 6407 0a00 0001 0800";
/** Payload length 8: UDP to port 9899 without payload. */
const v6 = "6000 0000 0008 1140 20010db8009900000000000000000007 20010db8000a00000000000000000001 0005 26ab 0008 0000";
const ether = (type: string, packet: string) => bytes(`020202020202 040404040404 ${type} ${packet}`);
const hex = (packet: string) => packet.replaceAll(" ", "");

test("padding and trailers of the link layer are no part of a packet, as the kernel cuts them off", () => {
  const padding = "0001 0002".padEnd(48, "0");
  expect(read(ETHERNET, ether("0800", v4 + padding))).toEqual({ hex: hex(v4), missing: 0 });
  expect(read(ETHERNET, ether("8100 0007 0800", v4 + padding))).toEqual({ hex: hex(v4), missing: 0 });
  expect(read(ETHERNET, ether("86dd", `${v6} 0001 0002 0000 0000`))).toEqual({ hex: hex(v6), missing: 0 });
  expect(read(RAW, bytes(`${v6} 00`))).toEqual({ hex: hex(v6), missing: 0 });
  const empty = hex(v6).slice(0, 80).replace("00081140", "00003b40"); // no next header, no payload
  expect(read(RAW, bytes(`${empty} 0001`))).toEqual({ hex: empty, missing: 0 });
});

test("lengths that a packet cannot say leave it as it is", () => {
  const jumbo = `${hex(v6).slice(0, 80).replace("00081140", "00000040")}1100c204000186a0`; // RFC 2675
  expect(read(RAW, bytes(jumbo))).toEqual({ hex: jumbo, missing: 0 });
  const big4 = hex(v4).replace("45000016", "45000000"); // BIG TCP
  expect(read(RAW, bytes(big4))).toEqual({ hex: big4, missing: 0 });
  const big6 = Buffer.alloc(70_000);
  bytes(hex(v6).slice(0, 80).replace("00081140", "00000640")).copy(big6);
  expect(read(RAW, big6).hex).toHaveLength(140_000);
  const arp = "0001 0800 0604 0001".padEnd(99, "0");
  expect(read(ETHERNET, ether("0806", arp))).toEqual({ hex: hex(arp), missing: 0 });
});

test("what the capture cut off is told, but not where that was padding", () => {
  expect(read(RAW, bytes(v4).subarray(0, 21), 22)).toEqual({ hex: hex(v4).slice(0, 42), missing: 1 });
  expect(read(RAW, bytes(v4).subarray(0, 10), 22)).toEqual({ hex: hex(v4).slice(0, 20), missing: 12 });
  expect(read(ETHERNET, ether("86dd", v6).subarray(0, 58), 62)).toMatchObject({ missing: 4 });
  expect(read(ETHERNET, ether("0800", `${v4} 0000`), 60)).toEqual({ hex: hex(v4), missing: 0 });
});
