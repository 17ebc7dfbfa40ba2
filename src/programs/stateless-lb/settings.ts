import { maskVariable } from "./secrets.js";
import { checkSetting } from "./settings-check.js";
import { parseBoolean, parseDuration, parseInteger, parseQueues, parseUrl, ValueError } from "./values.js";

/** Form of a value. */
export type Kind = "string" | "URL" | "duration" | "int" | "bool" | "queues";

/** One environment variable: how it is read, and what help and documentation say of it. */
export type Variable = {
  readonly name: string;
  readonly kind: Kind;
  readonly default: string;
  readonly meaning: string;
  /** Read when `name` is not set. */
  readonly alternative?: string;
};

/** Every variable by the name of its setting, in the order of help. Names, kinds and defaults up to NSM_SOCKET are Meridio's. */
export const VARIABLES = {
  name: { name: "NSM_NAME", kind: "string", default: "load-balancer", meaning: "name of the mesh endpoint" },
  serviceName: {
    name: "NSM_SERVICE_NAME",
    kind: "string",
    default: "load-balancer",
    meaning: "name of the network service; its first 10 characters begin the names of its interfaces",
  },
  connectTo: {
    name: "NSM_CONNECT_TO",
    kind: "URL",
    default: "unix:///var/lib/networkservicemesh/nsm.io.sock",
    meaning: "NSM manager",
  },
  dialTimeoutMs: {
    name: "NSM_DIAL_TIMEOUT",
    kind: "duration",
    default: "5s",
    meaning: "time to connect to the NSM manager",
  },
  requestTimeoutMs: {
    name: "NSM_REQUEST_TIMEOUT",
    kind: "duration",
    default: "15s",
    meaning: "time for a request to the NSM manager",
  },
  maxTokenLifetimeMs: {
    name: "NSM_MAX_TOKEN_LIFETIME",
    kind: "duration",
    default: "24h",
    meaning: "lifetime of identity tokens",
  },
  nspService: {
    name: "NSM_NSP_SERVICE",
    kind: "string",
    default: "nsp-service:7778",
    meaning: "NSP, host:port (also dns:///host:port) or unix:/path",
  },
  conduitName: {
    name: "NSM_CONDUIT_NAME",
    kind: "string",
    default: "load-balancer",
    meaning: "conduit that is served",
  },
  trenchName: { name: "NSM_TRENCH_NAME", kind: "string", default: "default", meaning: "trench that is served" },
  logLevel: {
    name: "NSM_LOG_LEVEL",
    kind: "string",
    default: "DEBUG",
    meaning: "DEBUG or TRACE; anything else is INFO",
  },
  queues: {
    name: "NSM_NFQUEUE",
    kind: "queues",
    default: "0:3",
    meaning: "NFQUEUE numbers, n or first:last; one thread each",
  },
  isFanout: {
    name: "NSM_NFQUEUE_FANOUT",
    kind: "bool",
    default: "false",
    meaning: "spread packets over the queues by CPU instead of by addresses",
  },
  offsetStart: {
    name: "NSM_IDENTIFIER_OFFSET_START",
    kind: "int",
    default: "5000",
    meaning: "fwmarks and routing tables of targets begin one above",
  },
  keepaliveMs: {
    name: "NSM_GRPC_KEEPALIVE_TIME",
    kind: "duration",
    default: "30s",
    meaning: "interval of keepalive pings to the NSP; less than 10s is taken as 10s, as gRPC-Go does; 0 sends none",
    alternative: "GRPC_KEEPALIVE_TIME",
  },
  probeTimeoutMs: {
    name: "NSM_GRPC_PROBE_RPC_TIMEOUT",
    kind: "duration",
    default: "1s",
    meaning: "time for a probe of the mesh endpoint",
    alternative: "GRPC_PROBE_RPC_TIMEOUT",
  },
  maxBackoffMs: {
    name: "NSM_GRPC_MAX_BACKOFF",
    kind: "duration",
    default: "5s",
    meaning: "longest pause between attempts to connect",
    alternative: "GRPC_MAX_BACKOFF",
  },
  isMetricsEnabled: {
    name: "NSM_METRICS_ENABLED",
    kind: "bool",
    default: "false",
    meaning: "serve metrics on or off",
  },
  metricsPort: {
    name: "NSM_METRICS_PORT",
    kind: "int",
    default: "2223",
    meaning: "port of the metrics, on all addresses, path /metrics",
  },
  socket: {
    name: "NSM_SOCKET",
    kind: "URL",
    default: "unix:///var/lib/meridio/lb.sock",
    meaning:
      "where a frontend hears of our availability, unix:///path or tcp://host:port; empty: nowhere; with --config only if set",
  },
  isMeshEnabled: {
    name: "NSM_MESH_ENABLED",
    kind: "bool",
    default: "true",
    meaning: "register as mesh endpoint; off: interfaces come from elsewhere",
  },
  isNspInsecure: {
    name: "NSM_NSP_INSECURE",
    kind: "bool",
    default: "false",
    meaning: "talk to the NSP in plain text, without identities",
  },
  isSocketInsecure: {
    name: "NSM_SOCKET_INSECURE",
    kind: "bool",
    default: "false",
    meaning: "serve NSM_SOCKET in plain text, without identities",
  },
  healthSocket: {
    name: "NSM_HEALTH_SOCKET",
    kind: "URL",
    default: "unix:///tmp/health.sock",
    meaning: "where probes ask, in plain text; empty: nowhere; with --config only if set",
  },
  emptyGraceMs: {
    name: "NSM_NSP_EMPTY_GRACE",
    kind: "duration",
    default: "5s",
    meaning: "how long an empty list from a freshly connected NSP is not believed; 0 believes at once",
  },
  doFlowsWithoutVipsMatchAll: {
    name: "NSM_FLOWS_WITHOUT_VIPS_MATCH_ALL",
    kind: "bool",
    default: "false",
    meaning: "a flow without VIPs matches every VIP, as in the reference, instead of being refused",
  },
  stateFolder: {
    name: "NSM_STATE_DIR",
    kind: "string",
    default: "",
    meaning:
      "folder where the NSP's last state is saved, so that a restart without NSP serves at once; empty: the folder of the table images, which outlives a container's restart; off: nothing is saved",
  },
  isOffsetByName: {
    name: "NSM_IDENTIFIER_OFFSET_BY_NAME",
    kind: "bool",
    default: "false",
    meaning:
      "where a stream's fwmarks begin follows from its name, so that they are the same on all instances whatever these saw before; else streams get the first gap, as in the reference, and instances agree that learned of the streams in the same order",
  },
  drainMs: {
    name: "NSM_DRAIN_TIME",
    kind: "duration",
    default: "2s",
    meaning:
      "at the end the frontend is told first; then packets are served for so long, until they come elsewhere; a second signal ends the wait; 10s at most; not with --config, which has no frontend",
  },
  probeIntervalMs: {
    name: "NSM_TARGET_PROBE_INTERVAL",
    kind: "duration",
    default: "5s",
    meaning:
      "each target's neighbor entry is checked once in this time (ARP or neighbor solicitation to its known address), so that one that died leaves the tables before packets are lost to it; 100 per second at most; 0 leaves that to the kernel, which looks only where it has packets",
  },
  doManageInterfaces: {
    name: "NSM_MANAGE_INTERFACES",
    kind: "bool",
    default: "false",
    meaning:
      "with the mesh off: set interfaces to targets DOWN when a newer one has the same subnet, and all while no frontend is announced, as Meridio does; never set up again",
  },
  queueLength: { name: "NSM_NFQUEUE_LENGTH", kind: "int", default: "1024", meaning: "packets that a queue holds" },
  interfacePrefix: {
    name: "NSM_INTERFACE_PREFIX",
    kind: "string",
    default: "",
    meaning:
      "names of interfaces to targets begin so, 1..15 bytes: fragments from anywhere else are reassembled before they are queued, and " +
      "connection tracking is off; empty: the first 10 characters of NSM_SERVICE_NAME, with --config neither",
  },
  shmFolder: { name: "NFQLB_SHM_DIR", kind: "string", default: "/dev/shm", meaning: "folder of the table images" },
  nfqlb: {
    name: "NFQLB_PROGRAM",
    kind: "string",
    default: "",
    meaning: "path of the nfqlb program; empty: the one beside this program",
  },
} as const satisfies Record<string, Variable>;

type ValueOfKind<K extends Kind> = K extends "duration" | "int"
  ? number
  : K extends "bool"
    ? boolean
    : K extends "queues"
      ? { readonly first: number; readonly last: number }
      : string;

/** All settings, parsed; durations in ms. */
export type Settings = { readonly [K in keyof typeof VARIABLES]: ValueOfKind<(typeof VARIABLES)[K]["kind"]> };

/** Where a setting's value came from: a variable of the environment, or its default. */
export type Origin = { readonly variable: string } | "default";

/** Faulty variables; the message names each with its value and what is allowed, one per line. */
export class SettingsError extends Error {
  readonly code = "ERR_CONFIG";
  /** Whether a value is not even of its kind; else all faults are values that make no sense. */
  readonly isUnreadable: boolean;

  constructor(faults: readonly string[], isUnreadable: boolean) {
    super(faults.join("\n"));
    this.isUnreadable = isUnreadable;
  }
}

/** A value that is not even of its kind is a parse error in the reference, every other fault one of its validation. */
const PARSERS: Readonly<Record<Kind, { readonly parse: (text: string) => unknown; readonly isValidation?: true }>> = {
  string: { parse: (text) => text },
  URL: { parse: parseUrl },
  duration: { parse: parseDuration },
  int: { parse: parseInteger },
  bool: { parse: parseBoolean },
  queues: { parse: parseQueues, isValidation: true },
};

/**
 * Reads the settings from an environment. A variable that is set to the empty string counts as set.
 * @throws {SettingsError} with all faults at once
 */
export function readSettings(env: NodeJS.ProcessEnv): Settings {
  return readSettingsWithOrigins(env).settings;
}

/** The same, and for each setting where its value came from. @throws {SettingsError} */
export function readSettingsWithOrigins(env: NodeJS.ProcessEnv): {
  readonly settings: Settings;
  readonly origins: Readonly<Record<string, Origin>>;
} {
  const faults: string[] = [];
  let isUnreadable = false;
  const values: Record<string, unknown> = {};
  const origins: Record<string, Origin> = {};
  for (const [key, variable] of Object.entries(VARIABLES) as [string, Variable][]) {
    const { name, kind, alternative } = variable;
    const source =
      env[name] === undefined && alternative !== undefined && env[alternative] !== undefined ? alternative : name;
    const text = env[source] ?? variable.default;
    origins[key] = env[source] === undefined ? "default" : { variable: source };
    const { parse, isValidation } = PARSERS[kind];
    let isParsed = isValidation === true;
    try {
      values[key] = parse(text);
      isParsed = true;
      checkSetting(key, values[key]);
    } catch (error) {
      if (!(error instanceof ValueError)) throw error;
      const shown = maskVariable(source, text).replace(/\p{Cc}/gu, "?"); // a fault is one line
      faults.push(`${source}="${shown}": ${error.message}`);
      if (!isParsed) isUnreadable = true;
    }
  }
  const { socket, healthSocket } = values as Partial<Settings>; // one that cannot be read is not there
  if (socket && socket === healthSocket)
    faults.push(`NSM_HEALTH_SOCKET="${maskVariable("NSM_HEALTH_SOCKET", socket)}": NSM_SOCKET is served there`);
  if (faults.length > 0) throw new SettingsError(faults, isUnreadable);
  return { settings: values as Settings, origins };
}
