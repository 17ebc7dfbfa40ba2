import { readFileSync, statSync } from "node:fs";
import { create } from "@bufbuild/protobuf";
import { parseFlowRule } from "#flow";
import { ConfigError, isIpv4, PROTOCOLS, parseAddress, parsePrefix } from "#model";
import {
  type Conduit,
  ConduitSchema,
  type Flow,
  FlowSchema,
  type Stream,
  StreamSchema,
  type Target,
  type Trench,
  TrenchSchema,
  type Vip,
  VipSchema,
} from "./gen/nsp/v1/model_pb.js";
import { EMPTY_CONFIGURATION, type NspConfiguration, permanentTarget } from "./store.js";
import { type Fault, MAX_FILE_BYTES, Reader } from "./yaml-reader.js";

export const MAX_TARGETS = 10_000;
const DEFAULT_MAX_TARGETS = 100;

/** What a configuration file says. */
export type ConfigurationFile = {
  readonly configuration: NspConfiguration;
  /** Addresses for the embedded NSP to listen on besides its private one. */
  readonly listen: readonly string[];
  /** Lifetime of a registration in ms. */
  readonly entryTimeoutMs: number;
};

/** A file that is refused as a whole; the message names every fault, one per line: file:line: key: "value": reason. */
export class ConfigurationFileError extends Error {
  readonly code = "ERR_CONFIG";
  readonly faults: readonly Fault[];

  constructor(path: string, faults: readonly Fault[]) {
    const lines = faults.map(({ line, key, value, reason }) => {
      const shown = value === "" ? "" : ` "${value}":`;
      return `${path}:${line}: ${key === "" ? "" : `${key}:`}${shown} ${reason}`.replace(/: {2,}/, ": ");
    });
    super(lines.join("\n"));
    this.name = "ConfigurationFileError";
    this.faults = faults;
  }
}

/** Reads and checks a configuration file (docs/configuration-file.md). @throws {ConfigurationFileError} with every fault */
export function loadConfigurationFile(path: string): ConfigurationFile {
  try {
    if (statSync(path).size > MAX_FILE_BYTES) throw new Error(`larger than ${MAX_FILE_BYTES} bytes`);
    return parseConfiguration(path, readFileSync(path, "utf8"));
  } catch (error) {
    if (error instanceof ConfigurationFileError) throw error;
    throw new ConfigurationFileError(path, [{ line: 0, key: "", value: "", reason: (error as Error).message }]);
  }
}

/** The same for text at hand. */
export function parseConfiguration(path: string, text: string): ConfigurationFile {
  const root = Reader.parse(text);
  const file = root.faults.length === 0 ? readRoot(root) : null;
  if (file === null || root.faults.length > 0) throw new ConfigurationFileError(path, root.faults);
  return file;
}

function readRoot(root: Reader): ConfigurationFile {
  if (!root.isPresent) root.fault("the file is empty");
  const fields = root.fields(["trench", "conduits", "streams", "flows", "vips", "targets", "nsp"]);
  const trench = create(TrenchSchema, { name: nameOf(fields.trench.fields(["name"]).name) });
  const vips = byName(fields.vips, (item) => readVip(item, trench));
  const conduits = byName(fields.conduits, (item) => readConduit(item, trench, vips));
  const streams = byName(fields.streams, (item) => readStream(item, conduits));
  const flows = byName(fields.flows, (item) => readFlow(item, streams, vips));
  const targets = readTargets(fields.targets, streams);
  const nsp = fields.nsp.fields(["listen", "entry-timeout"]);
  if (conduits.size === 0) fields.conduits.fault("at least one conduit is needed");
  return {
    configuration: {
      ...EMPTY_CONFIGURATION,
      trench,
      vips: [...vips.values()],
      conduits: [...conduits.values()],
      streams: [...streams.values()],
      flows: [...flows.values()],
      targets,
    },
    listen: nsp.listen.items().map((item) => checked(item, listenAddress, "unix:/path or host:port")),
    entryTimeoutMs: nsp["entry-timeout"].number(1, 86_400, 60) * 1000,
  };
}

function listenAddress(text: string): void {
  if (!/^unix:\/.+$|^(?:\[[0-9a-f:.]+\]|[^:/]+):[0-9]{1,5}$/i.test(text)) throw new Error();
}

function nameOf(reader: Reader): string {
  const name = reader.text();
  if (reader.isPresent && !/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/.test(name)) {
    reader.fault("a name has 1..128 letters, digits, '.', '_', '-' and begins with a letter or digit");
  }
  return name;
}

/** Reads a list of named objects; a name that stands twice is a fault. */
function byName<T extends { name: string }>(list: Reader, read: (item: Reader) => T): Map<string, T> {
  const found = new Map<string, T>();
  for (const item of list.items()) {
    const object = read(item);
    if (found.has(object.name)) item.fault("this name is used twice", object.name);
    found.set(object.name, object);
  }
  return found;
}

/** Text that a parser accepts, else a fault with what is allowed. */
function checked(reader: Reader, parse: (text: string) => unknown, allowed: string): string {
  const text = reader.text();
  if (!reader.isPresent) return text;
  try {
    parse(text);
  } catch {
    reader.fault(`not valid; ${allowed}`);
  }
  return text;
}

/** The object that a name refers to; a dangling reference is a fault. */
function resolve<T>(reader: Reader, objects: ReadonlyMap<string, T>, what: string): T | null {
  const name = reader.text();
  const object = objects.get(name);
  if (object === undefined && reader.isPresent) {
    reader.fault(`there is no such ${what}; there are: ${[...objects.keys()].slice(0, 10).join(", ") || "none"}`);
  }
  return object ?? null;
}

const prefix = (reader: Reader) =>
  checked(reader, parsePrefix, "address/length, for example 10.0.0.1/32 or 2001:db8::1/128");

function readVip(item: Reader, trench: Trench): Vip {
  const { name, address } = item.fields(["name", "address"]);
  return create(VipSchema, { name: nameOf(name), address: prefix(address), trench });
}

function readConduit(item: Reader, trench: Trench, vips: ReadonlyMap<string, Vip>): Conduit {
  const fields = item.fields(["name", "destination-port-nats"]);
  const destinationPortNats = fields["destination-port-nats"].items().map((nat) => {
    const {
      port,
      "target-port": targetPort,
      protocol,
      vips: names,
    } = nat.fields(["port", "target-port", "protocol", "vips"]);
    return {
      port: port.number(1, 65_535),
      targetPort: targetPort.number(1, 65_535),
      protocol: checked(protocol, protocolName, PROTOCOLS.join(", ")),
      vips: names.items().flatMap((vip) => resolve(vip, vips, "VIP") ?? []),
    };
  });
  return create(ConduitSchema, { name: nameOf(fields.name), trench, destinationPortNats });
}

function protocolName(text: string): void {
  if (!PROTOCOLS.some((protocol) => protocol === text.toLowerCase())) throw new Error();
}

function readStream(item: Reader, conduits: ReadonlyMap<string, Conduit>): Stream {
  const { name, conduit, "max-targets": maxTargets } = item.fields(["name", "conduit", "max-targets"]);
  const parent = resolve(conduit, conduits, "conduit");
  return create(StreamSchema, {
    name: nameOf(name),
    ...(parent === null ? {} : { conduit: parent }),
    maxTargets: maxTargets.number(1, MAX_TARGETS, DEFAULT_MAX_TARGETS),
  });
}

const FLOW_KEYS = [
  "name",
  "stream",
  "priority",
  "protocols",
  "vips",
  "source-subnets",
  "destination-port-ranges",
  "source-port-ranges",
  "byte-matches",
] as const;

function readFlow(item: Reader, streams: ReadonlyMap<string, Stream>, vips: ReadonlyMap<string, Vip>): Flow {
  const fields = item.fields(FLOW_KEYS);
  const stream = resolve(fields.stream, streams, "stream");
  const ports = (reader: Reader) =>
    reader
      .items()
      .map((range) =>
        checked(range, portRange, "a port 1..65535, a range first-last, or any").replace(/^any$/, "0-65535"),
      );
  if (fields.vips.items().length === 0)
    fields.vips.fault("at least one VIP is needed: a flow without VIPs would match none");
  if (fields.protocols.items().length === 0)
    fields.protocols.fault(`at least one of ${PROTOCOLS.join(", ")} is needed`);
  return create(FlowSchema, {
    name: nameOf(fields.name),
    ...(stream === null ? {} : { stream }),
    priority: fields.priority.number(-(2 ** 31), 2 ** 31 - 1, 0),
    protocols: fields.protocols.items().map((protocol) => checked(protocol, protocolName, PROTOCOLS.join(", "))),
    vips: fields.vips.items().flatMap((vip) => resolve(vip, vips, "VIP") ?? []),
    sourceSubnets: fields["source-subnets"].items().map(prefix),
    destinationPortRanges: ports(fields["destination-port-ranges"]),
    sourcePortRanges: ports(fields["source-port-ranges"]),
    byteMatches: fields["byte-matches"]
      .items()
      .map((match) => checked(match, byteMatch, "for example tcp[13:1]&0x12=0x02")),
  });
}

function portRange(text: string): void {
  if (text === "any" || text === "0-65535") return;
  parseFlowRule({ name: "n", target: "t", dports: text === "" ? "0" : text });
}

function byteMatch(text: string): void {
  parseFlowRule({ name: "n", target: "t", match: text });
}

function readTargets(list: Reader, streams: ReadonlyMap<string, Stream>): readonly Target[] {
  const seen = new Set<string>();
  return list.items().flatMap((item) => {
    const { stream: streamName, identifier, ips } = item.fields(["stream", "identifier", "ips"]);
    const stream = resolve(streamName, streams, "stream");
    const number = identifier.number(1, stream?.maxTargets ?? MAX_TARGETS);
    const texts = ips.items().map((one) => checked(one, targetAddress, "an address, with or without a prefix length"));
    if (texts.length === 0) ips.fault("at least one address is needed");
    checkFamilies(ips, texts);
    if (stream === null) return [];
    const key = `${stream.name} ${number}`;
    if (seen.has(key) && identifier.text() === String(number))
      identifier.fault(`this identifier is used twice in stream ${stream.name}`);
    seen.add(key);
    return [permanentTarget(stream, number, texts)];
  });
}

/** Plain address of a target's `ips` entry. @throws {ConfigError} */
export function targetAddress(text: string): string {
  if (!text.includes("/")) {
    parseAddress(text);
    return text;
  }
  parsePrefix(text);
  return text.slice(0, text.indexOf("/"));
}

function checkFamilies(ips: Reader, texts: readonly string[]): void {
  const families = texts.flatMap((text) => {
    try {
      return [isIpv4(parseAddress(targetAddress(text)))];
    } catch (error) {
      if (error instanceof ConfigError) return []; // told already
      throw error;
    }
  });
  if (new Set(families).size !== families.length)
    ips.fault("one address per family is allowed: a routing table has one default route");
}
