import { clone, create } from "@bufbuild/protobuf";
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

export const EMPTY_CONFIGURATION: NspConfiguration = {
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

type Registration = { readonly target: Target; readonly deadlineMs: number };

/**
 * What an NSP server knows: the configuration of its file and the targets that registered. A registration ends when it
 * is not repeated in time; the first one of a target is always DISABLED (the owner enables it with a second one).
 */
export class NspStore {
  #configuration: NspConfiguration = EMPTY_CONFIGURATION;
  readonly #registered = new Map<string, Registration>();
  readonly #listeners = new Set<() => void>();
  readonly #entryTimeoutMs: number;
  readonly #nowMs: () => number;

  /** @param entryTimeoutMs lifetime of a registration. Meridio: NSP_ENTRY_TIMEOUT, 60 s */
  constructor({ entryTimeoutMs = 60_000, nowMs }: { readonly entryTimeoutMs?: number; readonly nowMs: () => number }) {
    this.#entryTimeoutMs = entryTimeoutMs;
    this.#nowMs = nowMs;
  }

  get configuration(): NspConfiguration {
    return this.#configuration;
  }

  /** Replaces the configuration as a whole. */
  configure(configuration: NspConfiguration): void {
    this.#configuration = configuration;
    this.#tell();
  }

  /** All targets, those of the configuration first. */
  targets(): readonly Target[] {
    return [...this.#configuration.targets, ...[...this.#registered.values()].map(({ target }) => target)];
  }

  /** @throws {RangeError} too many */
  register(target: Target): void {
    const key = keyOf(target);
    const isNew = !this.#registered.has(key);
    if (isNew && this.#registered.size >= MAX_REGISTERED)
      throw new RangeError(`${MAX_REGISTERED} targets are registered`);
    const entry = clone(TargetSchema, target);
    if (isNew) entry.status = Target_Status.DISABLED;
    this.#registered.set(key, { target: entry, deadlineMs: this.#nowMs() + this.#entryTimeoutMs });
    this.#tell();
  }

  unregister(target: Target): void {
    if (this.#registered.delete(keyOf(target))) this.#tell();
  }

  /** Ends the registrations that were not repeated in time; to be called now and then. */
  expire(): void {
    const nowMs = this.#nowMs();
    const late = [...this.#registered].filter(([, { deadlineMs }]) => deadlineMs < nowMs);
    for (const [key] of late) this.#registered.delete(key);
    if (late.length > 0) this.#tell();
  }

  /** Calls `listener` after every change until the result is called. */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #tell(): void {
    for (const listener of this.#listeners) listener();
  }
}

/** Identity of a registration: addresses, type and stream. */
function keyOf({ ips, type, stream }: Target): string {
  const conduit = stream?.conduit;
  return `${ips.join(";")}-${type}-${stream?.name ?? ""}.${conduit?.name ?? ""}.${conduit?.trench?.name ?? ""}`;
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
