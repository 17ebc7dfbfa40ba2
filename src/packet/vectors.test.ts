import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { djb2, hashAddresses, hashKey, Packet, parse } from "./index.js";

type Result = {
  rc: number | null;
  key?: string;
  hash_mode0?: number;
  hash_mode1?: number;
  hash_addresses?: number;
  fragid?: string;
};
type Vector = Result & {
  name: string;
  l3: string;
  udpencap: number;
  packet: string;
  defect?: string;
  correct?: Result;
};

const vectors = JSON.parse(
  readFileSync(new URL("../../test/vectors/nfqlb/nfqlb-vectors.json", import.meta.url), "utf8"),
) as { packets: Vector[]; djb2: { hex: string; hash: number }[] };

const unhex = (hex: string) => new Uint8Array(Buffer.from(hex, "hex"));

test("djb2 gives nfqlb's hashes", () => {
  expect(vectors.djb2).toHaveLength(7);
  for (const { hex, hash } of vectors.djb2) expect(djb2(unhex(hex), 0, hex.length / 2)).toBe(hash);
});

test("the vector file is complete", () => {
  expect(vectors.packets).toHaveLength(142);
  expect(vectors.packets.filter(({ defect, correct }) => defect !== undefined && correct === undefined)).toHaveLength(
    2,
  );
});

test.each(vectors.packets)("parse and hash give nfqlb's answer, or the right one: $name", (vector) => {
  const bytes = unhex(vector.packet);
  const packet = new Packet();
  const rc = parse(bytes, 0, bytes.length, Number(vector.l3), vector.udpencap, packet);
  const want = vector.correct ?? (vector.defect === undefined ? vector : null);
  if (want === null) {
    expect([-1, 1, 2]).toContain(rc); // no single right answer: only that it returns with a sensible one
    return;
  }
  expect(rc).toBe(want.rc);
  if (rc < 0) return;
  expect(Buffer.from(packet.key).toString("hex")).toBe(want.key);
  expect(hashKey(packet, 0)).toBe(want.hash_mode0);
  expect(hashKey(packet, 1)).toBe(want.hash_mode1);
  expect(hashAddresses(packet)).toBe(want.hash_addresses);
  const digits = vector.l3 === "0x0800" ? 4 : 8;
  if (want.fragid !== undefined) {
    expect(packet.fragmentId.toString(16).padStart(digits, "0").padEnd(16, "0")).toBe(want.fragid);
  }
});
