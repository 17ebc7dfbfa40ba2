import { ConfigError } from "#model";

/** A test on bytes of the L4 header: the big-endian integer at `offset`, masked, equals `value`. A mask of 0 is none. */
export type ByteMatch = {
  readonly protocol: "tcp" | "udp" | "sctp";
  /** Bytes from the start of the L4 header; offset + size lies in the minimal header. */
  readonly offset: number;
  readonly size: 1 | 2 | 4;
  readonly mask: number;
  readonly value: number;
};

const MAX_CHARACTERS = 64;
const GRAMMAR = /^(sctp|tcp|udp)\[([0-9]+) *: *([124])\](?: *& *(0x[0-9a-f]+))? *= *([0-9]+|0x[0-9a-f]+)$/;

/** Length in bytes of the minimal L4 header; a match must lie inside it, and a packet must hold all of it. */
export const MINIMAL_HEADER = { tcp: 20, udp: 8, sctp: 12 } as const;

/** What a statement may be, for messages. */
export const BYTE_MATCH_ALLOWED =
  "tcp|udp|sctp[offset:1|2|4]&0xmask=value, lower case, at most 64 characters; offset + size at most 20 (tcp), 8 (udp), 12 (sctp)";

/**
 * Reads one statement of nfqlb's grammar, for example `tcp[13:1]&0x12=0x02`: lower case, at most 64 characters, spaces
 * only around `:`, `&` and `=`.
 * @throws {ConfigError} whose `rule` is upstream's whole reply
 */
export function parseByteMatch(text: string): ByteMatch {
  const refuse = (reason: string) => new ConfigError("match", text, `Match [${text}] ${reason}`);
  if (text.length > MAX_CHARACTERS) throw refuse("String too long");
  const parts = GRAMMAR.exec(text);
  if (parts === null) throw refuse("Doesn't match regexp");
  const protocol = parts[1] as ByteMatch["protocol"];
  const offset = baseZero(parts[2]!);
  const size = Number(parts[3]) as ByteMatch["size"];
  if (offset + size > MINIMAL_HEADER[protocol]) throw refuse("Out of bounds");
  return { protocol, offset, size, mask: baseZero(parts[4] ?? "0"), value: baseZero(parts[5]!) };
}

/**
 * A number as C's strtoul with base 0 reads it, cut to 32 bits: `0x` is hexadecimal, a leading 0 octal (reading stops
 * at the first digit that is none), 64-bit overflow saturates first.
 */
function baseZero(text: string): number {
  const octal = /^0([0-7]+)/.exec(text);
  const digits = text.startsWith("0x") ? text : octal !== null ? `0o${octal[1]}` : text.startsWith("0") ? "0" : text;
  const value = BigInt(digits);
  const limit = 2n ** 64n - 1n;
  return Number((value > limit ? limit : value) & 0xffffffffn);
}

/** The statement as `flow-list` prints it: decimal offset, hexadecimal value, no mask when it is 0. */
export function formatByteMatch({ protocol, offset, size, mask, value }: ByteMatch): string {
  return `${protocol}[${offset}:${size}]${mask === 0 ? "" : `&0x${mask.toString(16)}`}=0x${value.toString(16)}`;
}
