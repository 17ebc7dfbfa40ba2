import type { Configuration } from "#model";
import {
  admit,
  type DesiredKernel,
  diff,
  type Failure,
  formatPlan,
  formatStep,
  NOTHING_DESIRED,
  planLength,
  type Refusal,
  type Steering,
} from "#steering";
import { type Desired, type KernelPlace, toDesired } from "./desired.js";
import { assignOffsets, type Offsets } from "./offsets.js";
import { publish, type TablePlace } from "./publish.js";
import { RepairWatch } from "./repairs.js";
import { readOffsets, writeOffsets } from "./state-file.js";

/** What the loop may log; the keys of `data` are for machines. */
export type Log = {
  readonly debug: (message: string, data?: Readonly<Record<string, unknown>>) => void;
  readonly info: (message: string, data?: Readonly<Record<string, unknown>>) => void;
  readonly error: (message: string, data?: Readonly<Record<string, unknown>>) => void;
};

export type ReconcilerOptions = {
  readonly steering: Steering;
  readonly place: TablePlace;
  readonly kernelPlace: KernelPlace;
  /** First offset: fwmarks begin one above. */
  readonly offsetStart: number;
  /** Whether every queue is served; until then no VIP is added, since its packets would be dropped. */
  readonly isDataPlaneReady: () => boolean;
  /** The kernel is read back so often even when nothing tells of a change, in ms. */
  readonly verifyIntervalMs: number;
  readonly log: Log;
  /** Told after each turn. */
  readonly onTurn?: (turn: Turn) => void;
};

/** What a turn found and did; for status, health and metrics. */
export type Turn = {
  /** null before the first one. */
  readonly configuration: Configuration | null;
  readonly offsets: Offsets;
  /** Targets that get no packets, by fwmark: why, as a word; the log has the sentence. */
  readonly pending: ReadonlyMap<number, string>;
  /** What this kernel cannot serve; targets among it are pending too. */
  readonly refusals: readonly Refusal[];
  /** Steps that the kernel refused; they are tried again. */
  readonly failures: readonly Failure[];
  /** Why the turn broke off; null: it went through. */
  readonly error: string | null;
  readonly durationMs: number;
  /** Changes of the kernel that were tried. */
  readonly kernelSteps: number;
  /** Those that put right what was changed or gone. */
  readonly repairs: number;
  /** Changes that the kernel refused; they are tried again. */
  readonly failedSteps: number;
  /** The turn broke off. */
  readonly hasFailed: boolean;
};

/** What {@link Reconciler} did in a turn that did not break off. */
type Done = {
  readonly failures: readonly Failure[];
  readonly refusals: readonly Refusal[];
  readonly steps: number;
  readonly repairs: number;
};

/** Events of the kernel come in swarms, also for our own changes; one turn per so many ms is enough. */
const EVENT_INTERVAL_MS = 20;
const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 5_000;

/**
 * The configuration flow. Level-triggered: each turn compares the whole wanted state with the whole actual one, whatever
 * woke it up, so a restart, an operator's mistake or another program's interference heals by itself.
 */
export class Reconciler {
  readonly #options: ReconcilerOptions;
  #configuration: Configuration | null = null;
  #offsets: Offsets;
  #timer: NodeJS.Timeout | null = null;
  #timerAtMs = Number.POSITIVE_INFINITY;
  #retryMs = FIRST_RETRY_MS;
  #toldFailures = "";
  #toldRefusals = "";
  readonly #repairs = new RepairWatch();
  #stopWatch: (() => void) | null = null;

  constructor(options: ReconcilerOptions) {
    this.#options = options;
    this.#offsets = readOffsets(options.place.folder);
  }

  /** Begins to follow the kernel's changes. */
  start(): void {
    this.#stopWatch = this.#options.steering.watch(() => this.wake(EVENT_INTERVAL_MS));
  }

  /** A new configuration is wanted from now on. */
  configure(configuration: Configuration): void {
    this.#configuration = configuration;
    this.wake(0);
  }

  /** Asks for a turn in `delayMs` at the latest. */
  wake(delayMs: number): void {
    const atMs = performance.now() + delayMs;
    if (atMs >= this.#timerAtMs) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timerAtMs = atMs;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#timerAtMs = Number.POSITIVE_INFINITY;
      this.#turn();
    }, delayMs);
  }

  /** What a turn would do for a configuration, as commands; changes nothing. */
  preview(configuration: Configuration): readonly string[] {
    const { desired, kernel } = this.#desiredOf(configuration);
    const tables = [...desired.tables].map(([name, { targets }]) => `# table ${name}: ${targets.size} targets`);
    const flows = desired.flows.map(({ name, priority }) => `# flow rule ${name}, priority ${priority}`);
    return [...tables, ...flows, ...formatPlan(diff(kernel, this.#options.steering.read()))];
  }

  #turn(): void {
    const startMs = performance.now();
    const configuration = this.#configuration;
    let done: Done = { failures: [], refusals: [], steps: 0, repairs: 0 };
    let problem: string | null = null;
    try {
      if (configuration !== null) done = this.#reconcile(configuration);
      this.#tellFailures(done.failures);
      this.wake(this.#options.verifyIntervalMs);
      if (done.failures.length > 0) this.#retry();
      else this.#retryMs = FIRST_RETRY_MS;
    } catch (error) {
      problem = (error as Error).message;
      this.#options.log.error("reconcile failed", { error: (error as Error).message });
      this.#retry();
    }
    this.#options.onTurn?.({
      configuration,
      offsets: this.#offsets,
      pending: new Map([
        ...done.failures.flatMap(({ fwmark, errno }) => (fwmark === null ? [] : [[fwmark, errno] as const])),
        ...done.refusals.flatMap(({ fwmark }) => (fwmark === null ? [] : [[fwmark, "refused"] as const])),
      ]),
      refusals: done.refusals,
      failures: done.failures,
      error: problem,
      durationMs: performance.now() - startMs,
      kernelSteps: done.steps,
      repairs: done.repairs,
      failedSteps: done.failures.length,
      hasFailed: problem !== null,
    });
  }

  #reconcile(configuration: Configuration): Done {
    const { steering, place, isDataPlaneReady, log } = this.#options;
    const { desired, kernel, refusals, offsets } = this.#desiredOf(configuration);
    this.#keepOffsets(offsets);
    this.#tellRefusals(refusals);
    const plan = diff(kernel, steering.read());
    const failed = [...steering.apply(plan.additions)]; // make before break: the new beside the old
    const changes = publish(desired, this.#pending(failed, refusals), place); // only targets that can be reached get packets
    const isServed = isDataPlaneReady();
    if (isServed)
      failed.push(...steering.apply(plan.vips)); // VIPs once somebody answers for them
    else if (plan.vips.length > 0) this.wake(FIRST_RETRY_MS);
    failed.push(...steering.apply(plan.removals)); // last: nothing is decided by the old tables any more
    const done = isServed ? plan : { ...plan, vips: [] };
    const open = [...failed.map(({ step }) => step), ...(isServed ? [] : plan.vips)];
    const repairs = this.#repairs.turn(kernel, done, open);
    if (repairs.length > 0) {
      log.info("repaired", { kernel: repairs.flatMap(formatStep).slice(0, 100), repairs: this.#repairs.count });
    } else if (planLength(done) > 0 || changes.length > 0) {
      log.info("reconciled", { changes, kernel: formatPlan(done).slice(0, 100), failures: failed.length });
    }
    return { failures: failed, refusals, steps: planLength(done), repairs: repairs.length };
  }

  /** `kernel`: what can be served of desired.kernel. */
  #desiredOf(configuration: Configuration): {
    readonly desired: Desired;
    readonly kernel: DesiredKernel;
    readonly refusals: readonly Refusal[];
    readonly offsets: Offsets;
  } {
    const { steering, offsetStart, kernelPlace, log } = this.#options;
    const { offsets, refused } = assignOffsets(configuration.streams, this.#offsets, offsetStart);
    for (const name of refused) log.error("no fwmarks left for stream", { stream: name });
    const desired = toDesired(configuration, offsets, kernelPlace);
    const { admitted, refusals: notServed } = admit(desired.kernel, steering.features);
    return { desired, kernel: admitted, refusals: notServed, offsets };
  }

  #keepOffsets(offsets: Offsets): void {
    const text = (ranges: Offsets) => JSON.stringify([...ranges]);
    if (text(offsets) !== text(this.#offsets)) writeOffsets(this.#options.place.folder, offsets);
    this.#offsets = offsets;
  }

  /** Targets without their kernel state. */
  #pending(failures: readonly Failure[], refusals: readonly Refusal[]): ReadonlySet<number> {
    return new Set([...failures, ...refusals].flatMap(({ fwmark }) => fwmark ?? []));
  }

  #retry(): void {
    this.wake(this.#retryMs);
    this.#retryMs = Math.min(this.#retryMs * 2, LAST_RETRY_MS);
  }

  /** Each distinct set of failures once. */
  #tellFailures(failures: readonly Failure[]): void {
    const text = failures.map(({ message }) => message).join("\n");
    if (text !== this.#toldFailures) {
      for (const { message, fwmark } of failures)
        this.#options.log.error("add pending target", { fwmark, error: message });
      if (failures.length === 0) this.#options.log.info("no pending targets");
    }
    this.#toldFailures = text;
  }

  /** Each distinct set of refusals once. They are not tried again: only another configuration helps. */
  #tellRefusals(refusals: readonly Refusal[]): void {
    const text = JSON.stringify(refusals);
    if (text === this.#toldRefusals) return;
    for (const { what, name, fwmark, reason } of refusals)
      this.#options.log.error(`${what} refused`, { name, ...(fwmark === null ? {} : { fwmark }), error: reason });
    this.#toldRefusals = text;
  }

  /** Steps that put right what was changed or gone in the kernel, since the start. */
  get repairs(): number {
    return this.#repairs.count;
  }

  /** No turn begins after this. */
  stop(): void {
    this.#configuration = null;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#stopWatch?.();
  }

  /** Stops queueing: from now on no packet comes to the data plane, and those that came still find their way. */
  releaseTraffic(): readonly Failure[] {
    return this.#options.steering.stopQueueing();
  }

  /** Takes away everything of ours in the kernel; for the end, after the data plane. */
  cleanUp(): readonly Failure[] {
    const { steering } = this.#options;
    const { additions, vips, removals } = diff(NOTHING_DESIRED, steering.read());
    return steering.apply([...additions, ...vips, ...removals]);
  }
}
