// Netlink replies: the kernel's and the tools' messages of the vectors, spoiled. They decode or are ERR_DECODE, and what
// was decoded survives being encoded.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { decodeOutcome, encodeMessage, splitMessages } from "../../../src/netlink/message.js";
import { type Kind, kinds } from "../../harness/netlink-kinds.js";
import { pick, type Random } from "../../harness/random.js";
import type { Vector } from "../../vectors/netlink/vectors.js";
import { differ, type TargetMaker } from "../target.js";

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
const NAMES = Object.keys(kinds);
const LENGTHS = [0, 1, 2, 3, 4, 5, 8, 12, 16, 0x7f, 0xff];

/** Whether the attributes fill the bytes; the last may lack its padding. */
function fits(attributes: Uint8Array): boolean {
  if (attributes.length === 0) return true;
  if (attributes.length < 4) return false;
  const length = attributes[0]! + 256 * attributes[1]!;
  return length >= 4 && length <= attributes.length && fits(attributes.subarray(Math.ceil(length / 4) * 4));
}

function spoil(random: Random, bytes: number[]): void {
  const at = random(bytes.length + 1);
  const kind = random(6);
  if (kind === 0) bytes.length = at;
  else if (kind === 1) bytes.splice(at, 1 + random(8));
  else if (kind === 2) bytes.splice(at & ~3, 0, ...Array.from({ length: 4 * (1 + random(3)) }, () => random(256)));
  else if (kind === 3)
    bytes[at & ~3] = pick(random, LENGTHS); // where most lengths are
  else if (at < bytes.length) bytes[at] = random(2) === 0 ? pick(random, LENGTHS) : random(256);
  for (let i = 0; i < bytes.length; i++) bytes[i] ??= 0;
}

export const netlinkTarget: TargetMaker = (_, root) => {
  const folder = join(root, "test/vectors/netlink");
  const bodies = NAMES.map((name) => {
    const vectors = JSON.parse(readFileSync(join(folder, `${name}.json`), "utf8")) as readonly Vector[];
    return vectors.map(({ hex }) => [...Buffer.from(hex, "hex")]);
  });
  const seen = { decoded: 0, refused: 0, outcomes: 0 };

  /** The value, or null for ERR_DECODE; anything else is thrown on. */
  function tryDecode<T>(decode: () => T): T | null {
    try {
      return decode();
    } catch (error) {
      if ((error as { code?: string }).code !== "ERR_DECODE") throw error;
      seen.refused++;
      return null;
    }
  }

  function checkBody({ codec, read, attributesAt }: Kind, body: Uint8Array): string | null {
    tryDecode(() => read?.(body));
    const value: unknown = tryDecode(() => codec.decode(body, ""));
    if (value === null) return null;
    seen.decoded++;
    if (!fits(body.subarray(attributesAt))) return "decoded, although an attribute does not fit";
    const bytes = codec.encode(value, "");
    const again = codec.encode(codec.decode(bytes, ""), "");
    return differ("encoded, decoded and encoded", hex(again), hex(bytes));
  }

  return {
    seen,
    /** settings: kind of message, netlink type, flags; part: one datagram. */
    generate(random) {
      const kind = random(NAMES.length);
      const bytes: number[] = [];
      for (let n = random(3); n >= 0; n--) {
        const body = [...pick(random, bodies[kind]!)];
        if (random(4) > 0) for (let times = 1 + random(3); times > 0; times--) spoil(random, body);
        const type = random(5) === 0 ? pick(random, [2, 3]) : 16 + random(100);
        bytes.push(...encodeMessage(type, random(2) === 0 ? 0x200 : random(65_536), 1, Uint8Array.from(body)));
      }
      if (random(6) === 0) spoil(random, bytes);
      return { settings: [kind], parts: [Uint8Array.from(bytes)] };
    },
    check({ settings: [kind = 0], parts }) {
      for (const part of parts) {
        for (const one of tryDecode(() => splitMessages(part)) ?? []) {
          if (one.type === 2 || one.type === 3) {
            if (tryDecode(() => decodeOutcome(one)) !== null) seen.outcomes++;
            continue;
          }
          const problem = checkBody(kinds[NAMES[kind % NAMES.length]!]!, one.body);
          if (problem !== null) return problem;
        }
      }
      return null;
    },
  };
};
