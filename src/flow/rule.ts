import { ConfigError, PROTOCOLS, type Prefix, type Protocol, parsePrefix } from "#model";
import { BYTE_MATCH_ALLOWED, type ByteMatch, parseByteMatch } from "./byte-match.js";
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
const MAX_SHOWN = 64;

/**
 * A rule that is refused. The message begins with upstream's whole reply, for the scripts that look at it, and goes on
 * with the flow, the field, the offending value and what is allowed.
 */
export class FlowError extends ConfigError {
  constructor(reply: string, flow: string, field: string, value: string, allowed: string) {
    super(field, value, allowed);
    this.message = `${reply}: flow ${quote(flow)}, ${field} ${quote(value)}: ${allowed}`;
  }
}

/** The text in quotes, on one line, not longer than a line bears. */
function quote(text: string): string {
  return JSON.stringify(text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}…` : text);
}

/**
 * Reads a rule from upstream's parameters. Where upstream accepts garbage behind a number we refuse.
 * @throws {FlowError} that begins with upstream's reply, for example `Invalid dports`
 * @see nfqueue-loadbalancer 1.2.0 src/lib/flow.c, src/nfqlb/cmdFlowLb.c
 */
export function parseFlowRule(params: FlowParams): FlowRule {
  const name = params.name ?? "";
  const names = `1..${MAX_NAME_BYTES} bytes, not beginning with #`;
  if (name === "") throw new FlowError("No name", name, "name", name, names);
  if (Buffer.byteLength(name) > MAX_NAME_BYTES) throw new FlowError("Name too long", name, "name", name, names);
  if (name.startsWith("#")) {
    throw new FlowError("FAIL: names of helper flows (#...) are reserved", name, "name", name, names);
  }
  const target = params.target ?? "";
  if (target === "") throw new FlowError("No target", name, "target", target, "the name of a table is needed");
  const protocols = parseProtocols(name, params.protocols);
  const udpEncapPort = parseInteger(name, "udpencap", params.udpencap, 0, 65_535);
  if (udpEncapPort !== 0 && (protocols.length !== 1 || protocols[0] !== "sctp")) {
    const allowed = `only with protocols "sctp", here they are ${quote(params.protocols ?? "")}`;
    throw new FlowError("FAIL: only sctp for updencap", name, "udpencap", params.udpencap!, allowed);
  }
  return {
    name,
    target,
    priority: parseInteger(name, "priority", params.priority, -(2 ** 31), 2 ** 31 - 1),
    protocols,
    destinations: parsePrefixes(name, "dsts", params.dsts),
    sources: parsePrefixes(name, "srcs", params.srcs),
    destinationPorts: parsePortList(name, "dports", params.dports),
    sourcePorts: parsePortList(name, "sports", params.sports),
    byteMatches: parseByteMatches(name, params.match),
    udpEncapPort,
  };
}

function splitList(text: string): readonly string[] {
  return text.split(/[, ]+/).filter((part) => part !== "");
}

function parseProtocols(flow: string, text: string | undefined): readonly Protocol[] {
  const given = splitList(text ?? "").map((part) => part.toLowerCase());
  for (const part of given) {
    if (PROTOCOLS.some((known) => known === part)) continue;
    throw new FlowError("Invalid protocols", flow, "protocols", part, `${PROTOCOLS.join(", ")} are allowed`);
  }
  return PROTOCOLS.filter((protocol) => given.includes(protocol));
}

function parsePrefixes(flow: string, field: "dsts" | "srcs", text: string | undefined): readonly Prefix[] {
  const items = splitList(text ?? "");
  if (items.length > MAX_PREFIXES) {
    throw new FlowError(`Invalid ${field}`, flow, field, text!, `${items.length} prefixes; at most ${MAX_PREFIXES}`);
  }
  return items.map((item) => {
    try {
      return parsePrefix(item);
    } catch (error) {
      throw new FlowError(`Invalid ${field}`, flow, field, item, (error as ConfigError).rule);
    }
  });
}

function parsePortList(
  flow: string,
  field: "dports" | "sports",
  text: string | undefined,
): readonly PortRange[] | null {
  if (text === undefined) return null;
  const ranges = parsePorts(text);
  if (typeof ranges !== "string") return ranges;
  // upstream says dports of both
  throw new FlowError("Invalid dports", flow, field, ranges, "ports are 1..65535, n or first-last");
}

function parseByteMatches(flow: string, text: string | undefined): readonly ByteMatch[] {
  if (text === undefined || text === "") return [];
  return text.split(",").map((item) => {
    const statement = item.replace(/^ +/, "");
    try {
      return parseByteMatch(statement);
    } catch (error) {
      const { rule } = error as ConfigError;
      throw new FlowError(rule, flow, "match", statement, BYTE_MATCH_ALLOWED);
    }
  });
}

function parseInteger(flow: string, field: string, text: string | undefined, min: number, max: number): number {
  if (text === undefined) return 0;
  const value = /^-?[0-9]{1,10}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw new FlowError(`Invalid ${field}`, flow, field, text, `a whole number ${min}..${max}`);
}
