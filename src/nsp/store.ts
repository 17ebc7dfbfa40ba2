import { create } from "@bufbuild/protobuf";
import {
  type Attractor,
  type Conduit,
  type Flow,
  type Gateway,
  type Stream,
  type Target,
  Target_Status,
  Target_Type,
  TargetSchema,
  type Trench,
  type Vip,
} from "./gen/nsp/v1/model_pb.js";
import { type Entry, keyOf, placeOf, TargetGroups, toEntry, withStatus } from "./registry.js";
import { equalBytes } from "./wire.js";

/** Everything an NSP server tells, as the contract's own messages. */
export type NspConfiguration = {
  readonly trench: Trench | null;
  readonly conduits: readonly Conduit[];
  readonly streams: readonly Stream[];
  readonly flows: readonly Flow[];
  readonly vips: readonly Vip[];
  readonly attractors: readonly Attractor[];
  readonly gateways: readonly Gateway[];
  /** Permanent, enabled targets of the stand-alone case. */
  readonly targets: readonly Target[];
};

const EMPTY_CONFIGURATION: NspConfiguration = {
  trench: null,
  conduits: [],
  streams: [],
  flows: [],
  vips: [],
  attractors: [],
  gateways: [],
  targets: [],
};

/** Most targets that may register; one more is refused. */
const MAX_REGISTERED = 100_000;
/** Most bytes of them all, as they are sent: a client takes lists of 64 MiB. */
const MAX_REGISTERED_BYTES = 48 << 20;

/** Where registrations outlive the process. Both writes may throw; the store goes on without, and writes it later. */
export type TargetStorage = {
  /** Messages of all stored targets. */
  readonly load: () => readonly Target[];
  readonly put: (key: string, message: Uint8Array) => void;
  readonly delete: (key: string) => void;
};

export type StoreOptions = {
  /** Lifetime of a registration in ms. Meridio: NSP_ENTRY_TIMEOUT. Default 60_000. */
  readonly entryTimeoutMs?: number;
  /** A clock that never goes back. */
  readonly nowMs: () => number;
  readonly storage?: TargetStorage;
  /** The storage refused a write; told once per distinct message. */
  readonly onStorageFault?: (message: string) => void;
  /** A registration has the identifier of a target of the configuration, which stays; told once per registration. */
  readonly onHidden?: (hidden: {
    readonly stream: string;
    readonly identifier: string;
    readonly ips: readonly string[];
  }) => void;
};

/**
 * What an NSP server knows: the configuration of its file and the targets that registered. A registration ends when it
 * is not repeated in time; the first one of a target is always DISABLED (the owner enables it with a second one). Stored
 * ones come back at the start with a full lifetime, as in the reference. One with the stream and identifier of a target of
 * the configuration is kept, but not told to anybody as long as that target is there.
 */
export class NspStore {
  #configuration: NspConfiguration = EMPTY_CONFIGURATION;
  readonly #permanent = new TargetGroups();
  /** Streams and identifiers of the permanent ones. */
  #taken: ReadonlySet<string> = new Set();
  readonly #registered = new TargetGroups();
  readonly #deadlinesMs = new Map<string, number>();
  /** Registrations that have changed since the storage took a write of them. */
  readonly #unwritten = new Set<string>();
  #registeredBytes = 0;
  readonly #listeners = new Set<() => void>();
  readonly #options: StoreOptions;
  #entryTimeoutMs: number;
  #isTelling = false;
  #toldFault = "";

  constructor(options: StoreOptions) {
    this.#options = options;
    this.#entryTimeoutMs = options.entryTimeoutMs ?? 60_000;
    for (const target of options.storage?.load() ?? []) this.#keep(keyOf(target), toEntry(target));
  }

  get configuration(): NspConfiguration {
    return this.#configuration;
  }

  /** Replaces the configuration as a whole. @param entryTimeoutMs another lifetime for registrations from now on */
  configure(configuration: NspConfiguration, entryTimeoutMs = this.#entryTimeoutMs): void {
    this.#configuration = configuration;
    this.#entryTimeoutMs = entryTimeoutMs;
    this.#permanent.clear();
    for (const target of configuration.targets) this.#permanent.set(keyOf(target), toEntry(target));
    this.#taken = new Set(configuration.targets.flatMap((target) => placeOf(target) ?? []));
    this.#tell();
  }

  /** Targets that a watch's filter lets pass, those of the configuration first; entries are replaced, never changed. */
  targets(filter: Target): readonly Entry[] {
    const permanent = [...this.#permanent.matching(filter)].map(([, entry]) => entry);
    const registered = [...this.#registered.matching(filter)].map(([, entry]) => entry);
    return [...permanent, ...registered.filter(({ target }) => !this.#isHidden(target))];
  }

  /** @throws {RangeError} too many */
  register(target: Target): void {
    const key = keyOf(target);
    const known = this.#registered.get(key);
    if (known === undefined && this.#registered.size >= MAX_REGISTERED)
      throw new RangeError(`${MAX_REGISTERED} targets are registered`);
    const entry = toEntry(known === undefined ? withStatus(target, Target_Status.DISABLED) : target);
    const growth = entry.bytes.length - (known?.bytes.length ?? 0);
    if (growth > 0 && this.#registeredBytes + growth > MAX_REGISTERED_BYTES)
      throw new RangeError(`registrations of ${MAX_REGISTERED_BYTES >> 20} MiB are all that is taken`);
    if (known !== undefined && equalBytes(known.bytes, entry.bytes)) {
      this.#deadlinesMs.set(key, this.#options.nowMs() + this.#entryTimeoutMs); // a refresh
      this.#writeOut();
      return;
    }
    if (known === undefined && this.#isHidden(target)) this.#tellHidden(target);
    this.#keep(key, entry);
    this.#store(key);
    this.#tell();
  }

  unregister(target: Target): void {
    if (this.#drop(keyOf(target))) this.#tell();
  }

  /** Ends the registrations that were not repeated in time; to be called now and then. */
  expire(): void {
    const nowMs = this.#options.nowMs();
    const late = [...this.#deadlinesMs].filter(([, deadlineMs]) => deadlineMs < nowMs);
    for (const [key] of late) this.#drop(key);
    this.#writeOut();
    if (late.length > 0) this.#tell();
  }

  /** Calls `listener` soon after changes, once for those of one turn of the event loop, until the result is called. */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** By a target of the configuration, with the same addresses or in the same place. */
  #isHidden(target: Target): boolean {
    if (this.#permanent.size === 0) return false;
    const place = placeOf(target);
    return this.#permanent.has(keyOf(target)) || (place !== null && this.#taken.has(place));
  }

  #tellHidden({ stream, context, ips }: Target): void {
    this.#options.onHidden?.({ stream: stream?.name ?? "", identifier: context["identifier"] ?? "", ips });
  }

  #keep(key: string, entry: Entry): void {
    this.#registeredBytes += entry.bytes.length - (this.#registered.get(key)?.bytes.length ?? 0);
    this.#registered.set(key, entry);
    this.#deadlinesMs.set(key, this.#options.nowMs() + this.#entryTimeoutMs);
  }

  #drop(key: string): boolean {
    this.#deadlinesMs.delete(key);
    const known = this.#registered.get(key);
    if (known === undefined) return false;
    this.#registered.delete(key);
    this.#registeredBytes -= known.bytes.length;
    this.#store(key);
    return true;
  }

  #store(key: string): void {
    this.#unwritten.add(key);
    this.#writeOut();
  }

  /** Writes what is not written yet. What the storage refuses ends that, and waits behind the others until the next time. */
  #writeOut(): void {
    const { storage, onStorageFault } = this.#options;
    for (const key of this.#unwritten) {
      this.#unwritten.delete(key);
      const entry = this.#registered.get(key);
      try {
        if (entry === undefined) storage?.delete(key);
        else storage?.put(key, entry.bytes);
      } catch (error) {
        this.#unwritten.add(key);
        const { message } = error as Error;
        if (message !== this.#toldFault) onStorageFault?.(message);
        this.#toldFault = message;
        return;
      }
    }
    this.#toldFault = "";
  }

  #tell(): void {
    if (this.#isTelling) return;
    this.#isTelling = true;
    setImmediate(() => {
      this.#isTelling = false;
      for (const listener of this.#listeners) listener();
    });
  }
}

/** A target of the configuration file. */
export function permanentTarget(stream: Stream, identifier: number, ips: readonly string[]): Target {
  return create(TargetSchema, {
    ips: [...ips],
    context: { identifier: String(identifier) },
    status: Target_Status.ENABLED,
    type: Target_Type.DEFAULT,
    stream,
  });
}
