// Structure-aware input for the flow socket: valid requests, then mutated, cut, doubled, put in the wrong order, made
// binary; and how their bytes are cut into pieces. Pure: the same for the same source of randomness.

import { pick, type Random } from "../harness/random.js";

const OTHER_ACTIONS = [
  "delete",
  "list",
  "list-names",
  "trace-set",
  "trace-delete",
  "trace-list",
  "SET",
  "",
  "nonsense",
];
const ACTIONS = [...Array<string>(9).fill("set"), ...OTHER_ACTIONS];
const NAMES = [
  "a",
  "b",
  "c",
  "d",
  "e",
  "f",
  "g",
  "h",
  "#a",
  "",
  "ü",
  'sp ace"q',
  "\u0000",
  "n".repeat(1023),
  "n".repeat(1024),
];
const SOUND_NAMES = ["a", "b", "c", "d", "e", "#a"];
const TARGETS = ["t1", "t1", "t2", "t2", "none", "", "../t1", ".", "t1/", "\u0000", "t".repeat(300)];
const VALUES: Readonly<Record<string, readonly string[]>> = {
  priority: ["0", "1", "-2147483648", "2147483647", "2147483648", "1e3", "", "-", " 1", "0x10"],
  protocols: ["tcp", "udp,sctp", "TCP, udp", "sctp", "icmp", ",,,", "", "tcp,".repeat(400)],
  dsts: ["10.0.0.0/8", "::/0", "0.0.0.0/0", "10.0.0.1", "1.2.3.4/33", "2001:db8::/129", "::ffff:1.2.3.4/128", "x", ""],
  srcs: ["192.0.2.0/24,2001:db8::/32", "fe80::%1/64", Array.from({ length: 33 }, (_, i) => `10.0.0.${i}/32`).join()],
  dports: ["80", "1-65535", "0", "65536", "5-1", "1,2,3,100-200", "-", "80-", "", "1,".repeat(600)],
  sports: ["1024-65535", "0-0", "a", "1--2"],
  match: ["tcp[13:1]&0x12=0x02", "tcp[18:4]=1", "udp[0:3]=1", "tcp[", "=", "icmp[0:1]=1", "tcp[2:2]=0x50,,"],
  udpencap: ["0", "9899", "65536", "x"],
};

/** The lines of a request that some client could mean. */
function requestLines(random: Random): string[] {
  const lines = [`action:${pick(random, ACTIONS)}`];
  if (random(10) > 0) lines.push(`name:${pick(random, NAMES)}`);
  if (random(4) > 0) lines.push(`target:${pick(random, TARGETS)}`);
  for (const [name, values] of Object.entries(VALUES))
    if (random(9) === 0) lines.push(`${name}:${pick(random, values)}`);
  lines.push("eoc:");
  return lines;
}

function mutateLines(random: Random, lines: string[]): void {
  if (lines.length === 0) return;
  const at = random(lines.length);
  const kind = random(random(10) === 0 ? 9 : 6); // the long ones are slow
  if (kind === 0) lines.splice(at, 1);
  else if (kind === 1) lines.splice(at, 0, lines[at]!);
  else if (kind === 2) lines.push(lines.splice(at, 1)[0]!);
  else if (kind === 3) lines[at] = lines[at]!.replace(":", "");
  else if (kind === 4) lines[at] = lines[at]!.replace(":", "::");
  else if (kind === 5) lines.splice(at, 0, "");
  else if (kind === 6) lines.splice(at, 0, `unknown:${"y".repeat(random(3_000))}`);
  else if (kind === 7) lines[at] = `${lines[at]!}${"x".repeat(random(20_000))}`;
  else lines.splice(at, 0, ...Array.from({ length: 1 + random(12) }, () => `unknown:${"z".repeat(random(8_180))}`));
}

function mutateBytes(random: Random, bytes: number[]): void {
  const at = random(bytes.length + 1);
  const kind = random(5);
  if (kind === 0) bytes.length = at;
  else if (kind === 1) bytes.splice(at, 1);
  else if (kind === 2) bytes.splice(at, 0, random(256));
  else if (kind === 3 && at < bytes.length) bytes[at] = pick(random, [0, 10, 13, 58, 0x80, 0xff, random(256)]);
  else bytes.splice(at, 0, ...Array.from({ length: random(40) }, () => random(256)));
}

/** A request that is granted more often than not, so that rules gather. */
export function soundInput(random: Random): Uint8Array {
  const isEncapsulated = random(4) === 0;
  const prefix = random(4) === 0 ? "trace-" : "";
  const lines = [`action:${prefix}${pick(random, ["set", "set", "set", "set", "delete", "list", "list-names"])}`];
  lines.push(`name:${pick(random, SOUND_NAMES)}`, `target:${pick(random, ["t1", "t2"])}`);
  if (random(2) === 0) lines.push(`priority:${random(4)}`);
  if (isEncapsulated) lines.push("protocols:sctp", `udpencap:${pick(random, ["9899", "9899", "80"])}`);
  else if (random(2) === 0) lines.push(`dports:${1 + random(50)}-${40 + random(100)},${1 + random(200)}`);
  return new TextEncoder().encode(`${lines.join("\n")}\neoc:\n`);
}

/** A line, or a request, as long as it may be, or some bytes more or less. */
function atTheLimit(random: Random): Uint8Array {
  const more = random(5) - 2;
  const line = (bytes: number) => `unknown:${"x".repeat(bytes - 8)}\n`;
  if (random(8) > 0) return new TextEncoder().encode(`${line(8_192 + more)}eoc:\n`);
  return new TextEncoder().encode(
    `${line(8_191)
      .repeat(8)
      .slice(0, 65_536 - 5 + more)}\neoc:\n`,
  );
}

/** What one client sends before it stops. */
export function flowInput(random: Random): Uint8Array {
  if (random(300) === 0) return atTheLimit(random);
  if (random(50) === 0) return new Uint8Array(Array.from({ length: random(300) }, () => random(256)));
  const lines = requestLines(random);
  if (random(2) === 0) for (let n = 1 + random(3); n > 0; n--) mutateLines(random, lines);
  const text = lines.map((line) => `${line}\n`).join("");
  if (random(3) > 0 || text.length > 5_000) return new TextEncoder().encode(text);
  const bytes = [...new TextEncoder().encode(text)];
  for (let n = 1 + random(4); n > 0; n--) mutateBytes(random, bytes);
  return new Uint8Array(bytes);
}

/** The bytes as they may arrive: whole, byte by byte, or in pieces. */
export function inPieces(random: Random, bytes: Uint8Array): readonly Uint8Array[] {
  const most = pick(random, bytes.length < 400 ? [1, 7, 100, 400] : [100, 1_000, 70_000]);
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = 1 + random(most);
    pieces.push(bytes.subarray(at, at + length));
    at += length;
  }
  return pieces;
}
