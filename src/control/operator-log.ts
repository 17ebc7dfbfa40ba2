import { isDeepStrictEqual } from "node:util";
import { type Configuration, type Flow, ruleName, type Stream, tableName } from "#model";
import type { KernelEvent } from "#steering";
import { flowCommand, POSITIONS_PER_TARGET } from "./desired.js";
import type { Surplus } from "./interfaces.js";
import { NeighborNews } from "./neighbor-news.js";
import type { Offsets } from "./offsets.js";
import type { KnownTarget, KnownTargets } from "./targets.js";
import type { Log } from "./turn-log.js";

/** What a turn has put in force. */
type InForce = {
  readonly wanted: Pick<Configuration, "streams" | "flows" | "conduit">;
  readonly offsets: Offsets;
  readonly known: KnownTargets;
};

/**
 * Tells what changed in the words that operators of Meridio search for, with their `class` and `instance`. Compares what
 * one turn put in force with what the one before did, so it costs what changed.
 */
export class OperatorLog {
  readonly #log: Log;
  readonly #interfacePrefix: string | null;
  #last: InForce | null = null;
  #known: KnownTargets = new Map();
  #streams: ReadonlyMap<string, Stream> = new Map();
  #flows: ReadonlyMap<string, Flow> = new Map();
  #nats: Configuration["conduit"]["portNats"] = [];
  readonly #interfaces = new Set<string>();
  readonly #neighbors: NeighborNews;

  /** @param interfacePrefix how names of interfaces to targets begin; null: none is told of */
  constructor(log: Log, interfacePrefix: string | null) {
    this.#log = log;
    this.#neighbors = new NeighborNews((ip, linkIndex, state, more) =>
      log.debug("neighbor update", { class: "NeighborReachabilityDetector", ip, linkIndex, state, ...more }),
    );
    this.#interfacePrefix = interfacePrefix;
  }

  frontend(isAnnounced: boolean): void {
    this.#log.info(isAnnounced ? "FE available" : "FE unavailable", { class: "FrontendNetworkService" });
    if (!isAnnounced && this.#streams.size > 0) this.#log.info("Evict streams", { class: "SimpleNetworkService" });
  }

  disabled({ name, reason }: Surplus): void {
    const about = { class: "SimpleNetworkService", interface: name, reason };
    if (reason.startsWith("replaced")) this.#log.info("Interface replaced during interface create event", about);
    this.#log.info("Disable interface", about);
  }

  /** A change that the kernel told; of neighbors those that say something new. */
  event(event: KernelEvent): void {
    if (event.kind === "link" && this.#interfacePrefix !== null && event.link.name.startsWith(this.#interfacePrefix)) {
      const { name, isUp } = event.link;
      const about = { class: "interfaceMonitor", interface: name };
      if (event.change === "deleted") {
        if (this.#interfaces.delete(name)) this.#log.info("InterfaceDeleted", about);
      } else if (!isUp) this.#interfaces.delete(name);
      else if (!this.#interfaces.has(name)) {
        this.#interfaces.add(name);
        this.#log.info("InterfaceCreated", about);
      }
    }
    if (event.kind === "neighbor") this.#neighbors.take(event.change, event.neighbor);
  }

  turn({ wanted, offsets, known }: InForce): void {
    this.#neighbors.turn(known);
    const last = this.#last;
    this.#last = { wanted, offsets, known };
    if (wanted !== last?.wanted || offsets !== last.offsets) {
      this.#tellStreams(wanted.streams.filter(({ name }) => offsets.has(name)));
      this.#tellFlows(wanted.flows);
      this.#tellNats(wanted.conduit.portNats);
    }
    if (known !== last?.known) this.#tellTargets(known, offsets);
  }

  /** Something is not in place and is tried again. */
  retry(): void {
    const pending = [...this.#known.values()].filter(({ state }) => state.kind === "pending");
    if (pending.length > 0)
      this.#log.debug("retry pending targets", { class: "LoadBalancer", targets: pending.length });
  }

  #tellStreams(streams: readonly Stream[]): void {
    const before = this.#streams;
    const now = new Map(streams.map((stream) => [stream.name, stream]));
    for (const [name, { maxTargets }] of now) {
      if (before.get(name)?.maxTargets === maxTargets) continue;
      const shm = tableName(name);
      const cmd = `nfqlb init --ownfw=0 --shm=${shm} --M=${POSITIONS_PER_TARGET * maxTargets} --N=${maxTargets}`;
      if (!before.has(name))
        this.#log.info("Create LB stream", { class: "SimpleNetworkService", stream: name, maxTargets });
      this.#log.info("Init nfqlb instance", { class: "nfqlb", instance: shm, cmd });
    }
    for (const name of before.keys()) {
      if (now.has(name)) continue;
      const shm = tableName(name);
      this.#log.info("LB stream terminated", { class: "LoadBalancer", instance: name });
      this.#log.info("Delete nfqlb instance", { class: "nfqlb", instance: shm, cmd: `nfqlb delete --shm=${shm}` });
    }
    this.#streams = now;
  }

  #tellFlows(flows: readonly Flow[]): void {
    const before = this.#flows;
    const now = new Map(flows.map((flow) => [ruleName(flow), flow]));
    for (const [name, flow] of now) {
      if (before.get(name) === flow) continue;
      if (!before.has(name))
        this.#log.info("Create flow", { class: "Flow", instance: flow.name, nfqlb: tableName(flow.stream) });
      this.#log.info("Set nfqlb flow", { class: "nfqlb", instance: tableName(flow.stream), cmd: flowCommand(flow) });
    }
    for (const [name, flow] of before) {
      if (now.has(name)) continue;
      this.#log.info("Delete flow", { class: "Flow", instance: flow.name, nfqlb: tableName(flow.stream) });
      const cmd = `nfqlb flow-delete --name=${name}`;
      this.#log.info("Delete nfqlb flow", { class: "nfqlb", instance: tableName(flow.stream), cmd });
    }
    this.#flows = now;
  }

  #tellNats(nats: Configuration["conduit"]["portNats"]): void {
    if (!isDeepStrictEqual(nats, this.#nats)) {
      const texts = nats.map(({ port, targetPort, protocol, vips }) => {
        return `${protocol} ${port} -> ${targetPort}: ${vips.map(({ prefix }) => prefix).join(", ")}`;
      });
      this.#log.info("SetNats", { class: "DestinationPortNat", nats: texts });
    }
    this.#nats = nats;
  }

  #tellTargets(known: KnownTargets, offsets: Offsets): void {
    const before = this.#known;
    this.#known = known;
    for (const one of known.values()) {
      const last = before.get(one.target.fwmark);
      if (last === one || (last?.state === one.state && last.target === one.target)) continue;
      const isSame = last?.target.fwmark === one.target.fwmark && last.state.kind === one.state.kind;
      if (
        isSame &&
        last.state.cause === one.state.cause &&
        last.target.addresses.join() === one.target.addresses.join()
      )
        continue;
      this.#tellTarget(last ?? null, one, offsets);
    }
    for (const last of before.values()) {
      if (known.has(last.target.fwmark)) continue;
      const message = last.state.kind === "ready" ? "Removed target" : "remove pending target";
      this.#log.info(message, about(last, offsets));
    }
  }

  #tellTarget(last: KnownTarget | null, now: KnownTarget, offsets: Offsets): void {
    const wasReady = last?.state.kind === "ready";
    const data = about(now, offsets);
    if (now.state.kind === "ready") {
      if (last !== null) this.#log.info(wasReady ? "Removed target" : "remove pending target", about(last, offsets));
      this.#log.info("Added target", data);
      return;
    }
    const why = { state: now.state.kind, cause: now.state.cause, error: now.state.reason };
    if (wasReady) this.#log.info("removing target after verification", { ...data, state: now.state.kind });
    this.#log.warning("add pending target", { ...data, ...why });
  }
}

function about({ target: { stream, identifier, addresses, fwmark } }: KnownTarget, offsets: Offsets) {
  const identifierOffset = offsets.get(stream)?.offset ?? fwmark - identifier;
  return { class: "LoadBalancer", instance: stream, identifierOffset, fwmark, target: { identifier, ips: addresses } };
}
