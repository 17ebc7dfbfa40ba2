import type { DescMessage, DescMethodServerStreaming, MessageInitShape } from "@bufbuild/protobuf";
import type { Configuration, Stream } from "#model";
import { type ClientOptions, RpcClient } from "#rpc";
import { type Changes, changesBetween } from "./changes.js";
import { ConfigurationManager } from "./gen/nsp/v1/configuration_manager_pb.js";
import { Target_Status, Target_Type } from "./gen/nsp/v1/model_pb.js";
import { TargetRegistry } from "./gen/nsp/v1/target_registry_pb.js";
import { Knowledge, keysOf, type Whole } from "./knowledge.js";
import { formatRefusal, type Refusal } from "./refusal.js";
import { loadState, saveState } from "./saved-state.js";
import { watchList } from "./watch-list.js";
import { isEmptyList } from "./wire.js";

/** Pause between two writes of the saved state. */
const SAVE_INTERVAL_MS = 1_000;
/** One that failed is tried again, after twice the time each time, at most this. */
const LAST_SAVE_RETRY_MS = 30_000;

export type FollowOptions = {
  readonly server: ClientOptions;
  readonly trench: string;
  readonly conduit: string;
  /**
   * How long an empty list that comes first after a reconnect is not believed while the list before was not empty: an
   * NSP that has just started knows nothing yet. 0 believes at once. Default 5_000.
   */
  readonly emptyGraceMs?: number;
  /**
   * Streams that an earlier run left in force. Where nothing was saved of their lists, these count as not empty before they
   * are heard first, and so do the lists of everything. Default none.
   */
  readonly leftInForce?: ReadonlySet<string>;
  /** When a server that has not answered at all counts as away, and how long after it answers `onWaiting` is told, in ms. Default 5_000. */
  readonly firstAnswerMs?: number;
  /** How often is told that it is still away, in ms. Default 60_000. */
  readonly stillAwayMs?: number;
  /** Whether a flow without VIPs matches every VIP, as in the reference, instead of being refused. Default false. */
  readonly doFlowsWithoutVipsMatchAll?: boolean;
  /** Folder where the state is saved for a restart without NSP, and the wall clock in ms; null saves nothing. */
  readonly state: { readonly folder: string; readonly nowMs: () => number } | null;
  /**
   * Whether all watches are answered, for log and health; told once per change, and while they are not again after
   * `firstAnswerMs` and then every `stillAwayMs`, with what keeps the server from being reached now.
   */
  readonly onConnection: (isConnected: boolean, reason: string) => void;
  /**
   * There is no configuration after a while, though the server answers: the lists that are missing, for example `conduit`;
   * again when others are.
   */
  readonly onWaiting: (lists: readonly string[]) => void;
  /** The saved state cannot be used, or not be written; told once per distinct fault. */
  readonly onStateFault: (message: string) => void;
  readonly signal: AbortSignal;
};

/** What an NSP says now. */
export type NspUpdate = {
  /** Its parts, and the objects in them, are the same as in the last update wherever they say the same. */
  readonly configuration: Configuration;
  /** Identifiers of the frontends that are registered: their host names, in order. */
  readonly frontends: readonly string[];
  /** What differs from the last update's configuration; of the first one everything is added. */
  readonly changes: Changes;
  /** Objects that are left out, for status and metric. */
  readonly refusals: readonly Refusal[];
  /** Those that the last update did not have, for the log. */
  readonly newRefusals: readonly Refusal[];
  /** `saved`: something of it is from an earlier run and was not heard since. */
  readonly origin: "saved" | "nsp";
};

/**
 * Follows one conduit at an NSP until `signal`. Each turn of the loop gets the newest whole state, as soon as it differs
 * in anything from the last; states in between are skipped while the loop is busy. What is known is kept while the
 * server is away, every watch is opened again for ever, and with `state` a restart begins with what the last run knew.
 */
export async function* followConfiguration(options: FollowOptions): AsyncGenerator<NspUpdate> {
  using follower = new Follower(options);
  follower.start();
  let last: NspUpdate | null = null;
  while (!options.signal.aborted) {
    const now = follower.whole();
    const update: NspUpdate | null = now === null ? null : toUpdate(last, now, follower.origin);
    if (update !== null) yield update;
    last = update ?? last;
    await follower.changed();
  }
}

/** null when nothing differs. */
function toUpdate(last: NspUpdate | null, now: Whole, origin: NspUpdate["origin"]): NspUpdate | null {
  const isSame =
    last?.configuration === now.configuration &&
    last.frontends === now.frontends &&
    last.refusals === now.refusals &&
    last.origin === origin;
  if (isSame) return null;
  const told = new Set(last?.refusals.map(formatRefusal));
  return {
    ...now,
    origin,
    changes: changesBetween(last?.configuration ?? null, now.configuration),
    newRefusals: last?.refusals === now.refusals ? [] : now.refusals.filter((one) => !told.has(formatRefusal(one))),
  };
}

class Follower implements Disposable {
  readonly #options: FollowOptions;
  readonly #client: RpcClient;
  readonly #knowledge: Knowledge;
  readonly #ending = new AbortController();
  readonly #streamWatches = new Map<string, AbortController>();
  /** Lists that the saved state told and the server has not yet. */
  readonly #saved = new Set<string>();
  /** Watches that ended and have not been answered since. */
  readonly #broken = new Set<string>();
  #isConnected: boolean | null = null;
  /** Why a watch ended last. */
  #reason = "";
  /** Tells again that the server is away. */
  #away: NodeJS.Timeout | null = null;
  /** Ends the time that a server has for its first answers. */
  #late: NodeJS.Timeout | null = null;
  #isLate = false;
  #toldMissing = "";
  #onChange: (() => void) | null = null;
  #isChanged = false;
  #saveTimer: NodeJS.Timeout | null = null;
  #saveWaitMs = SAVE_INTERVAL_MS;
  #toldFault = "";

  constructor(options: FollowOptions) {
    this.#options = options;
    this.#knowledge = new Knowledge(options.conduit, options.doFlowsWithoutVipsMatchAll !== true);
    this.#client = new RpcClient(options.server);
    options.signal.addEventListener("abort", () => this.#wake(), { once: true });
  }

  start(): void {
    this.#load();
    const { trench: trenchName, conduit: conduitName } = this.#options;
    const trench = { name: trenchName };
    const conduit = { name: conduitName, trench };
    const { watchConduit, watchVip, watchStream } = ConfigurationManager.method;
    const { signal } = this.#ending;
    this.#watch("conduit", watchConduit, conduit, signal);
    this.#watch("vips", watchVip, { trench }, signal);
    this.#watch("streams", watchStream, { conduit }, signal);
    const frontends = { status: Target_Status.ANY, type: Target_Type.FRONTEND };
    this.#watch("frontends", TargetRegistry.method.watch, frontends, signal);
    this.#fitStreamWatches();
    this.#allowTime();
    signal.addEventListener("abort", () => clearTimeout(this.#late!), { once: true });
  }

  #allowTime(): void {
    if (this.#late !== null) clearTimeout(this.#late);
    this.#isLate = false;
    this.#late = setTimeout(() => {
      this.#isLate = true;
      if (this.#isConnected === null) void this.#tellAway();
      this.#tellMissing();
    }, this.#firstAnswerMs);
  }

  async #tellAway(): Promise<void> {
    const fault = await this.#client.fault();
    if (this.#isEnding || this.#isConnected === true) return;
    const silence = `no answer from ${this.#options.server.address}`;
    this.#isConnected = false;
    this.#options.onConnection(false, fault === "" ? this.#reason || silence : `${silence}: ${fault}`);
    this.#away = setTimeout(() => void this.#tellAway(), this.#options.stillAwayMs ?? 60_000);
  }

  #tellMissing(): void {
    if (!this.#isLate || this.#isConnected !== true || this.#knowledge.whole() !== null) return;
    const missing = this.#knowledge.missing();
    if (missing.join() !== this.#toldMissing) this.#options.onWaiting(missing);
    this.#toldMissing = missing.join();
  }

  get #firstAnswerMs(): number {
    return this.#options.firstAnswerMs ?? 5_000;
  }

  /** Whether a list was not heard yet, though something is in force that it would tell of. */
  #isLeftInForce(key: string): boolean {
    const { leftInForce } = this.#options;
    if (leftInForce === undefined || this.#knowledge.isHeard(key)) return false;
    const stream = key.split("/")[1];
    return stream === undefined ? leftInForce.size > 0 : leftInForce.has(stream);
  }

  whole(): Whole | null {
    return this.#knowledge.whole();
  }

  get origin(): NspUpdate["origin"] {
    const keys = [
      "conduit",
      "vips",
      "streams",
      "frontends",
      ...this.#knowledge.streams.flatMap(({ name }) => keysOf(name)),
    ];
    return keys.some((key) => this.#saved.has(key)) ? "saved" : "nsp";
  }

  /** Resolves when there may be something new; answers of one turn of the event loop are one change. */
  async changed(): Promise<void> {
    if (!this.#isChanged && !this.#options.signal.aborted)
      await new Promise<void>((resolve) => {
        this.#onChange = resolve;
      });
    this.#isChanged = false;
    await new Promise((resolve) => setImmediate(resolve));
  }

  [Symbol.dispose](): void {
    this.#ending.abort();
    this.#client[Symbol.dispose]();
    clearTimeout(this.#away!);
    if (this.#saveTimer !== null) this.#save();
  }

  get #isEnding(): boolean {
    return this.#ending.signal.aborted || this.#options.signal.aborted;
  }

  #wake(): void {
    this.#isChanged = true;
    this.#onChange?.();
    this.#onChange = null;
  }

  #watch<I extends DescMessage>(
    key: string,
    method: DescMethodServerStreaming<I, DescMessage>,
    filter: MessageInitShape<I>,
    signal: AbortSignal,
  ): void {
    const isRegistry = method.parent === TargetRegistry;
    void watchList(
      {
        open: (stop) => this.#client.serverStreamBytes(method, filter, stop),
        isEmpty: isEmptyList,
        isEmptyNow: () => this.#knowledge.isEmpty(key) && !this.#isLeftInForce(key),
        take: (answer) => this.#take(key, answer),
        emptyGraceMs: this.#options.emptyGraceMs ?? 5_000,
        // Any registration repeats the lists of all watchers, so there a repetition says nothing.
        isRepeatBelieved: !isRegistry,
        // gRPC-Go forgives two pings that come too early after each answer: it takes a third to end the call.
        leastCalmMs: this.#client.keepaliveMs || Number.POSITIVE_INFINITY,
        firstAnswerMs: this.#firstAnswerMs,
        onAnswer: () => this.#answered(key),
        onBreak: (reason) => {
          if (signal.aborted) return;
          this.#broken.add(key);
          this.#setConnected(false, reason);
        },
      },
      signal,
    );
  }

  #take(key: string, answer: Uint8Array): void {
    const isNew = this.#knowledge.take(key, answer);
    const wasSaved = this.#saved.delete(key);
    if (isNew && key === "streams") this.#fitStreamWatches();
    if (isNew) this.#saveSoon();
    if (isNew || wasSaved) this.#wake();
    this.#tellMissing();
  }

  #fitStreamWatches(): void {
    const names = new Set(this.#knowledge.streams.map(({ name }) => name));
    for (const [name, controller] of this.#streamWatches) {
      if (names.has(name)) continue;
      controller.abort();
      this.#streamWatches.delete(name);
      for (const key of keysOf(name)) {
        this.#saved.delete(key);
        this.#answered(key);
      }
    }
    for (const stream of this.#knowledge.streams) if (!this.#streamWatches.has(stream.name)) this.#watchStream(stream);
  }

  #watchStream({ name, maxTargets }: Stream): void {
    const controller = new AbortController();
    this.#streamWatches.set(name, controller);
    const signal = AbortSignal.any([controller.signal, this.#ending.signal]);
    const { trench, conduit } = this.#options;
    const stream = { name, maxTargets, conduit: { name: conduit, trench: { name: trench } } };
    const [flows, targets] = keysOf(name);
    this.#watch(flows, ConfigurationManager.method.watchFlow, { stream }, signal);
    const filter = { status: Target_Status.ENABLED, type: Target_Type.DEFAULT, stream };
    this.#watch(targets, TargetRegistry.method.watch, filter, signal);
  }

  #answered(key: string): void {
    this.#broken.delete(key);
    if (this.#broken.size === 0) this.#setConnected(true, "");
  }

  #setConnected(isConnected: boolean, reason: string): void {
    this.#reason = reason;
    if (this.#isEnding || this.#isConnected === isConnected) return;
    this.#isConnected = isConnected;
    clearTimeout(this.#away!);
    if (!isConnected) this.#away = setTimeout(() => void this.#tellAway(), this.#options.firstAnswerMs ?? 5_000);
    if (isConnected && this.#knowledge.whole() === null) this.#allowTime();
    this.#options.onConnection(isConnected, reason);
  }

  #load(): void {
    const { state, trench, conduit } = this.#options;
    if (state === null) return;
    try {
      const answers = loadState(state.folder, trench, conduit)?.answers ?? new Map<string, Uint8Array>();
      for (const key of ["streams", ...answers.keys()]) {
        const answer = answers.get(key);
        if (answer === undefined) continue;
        this.#knowledge.take(key, answer);
        this.#saved.add(key);
      }
    } catch (error) {
      this.#tellFault(error);
    }
    if (this.#knowledge.whole() !== null) this.#wake();
  }

  #saveSoon(): void {
    if (this.#options.state === null || this.#saveTimer !== null) return;
    this.#saveTimer = setTimeout(() => this.#save(), this.#saveWaitMs);
    this.#saveTimer.unref();
  }

  #save(): void {
    if (this.#saveTimer !== null) clearTimeout(this.#saveTimer);
    this.#saveTimer = null;
    const { state, trench, conduit } = this.#options;
    if (state === null || this.#knowledge.whole() === null) return;
    try {
      saveState(state.folder, { trench, conduit, savedAtMs: state.nowMs(), answers: this.#knowledge.answers() });
      this.#toldFault = "";
      this.#saveWaitMs = SAVE_INTERVAL_MS;
    } catch (error) {
      this.#tellFault(error);
      if (!this.#ending.signal.aborted) this.#saveSoon();
      this.#saveWaitMs = Math.min(this.#saveWaitMs * 2, LAST_SAVE_RETRY_MS);
    }
  }

  #tellFault(error: unknown): void {
    const { message } = error as Error;
    if (message !== this.#toldFault) this.#options.onStateFault(message);
    this.#toldFault = message;
  }
}
