import { readFileSync, statSync } from "node:fs";
import { create, toBinary } from "@bufbuild/protobuf";
import { parseFlowRule } from "#flow";
import { ConfigError, isIpv4, PROTOCOLS, parseAddress, parseServerAddress, SERVER_ADDRESS_FORM } from "#model";
import { MAX_TARGETS, targetAddress } from "./convert.js";
import { readConduit as checkConduit } from "./convert-conduit.js";
import { RuleNames } from "./distinct-rules.js";
import { byName, checked, nameOf, prefix, resolve, resolveAll } from "./file-fields.js";
import { readAttractor, readGateway } from "./file-gateways.js";
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
import { type NspConfiguration, permanentTarget } from "./store.js";
import { type Fault, MAX_FILE_BYTES, Reader } from "./yaml-reader.js";

const DEFAULT_MAX_TARGETS = 100;

/** What a configuration file says. */
export type ConfigurationFile = {
  readonly configuration: NspConfiguration;
  /** Addresses for the embedded NSP to listen on besides its private one. */
  readonly listen: readonly string[];
  /** Lifetime of a registration in ms. */
  readonly entryTimeoutMs: number;
  /** SQLite database where registrations outlive the process, or null. */
  readonly database: string | null;
};

/** A file that is refused as a whole; the message names every fault, one per line: file:line: key: "value": reason. */
export class ConfigurationFileError extends Error {
  readonly code = "ERR_CONFIG";
  readonly faults: readonly Fault[];

  constructor(path: string, faults: readonly Fault[]) {
    const lines = faults.map(({ line, key, value, reason }) => {
      const shown = value === "" ? "" : ` "${value}":`;
      const place = line === 0 ? path : `${path}:${line}`;
      return `${place}: ${key === "" ? "" : `${key}:`}${shown} ${reason}`.replace(/: {2,}/, ": ");
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

const ROOT_KEYS = [
  "trench",
  "conduits",
  "streams",
  "flows",
  "vips",
  "gateways",
  "attractors",
  "targets",
  "nsp",
] as const;

function readRoot(root: Reader): ConfigurationFile {
  if (!root.isPresent) root.fault("the file is empty");
  const fields = root.fields(ROOT_KEYS);
  const trench = create(TrenchSchema, { name: nameOf(fields.trench.fields(["name"]).name) });
  const vips = byName(fields.vips, (item) => readVip(item, trench));
  const conduits = byName(fields.conduits, (item) => readConduit(item, trench, vips));
  const streams = byName(fields.streams, (item) => readStream(item, conduits));
  const rules = new RuleNames();
  const flows = byName(fields.flows, (item) => withRule(readFlow(item, streams, vips), item, rules));
  const gateways = byName(fields.gateways, (item) => readGateway(item, trench));
  const attractors = byName(fields.attractors, (item) => readAttractor(item, trench, vips, gateways));
  const targets = readTargets(fields.targets, streams);
  const nsp = fields.nsp.fields(["listen", "entry-timeout", "database"]);
  if (conduits.size === 0) fields.conduits.fault("at least one conduit is needed");
  return {
    configuration: {
      trench,
      vips: [...vips.values()],
      conduits: [...conduits.values()],
      streams: [...streams.values()],
      flows: [...flows.values()],
      gateways: [...gateways.values()],
      attractors: [...attractors.values()],
      targets,
    },
    listen: nsp.listen.items().map((item) => checked(item, listenAddress, SERVER_ADDRESS_FORM)),
    entryTimeoutMs: nsp["entry-timeout"].number(1, 86_400, 60) * 1000,
    database: nsp.database.isPresent ? checked(nsp.database, absolutePath, "an absolute path") : null,
  };
}

function absolutePath(text: string): void {
  if (!/^\/[^\0]*[^/\0]$/.test(text)) throw new Error();
}

function listenAddress(text: string): void {
  if (parseServerAddress(text) === null) throw new Error();
}

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
    if (names.items().length === 0)
      names.fault("at least one VIP is needed: a port NAT without VIPs translates nothing");
    return {
      port: port.number(1, 65_535),
      targetPort: targetPort.number(1, 65_535),
      protocol: checked(protocol, protocolName, PROTOCOLS.join(", ")),
      vips: resolveAll(names, vips, "VIP"),
    };
  });
  const conduit = create(ConduitSchema, { name: nameOf(fields.name), trench, destinationPortNats });
  const { refusals } = checkConduit(toBinary(ConduitSchema, conduit));
  for (const { object, field, rule } of refusals)
    if (rule.startsWith("collides")) fields["destination-port-nats"].fault(`${object}: ${field}: ${rule}`, "");
  return conduit;
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
    vips: resolveAll(fields.vips, vips, "VIP"),
    sourceSubnets: fields["source-subnets"].items().map(prefix),
    destinationPortRanges: ports(fields["destination-port-ranges"]),
    sourcePortRanges: ports(fields["source-port-ranges"]),
    byteMatches: fields["byte-matches"]
      .items()
      .map((match) => checked(match, byteMatch, "for example tcp[13:1]&0x12=0x02")),
  });
}

/** A flow whose rule would have the name of another's is a fault. */
function withRule(flow: Flow, item: Reader, rules: RuleNames): Flow {
  const { name, stream } = flow;
  const fault = stream === undefined ? null : rules.take({ stream: stream.name, name });
  if (fault !== null) item.fault(fault, name);
  return flow;
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
