import { existsSync, mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { assess, HealthTree, SelfProbe, type ServiceState, StreamAvailability } from "#availability";
import type { Log } from "#control";
import { Health, type RunningServer, type Service, startServer } from "#rpc";
import { TOO_MANY } from "./embedded-nsp.js";
import type { Source } from "./metrics/family.js";
import { type MetricsServer, startMetricsServer } from "./metrics/metrics-server.js";

/** Everybody may talk to the frontend's socket: who that is, the connection's identities say. Meridio's mode. */
const SOCKET_MODE = 0o777;

export type PublicServicesOptions = {
  /** Where probes ask: `unix:/path`, `host:port`, or "" for nowhere. */
  readonly healthAddress: string;
  /** Where a frontend asks; as above. */
  readonly availabilityAddress: string;
  /** null: no metrics. */
  readonly metricsPort: number | null;
  readonly hostName: string;
  readonly probeTimeoutMs: number;
  /** The state now. */
  readonly state: () => ServiceState;
  readonly onProbe: (isAnswering: boolean) => void;
  /** What frontends are told has changed; at first it is false. */
  readonly onAvailability: (isAvailable: boolean) => void;
  /** Metrics, given what only these services know. */
  readonly sources: (health: HealthTree, isAvailable: () => boolean) => readonly Source[];
  readonly log: Log;
};

/** What others see of this instance: health, availability, metrics. */
export type PublicServices = {
  /** Something of the state has changed. */
  readonly refresh: () => void;
  /** A quiet moment: makes the next scrape of the metrics cheap. */
  readonly prepare: () => Promise<void>;
  /** Tells frontends that the end is near; nothing makes it available again. */
  readonly leave: () => void;
  readonly close: () => Promise<void>;
};

/** A server cannot be started; the message begins with the setting. */
class ListenError extends Error {
  readonly code = "ERR_LISTEN";
}

/** Starts those that have a place. @throws {ListenError} an address cannot be listened on */
export async function startPublicServices(options: PublicServicesOptions): Promise<PublicServices> {
  const { healthAddress, availabilityAddress, metricsPort, log } = options;
  const availability = new StreamAvailability(options.hostName);
  const health = new Health((name) => {
    const svcInfo = tree.describeParts(name);
    if (svcInfo !== "") log.info("Probe service", { Service: name, Status: "NOT_SERVING", svcInfo });
  });
  const tree = new HealthTree(health);
  const own = new Health(); // what the self-probe asks of the frontend's socket
  own.set("", "SERVING");
  const servers: RunningServer[] = [];
  let metrics: MetricsServer | null = null;
  let isLeaving = false;
  const close = async () => {
    await Promise.all([...servers.map((server) => server.close()), metrics?.close()]);
  };
  try {
    if (healthAddress !== "") {
      const path = healthAddress.replace(/^unix:/, "");
      if (path !== healthAddress) makeFolder("NSM_HEALTH_SOCKET", dirname(path));
      servers.push(await listen("NSM_HEALTH_SOCKET", healthAddress, [health.service], log));
    }
    if (availabilityAddress !== "") {
      const services = [availability.service, own.service];
      servers.push(await listen("NSM_SOCKET", availabilityAddress, services, log, SOCKET_MODE));
    }
    if (metricsPort !== null)
      metrics = await startMetrics(
        metricsPort,
        options.sources(tree, () => availability.isAvailable),
        log,
      );
  } catch (error) {
    await close();
    throw error;
  }
  const refresh = () => {
    const assessment = assess(options.state());
    tree.set(assessment);
    const isAvailable = assessment.isAvailable && !isLeaving;
    if (availability.isAvailable !== isAvailable) {
      log.info(isAvailable ? "available" : "unavailable", { class: "ForwardingAvailabilityService" });
      options.onAvailability(isAvailable);
    }
    availability.set(isAvailable);
  };
  let toldFault: string | null = null;
  const probed = servers.flatMap(({ addresses }) => addresses.map((address) => ({ address, security: PLAIN_TEXT })));
  const probe = new SelfProbe(probed, options.probeTimeoutMs, (fault) => {
    if (fault !== toldFault && fault !== null) log.error("own socket does not answer", { fault });
    toldFault = fault;
    options.onProbe(fault === null);
    refresh();
  });
  return {
    refresh,
    prepare: async () => metrics?.prepare(),
    leave: () => {
      isLeaving = true;
      refresh();
    },
    close: async () => {
      probe[Symbol.dispose]();
      await close();
    },
  };
}

/** One by one: node's `recursive` tries for ever where none can be made, as in /proc (node 20.20). @throws {ListenError} */
function makeFolder(setting: string, path: string): void {
  if (existsSync(path)) return;
  makeFolder(setting, dirname(path));
  try {
    mkdirSync(path);
  } catch (error) {
    if ((error as { code?: string }).code === "EEXIST") return; // somebody was faster
    throw new ListenError(`${setting}: ${(error as Error).message}`, { cause: error });
  }
}

const PLAIN_TEXT = "plain-text" as const;

async function listen(
  setting: string,
  address: string,
  services: readonly Service[],
  log: Log,
  socketMode?: number,
): Promise<RunningServer> {
  const mode = socketMode === undefined ? {} : { socketMode };
  const onFull = (full: Readonly<Record<string, unknown>>) => log.warning(TOO_MANY, full);
  try {
    return await startServer({ services, listen: [address], security: PLAIN_TEXT, onFull, ...mode });
  } catch (error) {
    throw new ListenError(`${setting}: ${(error as Error).message}`, { cause: error });
  }
}

async function startMetrics(port: number, sources: readonly Source[], log: Log): Promise<MetricsServer> {
  let told = "";
  const onFault = (source: string, { message }: Error) => {
    if (told !== source + message) log.error("metrics incomplete", { source, error: message });
    told = source + message;
  };
  try {
    return await startMetricsServer(port, sources, onFault);
  } catch (error) {
    throw new ListenError(`NSM_METRICS_PORT: ${(error as Error).message}`, { cause: error });
  }
}
