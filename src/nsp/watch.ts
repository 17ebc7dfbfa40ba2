import { setTimeout as delay } from "node:timers/promises";
import type { Configuration } from "#model";
import { type ClientOptions, RpcClient } from "#rpc";
import { type Snapshot, toConfiguration } from "./convert.js";
import { ConfigurationManager } from "./gen/nsp/v1/configuration_manager_pb.js";
import {
  type Conduit,
  type Flow,
  type Stream,
  type Target,
  Target_Status,
  Target_Type,
  type Vip,
} from "./gen/nsp/v1/model_pb.js";
import { TargetRegistry } from "./gen/nsp/v1/target_registry_pb.js";

/** Pause before a watch that ended is opened again. */
const RETRY_MS = 500;

export type WatchOptions = {
  readonly server: ClientOptions;
  readonly trench: string;
  readonly conduit: string;
  /**
   * How long an empty list that comes first after a reconnect is not believed while the list before was not empty: an
   * NSP that has just started knows nothing yet. 0 believes at once. Default 5_000.
   */
  readonly emptyGraceMs?: number;
  /** A complete configuration, each time it differs from the last one. */
  readonly onConfiguration: (configuration: Configuration) => void;
  /** Objects that were left out, with the reason; each time the list changes. */
  readonly onRefused: (reasons: readonly string[]) => void;
  /** The connection works (first answer of any watch), or a watch broke. */
  readonly onState: (state: "connected" | "disconnected", reason: string) => void;
  readonly signal: AbortSignal;
};

/**
 * Follows the configuration of one conduit at an NSP server until `signal`. The state is kept while the server is away;
 * every watch is opened again for ever. Nothing is told before every part has been heard once, so a restart never acts
 * on half a configuration.
 */
export function watchConfiguration(options: WatchOptions): void {
  new ConfigurationWatch(options).start();
}

class ConfigurationWatch {
  readonly #options: WatchOptions;
  readonly #client: RpcClient;
  #conduit: Conduit | null = null;
  #vips: readonly Vip[] | null = null;
  #streams: readonly Stream[] | null = null;
  readonly #flows = new Map<string, readonly Flow[]>();
  readonly #targets = new Map<string, readonly Target[]>();
  readonly #streamWatches = new Map<string, AbortController>();
  #isScheduled = false;
  #lastConfiguration = "";
  #lastRefused = "";
  #isConnected: boolean | null = null;

  constructor(options: WatchOptions) {
    this.#options = options;
    this.#client = new RpcClient(options.server);
    options.signal.addEventListener("abort", () => this.#client[Symbol.dispose](), { once: true });
  }

  start(): void {
    const { trench: trenchName, conduit: conduitName, signal } = this.#options;
    const trench = { name: trenchName };
    const conduit = { name: conduitName, trench };
    const { watchConduit, watchVip, watchStream } = ConfigurationManager.method;
    this.#keep(
      (stop) => this.#client.serverStream(watchConduit, conduit, stop),
      ({ conduits }) => conduits.length === 0,
      () => this.#conduit === null,
      ({ conduits }) => {
        if (conduits.length === 1) this.#conduit = conduits[0]!; // as the reference: any other number changes nothing
      },
      signal,
    );
    this.#keep(
      (stop) => this.#client.serverStream(watchVip, { trench }, stop),
      ({ vips }) => vips.length === 0,
      () => (this.#vips ?? []).length === 0,
      ({ vips }) => {
        this.#vips = vips;
      },
      signal,
    );
    this.#keep(
      (stop) => this.#client.serverStream(watchStream, { conduit }, stop),
      ({ streams }) => streams.length === 0,
      () => (this.#streams ?? []).length === 0,
      ({ streams }) => this.#setStreams(streams.filter((stream) => stream.conduit?.name === conduitName)),
      signal,
    );
  }

  #setStreams(streams: readonly Stream[]): void {
    this.#streams = streams;
    const names = new Set(streams.map(({ name }) => name));
    for (const [name, controller] of this.#streamWatches) {
      if (names.has(name)) continue;
      controller.abort();
      this.#streamWatches.delete(name);
      this.#flows.delete(name);
      this.#targets.delete(name);
    }
    for (const stream of streams) if (!this.#streamWatches.has(stream.name)) this.#watchStream(stream);
  }

  #watchStream(stream: Stream): void {
    const { name } = stream;
    const controller = new AbortController();
    this.#streamWatches.set(name, controller);
    const signal = AbortSignal.any([controller.signal, this.#options.signal]);
    const filter = { status: Target_Status.ENABLED, type: Target_Type.DEFAULT, stream };
    this.#keep(
      (stop) => this.#client.serverStream(ConfigurationManager.method.watchFlow, { stream }, stop),
      ({ flows }) => flows.length === 0,
      () => (this.#flows.get(name) ?? []).length === 0,
      ({ flows }) => this.#flows.set(name, flows),
      signal,
    );
    this.#keep(
      (stop) => this.#client.serverStream(TargetRegistry.method.watch, filter, stop),
      ({ targets }) => targets.length === 0,
      () => (this.#targets.get(name) ?? []).length === 0,
      ({ targets }) => this.#targets.set(name, targets),
      signal,
    );
  }

  /** Keeps one watch open; an empty first answer waits for its confirmation where something was known before. */
  #keep<T>(
    open: (signal: AbortSignal) => AsyncIterable<T>,
    isEmpty: (answer: T) => boolean,
    wasEmpty: () => boolean,
    accept: (answer: T) => void,
    signal: AbortSignal,
  ): void {
    const take = (answer: T) => {
      if (signal.aborted) return;
      accept(answer);
      this.#schedule();
    };
    const follow = async () => {
      let isFirst = true;
      let doubt: NodeJS.Timeout | null = null;
      try {
        for await (const answer of open(signal)) {
          this.#setState(true, "");
          if (doubt !== null) clearTimeout(doubt);
          doubt = null;
          const graceMs = this.#options.emptyGraceMs ?? 5_000;
          if (isFirst && graceMs > 0 && isEmpty(answer) && !wasEmpty()) doubt = setTimeout(take, graceMs, answer);
          else take(answer);
          isFirst = false;
        }
        this.#setState(false, "the server ended a watch");
      } catch (error) {
        this.#setState(false, (error as Error).message);
      } finally {
        if (doubt !== null) clearTimeout(doubt);
      }
    };
    void (async () => {
      while (!signal.aborted) {
        await follow();
        if (!signal.aborted) await delay(RETRY_MS, undefined, { signal }).catch(() => {});
      }
    })();
  }

  #setState(isConnected: boolean, reason: string): void {
    if (this.#options.signal.aborted || this.#isConnected === isConnected) return;
    this.#isConnected = isConnected;
    this.#options.onState(isConnected ? "connected" : "disconnected", reason);
  }

  /** Several answers of one turn make one configuration. */
  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      if (!this.#options.signal.aborted) this.#tell();
    });
  }

  #tell(): void {
    if (this.#conduit === null || this.#vips === null || this.#streams === null) return;
    const isWhole = this.#streams.every(({ name }) => this.#flows.has(name) && this.#targets.has(name));
    if (!isWhole) return;
    const snapshot: Snapshot = {
      conduit: this.#conduit,
      vips: this.#vips,
      streams: this.#streams,
      flows: this.#flows,
      targets: this.#targets,
    };
    const { configuration, refused } = toConfiguration(snapshot);
    const refusedText = refused.join("\n");
    if (refusedText !== this.#lastRefused) this.#options.onRefused(refused);
    this.#lastRefused = refusedText;
    const text = JSON.stringify(configuration);
    if (text === this.#lastConfiguration) return;
    this.#lastConfiguration = text;
    this.#options.onConfiguration(configuration);
  }
}
