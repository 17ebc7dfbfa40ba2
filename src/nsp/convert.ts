import { type DescMessage, fromBinary, type MessageShape } from "@bufbuild/protobuf";
import { parseFlowRule } from "#flow";
import type { Stream, Target, Vip } from "#model";
import {
  ConfigError,
  type Flow,
  formatAddress,
  formatPrefix,
  isIpv4,
  PROTOCOLS,
  type Protocol,
  parseAddress,
  parsePrefix,
  ruleName,
} from "#model";
import {
  FlowSchema,
  StreamSchema,
  Target_Status,
  Target_Type,
  TargetSchema,
  type Vip as VipMessage,
  VipSchema,
} from "./gen/nsp/v1/model_pb.js";
import { type Candidate, compareText } from "./list-reader.js";
import { type Refusal, toRefusal } from "./refusal.js";

// The contract's objects as ours, each checked by itself. What Meridio's admission webhooks or nfqlb accept is accepted.

export const MAX_TARGETS = 10_000;
const ANY_PORT = "0-65535";
/** The name of its table, 5 bytes longer, is that of a file, and of a longer one while that is made; files have 255. */
const MAX_STREAM_NAME_BYTES = 180;
/** What the flow rules of the data plane allow for a name. */
const MAX_RULE_NAME_BYTES = 1_023;

/** Decodes one object and hands it to `accept`; what breaks a rule becomes a refusal. */
function read<D extends DescMessage, T>(
  kind: Refusal["kind"],
  desc: D,
  bytes: Uint8Array,
  stream: string,
  nameOf: (message: MessageShape<D>) => string,
  accept: (message: MessageShape<D>) => T | null,
): Candidate<T> {
  let message: MessageShape<D>;
  try {
    message = fromBinary(desc, bytes);
  } catch (error) {
    const rule = `no message of the contract: ${(error as Error).message}`;
    return { refusal: { kind, object: "?", stream, field: "bytes", value: `${bytes.length}`, rule } };
  }
  try {
    const value = accept(message);
    return value === null ? null : { value };
  } catch (error) {
    return { refusal: toRefusal(kind, nameOf(message), stream, error) };
  }
}

export function readVip(bytes: Uint8Array): Candidate<Vip> {
  return read("VIP", VipSchema, bytes, "", ({ name }) => name, toVip);
}

/** The prefix is written as the kernel writes it: an IPv4 one also when it came as a part of `::ffff:0:0/96`. */
export function toVip({ name, address }: VipMessage): Vip {
  requireName(name);
  return { name, prefix: formatPrefix(parsePrefix(address)) };
}

/** Streams of other conduits are none of ours, whatever the server's filter does. */
export function readStream(bytes: Uint8Array, conduitName: string): Candidate<Stream> {
  return read(
    "stream",
    StreamSchema,
    bytes,
    "",
    ({ name }) => name,
    ({ name, conduit, maxTargets }) => {
      if (conduit?.name !== conduitName) return null;
      if (maxTargets < 1 || maxTargets > MAX_TARGETS)
        throw new ConfigError("maxTargets", String(maxTargets), `1..${MAX_TARGETS} is allowed`);
      requireName(name);
      if (name.includes("/") || Buffer.byteLength(name) > MAX_STREAM_NAME_BYTES)
        throw new ConfigError("name", name, `1..${MAX_STREAM_NAME_BYTES} bytes without '/' are allowed`);
      return { name, conduit: conduit.name, maxTargets };
    },
  );
}

/** The order inside a flow says nothing, so it is made one. */
const comparePorts = (a: string, b: string) => Number.parseInt(a, 10) - Number.parseInt(b, 10) || compareText(a, b);

/** @param isVipNeeded whether a flow without VIPs matches nothing (and is refused); otherwise it matches every VIP */
export function readFlow(bytes: Uint8Array, stream: string, isVipNeeded: boolean): Candidate<Flow> {
  return read(
    "flow",
    FlowSchema,
    bytes,
    stream,
    ({ name }) => name,
    (message) => {
      if (isVipNeeded && message.vips.length === 0)
        throw new ConfigError("vips", "", "it has no VIPs, so it matches nothing");
      const flow = {
        name: message.name,
        stream,
        priority: message.priority,
        protocols: message.protocols.map(toProtocol).toSorted(compareText),
        vips: message.vips.map(toVip).toSorted((a, b) => compareText(a.name, b.name)),
        sourcePrefixes: message.sourceSubnets.toSorted(compareText),
        destinationPorts: message.destinationPortRanges.toSorted(comparePorts),
        sourcePorts: message.sourcePortRanges.toSorted(comparePorts),
        byteMatches: message.byteMatches.toSorted(compareText),
      };
      requireName(flow.name);
      checkFlow(flow);
      return flow;
    },
  );
}

export function toProtocol(text: string): Protocol {
  const protocol = PROTOCOLS.find((known) => known === text.toLowerCase());
  if (protocol === undefined) throw new ConfigError("protocol", text, `${PROTOCOLS.join(", ")} are allowed`);
  return protocol;
}

function requireName(name: string): void {
  if (name === "") throw new ConfigError("name", name, "it has no name");
  if (/[\s\p{Cc}]/u.test(name)) throw new ConfigError("name", name, "no blanks and control characters are allowed");
}

/** Everything of a flow that the syntax of the data plane's rules decides. @throws {ConfigError} */
function checkFlow(flow: Flow): void {
  const ports = (ranges: readonly string[]) => ranges.filter((range) => range !== ANY_PORT).join(",");
  if (Buffer.byteLength(ruleName(flow)) > MAX_RULE_NAME_BYTES) {
    throw new ConfigError("name", flow.name, `stream and flow together have at most ${MAX_RULE_NAME_BYTES - 6} bytes`);
  }
  parseFlowRule({
    name: flow.name,
    target: "t",
    dsts: flow.vips.map(({ prefix }) => prefix).join(","),
    srcs: flow.sourcePrefixes.join(","),
    dports: ports(flow.destinationPorts),
    sports: ports(flow.sourcePorts),
    match: flow.byteMatches.join(","),
  });
}

/** Targets that are not enabled, and frontends, are none of ours, whatever the server's filter does. */
export function readTarget(bytes: Uint8Array, stream: string): Candidate<Target> {
  return read(
    "target",
    TargetSchema,
    bytes,
    stream,
    ({ ips }) => ips.join(","),
    ({ ips, context, status, type }) => {
      if (status !== Target_Status.ENABLED || type !== Target_Type.DEFAULT) return null;
      const text = context["identifier"] ?? "";
      if (!/^[+-]?[0-9]+$/.test(text)) throw new ConfigError("identifier", text, "a whole number is needed");
      return { stream, identifier: Number(text), addresses: targetAddresses(ips), ips };
    },
  );
}

/** Identifier of a frontend; null for other targets. A frontend's status plays no role. */
export function readFrontend(bytes: Uint8Array): Candidate<string> {
  return read(
    "target",
    TargetSchema,
    bytes,
    "",
    ({ ips }) => ips.join(","),
    ({ type, context }) => (type === Target_Type.FRONTEND ? (context["identifier"] ?? null) : null),
  );
}

/**
 * What {@link readTarget} asks of a target that is about to be registered, but for its stream's own limit.
 * @throws {ConfigError}
 */
export function checkRegistration(identifier: string, ips: readonly string[]): void {
  const number = /^[0-9]+$/.test(identifier) ? Number(identifier) : 0;
  if (number < 1 || number > MAX_TARGETS)
    throw new ConfigError("identifier", identifier, `a whole number 1..${MAX_TARGETS} is needed`);
  targetAddresses(ips);
}

function targetAddresses(ips: readonly string[]): readonly string[] {
  const addresses = ips.filter((ip) => ip !== "").map(targetAddress);
  if (addresses.length === 0) throw new ConfigError("ips", "", "it has no address");
  const isV4 = addresses.map((address) => isIpv4(parseAddress(address)));
  if (new Set(isV4).size !== addresses.length)
    throw new ConfigError("ips", ips.join(","), "one address per family is allowed");
  return isV4[0] === false ? addresses.toReversed() : addresses; // IPv4 first: the order says nothing
}

/**
 * Plain address of a target's `ips` entry, as the kernel writes it: an IPv4 address also when it came as `::ffff:a.b.c.d`.
 * @throws {ConfigError}
 */
export function targetAddress(text: string): string {
  if (text.includes("/")) parsePrefix(text);
  return formatAddress(parseAddress(text.split("/", 1)[0]!));
}
