import { ConfigError, PROTOCOLS, type Prefix, type Protocol, parsePrefix } from "#model";
import { type ByteMatch, parseByteMatch } from "./byte-match.js";
import { type PortRange, parsePorts } from "./ports.js";

/** A classification rule as the classifier takes it. Empty lists of protocols, prefixes and byte matches mean any. */
export type FlowRule = {
  readonly name: string;
  /** Table that takes the packets; "" in a helper rule (`#name`), which only finds encapsulated SCTP. */
  readonly target: string;
  /** int32; higher is asked first. */
  readonly priority: number;
  readonly protocols: readonly Protocol[];
  readonly destinations: readonly Prefix[];
  readonly sources: readonly Prefix[];
  /** null = any; an empty list matches no packet at all. */
  readonly destinationPorts: readonly PortRange[] | null;
  readonly sourcePorts: readonly PortRange[] | null;
  readonly byteMatches: readonly ByteMatch[];
  /** UDP destination port whose payload is SCTP; 0 = none. Only with protocols = sctp. */
  readonly udpEncapPort: number;
};

/** A rule in the words of nfqlb's flow socket; absent keys mean any. */
export type FlowParams = {
  readonly name?: string;
  readonly target?: string;
  readonly priority?: string;
  readonly protocols?: string;
  readonly dsts?: string;
  readonly srcs?: string;
  readonly dports?: string;
  readonly sports?: string;
  readonly match?: string;
  readonly udpencap?: string;
};

const MAX_NAME_BYTES = 1023;
const MAX_PREFIXES = 32;

/**
 * Reads a rule from upstream's parameters. Where upstream accepts garbage behind a number we refuse.
 * @throws {ConfigError} whose `rule` is upstream's reply, for example `Invalid dports`
 * @see nfqueue-loadbalancer 1.2.0 src/lib/flow.c, src/nfqlb/cmdFlowLb.c
 */
export function parseFlowRule(params: FlowParams): FlowRule {
  const name = params.name ?? "";
  if (name === "") throw new ConfigError("name", name, "No name");
  if (Buffer.byteLength(name) > MAX_NAME_BYTES) throw new ConfigError("name", name, "Name too long");
  if (name.startsWith("#")) throw new ConfigError("name", name, "FAIL: names of helper flows (#...) are reserved");
  const target = params.target ?? "";
  if (target === "") throw new ConfigError("target", target, "No target");
  const protocols = parseProtocols(params.protocols);
  const udpEncapPort = parseInteger("udpencap", params.udpencap, 0, 65_535);
  if (udpEncapPort !== 0 && (protocols.length !== 1 || protocols[0] !== "sctp")) {
    throw new ConfigError("udpencap", params.udpencap!, "FAIL: only sctp for updencap");
  }
  return {
    name,
    target,
    priority: parseInteger("priority", params.priority, -(2 ** 31), 2 ** 31 - 1),
    protocols,
    destinations: parsePrefixes("dsts", params.dsts),
    sources: parsePrefixes("srcs", params.srcs),
    destinationPorts: parsePortList("dports", params.dports),
    sourcePorts: parsePortList("sports", params.sports),
    byteMatches: parseByteMatches(params.match),
    udpEncapPort,
  };
}

function splitList(text: string): readonly string[] {
  return text.split(/[, ]+/).filter((part) => part !== "");
}

function parseProtocols(text: string | undefined): readonly Protocol[] {
  const given = splitList(text ?? "").map((part) => part.toLowerCase());
  for (const part of given) {
    if (!PROTOCOLS.some((known) => known === part)) throw new ConfigError("protocols", text!, "Invalid protocols");
  }
  return PROTOCOLS.filter((protocol) => given.includes(protocol));
}

function parsePrefixes(field: "dsts" | "srcs", text: string | undefined): readonly Prefix[] {
  const items = splitList(text ?? "");
  if (items.length > MAX_PREFIXES) throw new ConfigError(field, text!, `Invalid ${field}`);
  try {
    return items.map((item) => parsePrefix(item));
  } catch {
    throw new ConfigError(field, text!, `Invalid ${field}`);
  }
}

function parsePortList(field: "dports" | "sports", text: string | undefined): readonly PortRange[] | null {
  if (text === undefined) return null;
  const ranges = parsePorts(text);
  if (ranges === null) throw new ConfigError(field, text, "Invalid dports"); // upstream says dports of both
  return ranges;
}

function parseByteMatches(text: string | undefined): readonly ByteMatch[] {
  if (text === undefined || text === "") return [];
  return text.split(",").map((statement) => parseByteMatch(statement.replace(/^ +/, "")));
}

function parseInteger(field: string, text: string | undefined, min: number, max: number): number {
  if (text === undefined) return 0;
  const value = /^-?[0-9]{1,10}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw new ConfigError(field, text, `Invalid ${field}`);
}
