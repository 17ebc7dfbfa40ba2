import type { Configuration } from "#model";
import {
  admit,
  type DesiredKernel,
  diff,
  type Failure,
  formatEvent,
  formatPlan,
  formatStep,
  NOTHING_DESIRED,
  type Plan,
  planLength,
  type Refusal,
  type Steering,
  type Step,
} from "#steering";
import { type Desired, evicted, FlowRules, type KernelPlace, tableName, toDesired } from "./desired.js";
import { surplusInterfaces } from "./interfaces.js";
import { assignOffsets, type OffsetPlacement, type Offsets } from "./offsets.js";
import { OperatorLog } from "./operator-log.js";
import { ProbeRound } from "./probes.js";
import { type Published, Publisher, type TablePlace } from "./publish.js";
import { RepairWatch } from "./repairs.js";
import { readOffsets, writeOffsets } from "./state-file.js";
import { configurationStatus, idleTargets, type Status, streamStatus, targetStatus } from "./status.js";
import { faultsOf, type Judgement, judge } from "./targets.js";
import { type Log, TurnLog } from "./turn-log.js";
import { TurnTimer } from "./turn-timer.js";

export type ReconcilerOptions = {
  readonly steering: Steering;
  readonly place: TablePlace;
  readonly kernelPlace: KernelPlace;
  /** Where the ranges of streams go: fwmarks begin one above `start`. */
  readonly offsetPlacement: OffsetPlacement;
  /** The kernel and the tables are read back so often even when nothing tells of a change, in ms. */
  readonly verifyIntervalMs: number;
  /** Each target is asked once in this time whether it is there, in ms; 0: never. */
  readonly probeIntervalMs: number;
  /** Names of the interfaces to targets that are ours to set down begin so; null: no interface is ours. */
  readonly ownInterfaces: string | null;
  /** Whether every queue is served; until then no VIP is added, since its packets would be dropped. */
  readonly isDataPlaneReady: () => boolean;
  /** `status()` may say something else than before. */
  readonly onChange?: () => void;
  /** Told after each turn. */
  readonly onTurn?: (turn: Turn) => void;
  /** A clock that never goes back, in ms. */
  readonly nowMs: () => number;
  readonly log: Log;
};

/** What a turn cost and did, for metrics; what came of it says {@link Reconciler.status}. */
export type Turn = {
  readonly durationMs: number;
  /** Changes of the kernel that were tried. */
  readonly kernelSteps: number;
  /** Those that put right what was changed or gone. */
  readonly repairs: number;
  /** Changes that the kernel, or the shared memory, refused; they are tried again. */
  readonly failedSteps: number;
  /** Why the turn broke off; null: it went through. */
  readonly error: string | null;
};

/** Events of the kernel come in swarms; one turn per so many ms is enough. */
const EVENT_INTERVAL_MS = 10;
const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 5_000;
const PROBE_TICK_MS = 200;
/** Commands of the last repair that are remembered for the status. */
const MOST_COMMANDS = 10;
/** A target that is lost is asked so often, to come back soon. */
const LOST_PROBE_INTERVAL_MS = 1_000;

const NOBODY: Judgement = { known: new Map(), served: new Set(), changed: [], nextReturnMs: Number.POSITIVE_INFINITY };

/**
 * The configuration flow. Level-triggered: each turn compares the whole wanted state with the whole actual one, whatever
 * woke it up, so a restart, an operator's mistake or another program's interference heals by itself.
 */
export class Reconciler {
  readonly #options: ReconcilerOptions;
  readonly #publisher: Publisher;
  readonly #flowRules = new FlowRules();
  readonly #repairs = new RepairWatch();
  readonly #log: TurnLog;
  readonly #operatorLog: OperatorLog;
  readonly #probes: { readonly ready: ProbeRound; readonly lost: ProbeRound };
  #configuration: Configuration | null = null;
  #isFrontendAnnounced: boolean | null = null;
  #isStopping = false;
  #offsets: Offsets;
  #savedOffsets: string;
  #judgement = NOBODY;
  #published: Published = { changes: [], failures: [] };
  readonly #timer: TurnTimer;
  #verifyAtMs = 0;
  #retryMs = FIRST_RETRY_MS;
  /** Changes of the kernel in this turn. */
  #steps = 0;
  #refusals: readonly Refusal[] = [];
  #stopFollowing: (() => void) | null = null;
  readonly #setDown: string[] = [];
  #counts = { turns: 0, failedTurns: 0, driftsFound: 0 };
  #lastRepair: { readonly atMs: number; readonly commands: readonly string[] } | null = null;
  #lastTurn: { durationMs: number; endMs: number; steps: number; failures: readonly string[] } | null = null;

  constructor(options: ReconcilerOptions) {
    this.#options = options;
    this.#timer = new TurnTimer(options.nowMs, () => this.#turn());
    this.#log = new TurnLog(options.log);
    this.#operatorLog = new OperatorLog(options.log, options.kernelPlace.targetInterfaces);
    this.#publisher = new Publisher(options.place);
    this.#offsets = readOffsets(options.place.folder);
    this.#savedOffsets = JSON.stringify([...this.#offsets]);
    this.#probes = { ready: new ProbeRound(options.probeIntervalMs), lost: new ProbeRound(LOST_PROBE_INTERVAL_MS) };
  }

  /** Begins to follow the kernel's changes, and to ask targets whether they are there. */
  start(): void {
    const { steering, log } = this.#options;
    const stopWatch = steering.watch(
      () => this.wake(EVENT_INTERVAL_MS),
      (event) => {
        log.trace("kernel tells", () => ({ event: formatEvent(event) }));
        this.#operatorLog.event(event);
      },
    );
    const probing = setInterval(() => this.#probe(), PROBE_TICK_MS);
    probing.unref();
    this.#stopFollowing = () => {
      clearInterval(probing);
      stopWatch();
    };
  }

  /**
   * This is wanted from now on.
   * @param isFrontendAnnounced whether the frontend beside us asks for packets; null: nobody needs to ask
   */
  configure(configuration: Configuration, isFrontendAnnounced: boolean | null = null): void {
    if (isFrontendAnnounced !== this.#isFrontendAnnounced && isFrontendAnnounced !== null)
      this.#operatorLog.frontend(isFrontendAnnounced);
    this.#configuration = configuration;
    this.#isFrontendAnnounced = isFrontendAnnounced;
    this.wake(0);
  }

  /** Asks for a turn in `delayMs`. */
  wake(delayMs: number): void {
    this.#timer.wake(delayMs);
  }

  /** What a turn would do for a configuration, as commands; changes nothing. */
  preview(configuration: Configuration): readonly string[] {
    const { desired, kernel } = this.#desiredOf(configuration);
    const tables = [...desired.tables].map(([name, { targets }]) => `# table ${name}: ${targets.size} targets`);
    const flows = desired.flows.map(({ name, priority }) => `# flow rule ${name}, priority ${priority}`);
    return [...tables, ...flows, ...formatPlan(diff(kernel, this.#options.steering.read()))];
  }

  #turn(): void {
    const { nowMs, onTurn, onChange } = this.#options;
    const configuration = this.#configuration;
    if (configuration === null) return;
    const startMs = nowMs();
    const repairsBefore = this.#repairs.count;
    let failures: readonly string[];
    let problem: string | null = null;
    this.#steps = 0;
    try {
      if (startMs >= this.#verifyAtMs) this.#verify(startMs);
      failures = this.#reconcile(configuration);
    } catch (error) {
      problem = (error as Error).message;
      failures = [problem];
    }
    const endMs = nowMs();
    const durationMs = endMs - startMs;
    this.#lastTurn = { durationMs, endMs, steps: this.#steps, failures };
    this.#counts.turns++;
    if (failures.length > 0) this.#counts.failedTurns++;
    this.#log.failures(failures);
    this.wake(Math.min(this.#verifyAtMs, this.#judgement.nextReturnMs) - endMs);
    if (failures.length > 0) this.#retry();
    else this.#retryMs = FIRST_RETRY_MS;
    const repairs = this.#repairs.count - repairsBefore;
    onTurn?.({ durationMs, kernelSteps: this.#steps, repairs, failedSteps: failures.length, error: problem });
    onChange?.();
  }

  /** @returns what could not be done, for people */
  #reconcile(configuration: Configuration): readonly string[] {
    const { steering, isDataPlaneReady } = this.#options;
    const { wanted, desired, kernel, refusals, offsets, homeless } = this.#desiredOf(configuration);
    const unsaved = this.#keepOffsets(offsets);
    const plan = diff(kernel, steering.read());
    const failed = [...steering.apply(plan.additions)]; // make before break: the new beside the old
    this.#judge(desired, failed, refusals);
    this.#published = this.#publisher.publish(desired, this.#judgement.served); // who cannot be reached gets no packets
    const { served } = this.#judgement;
    for (const change of this.#published.changes)
      this.#options.log.trace("table changed", () => ({ change, served: [...served] }));
    const isServed = isDataPlaneReady();
    if (isServed)
      failed.push(...steering.apply(plan.vips)); // VIPs once somebody answers for them
    else if (plan.vips.length > 0) this.wake(FIRST_RETRY_MS);
    failed.push(...steering.apply(plan.removals)); // last: nothing is decided by the old tables any more
    this.#setSurplusDown();
    this.#refusals = refusals;
    this.#log.refusals(refusals);
    this.#operatorLog.turn({ wanted, offsets, known: this.#judgement.known });
    this.#tell(kernel, isServed ? plan : { ...plan, vips: [] }, failed, isServed ? [] : plan.vips);
    return [
      ...unsaved,
      ...failed.map(({ message }) => message),
      ...this.#published.failures.map(({ name, message }) => `${name}: ${message}`),
      ...homeless.map((name) => `stream ${name}: no range of fwmarks is left for it`),
    ];
  }

  #desiredOf(configuration: Configuration) {
    const { steering, offsetPlacement, kernelPlace } = this.#options;
    // Streams keep their marks while no frontend is there, and those that leave meanwhile free them (R13).
    const { offsets, refused: homeless } = assignOffsets(configuration.streams, this.#offsets, offsetPlacement);
    const wanted = this.#isFrontendAnnounced === false ? evicted(configuration) : configuration;
    const desired = toDesired(wanted, offsets, kernelPlace, this.#flowRules.of);
    const { admitted: kernel, refusals } = admit(desired.kernel, steering.features); // what can be served of it
    return { wanted, desired, kernel, refusals, offsets, homeless };
  }

  /** @returns what could not be saved; the ranges are in force nevertheless */
  #keepOffsets(offsets: Offsets): readonly string[] {
    const text = JSON.stringify([...offsets]);
    this.#offsets = offsets;
    if (text === this.#savedOffsets) return [];
    try {
      writeOffsets(this.#options.place.folder, offsets);
      this.#savedOffsets = text;
      return [];
    } catch (error) {
      return [`fwmark ranges are not saved, a restart may give others: ${(error as Error).message}`];
    }
  }

  #judge(desired: Desired, failed: readonly Failure[], refusals: readonly Refusal[]): void {
    const { steering, nowMs } = this.#options;
    const faults = faultsOf(failed, refusals, steering.brokenPaths());
    this.#judgement = judge(desired.targets, this.#judgement.known, faults, nowMs());
    const { changed } = this.#judgement;
    // What has a way again is asked at once whether it is there; probes in turn would take a second.
    const healing = changed.filter(({ state }) => state.kind === "unreachable" && state.isUsable);
    steering.probe(new Set(healing.map(({ target }) => target.fwmark)));
  }

  #setSurplusDown(): void {
    const { steering, ownInterfaces } = this.#options;
    if (ownInterfaces === null) return;
    const isBlocked = this.#isFrontendAnnounced === false;
    for (const surplus of surplusInterfaces(steering.interfaces(), ownInterfaces, isBlocked)) {
      steering.setDown(surplus.index);
      this.#operatorLog.disabled(surplus);
      this.#setDown.push(surplus.name);
    }
  }

  /** @param waiting steps that were left for later */
  #tell(desired: DesiredKernel, done: Plan, failed: readonly Failure[], waiting: readonly Step[]): void {
    const repairs = this.#repairs.turn(desired, done, [...failed.map(({ step }) => step), ...waiting]);
    if (repairs.length > 0)
      this.#lastRepair = { atMs: this.#options.nowMs(), commands: repairs.flatMap(formatStep).slice(0, MOST_COMMANDS) };
    this.#log.work(done, this.#published.changes, repairs, this.#repairs.count, failed.length);
    this.#steps = planLength(done);
  }

  /** Reads back what is otherwise known by events and from memory. */
  #verify(nowMs: number): void {
    this.#verifyAtMs = nowMs + this.#options.verifyIntervalMs;
    this.#publisher.forget();
    if (this.#options.steering.verify()) return;
    this.#counts.driftsFound++;
    this.#options.log.error("the kernel's state was not what its events had told; it was read anew");
  }

  #retry(): void {
    this.#operatorLog.retry();
    this.wake(this.#retryMs);
    this.#retryMs = Math.min(this.#retryMs * 2, LAST_RETRY_MS);
  }

  #probe(): void {
    const known = [...this.#judgement.known.values()].filter(({ state }) => state.isUsable);
    const marks = (isReady: boolean) =>
      known.filter(({ state }) => (state.kind === "ready") === isReady).map(({ target }) => target.fwmark);
    const { ready, lost } = this.#probes;
    this.#options.steering.probe(
      new Set([...ready.next(marks(true), PROBE_TICK_MS), ...lost.next(marks(false), PROBE_TICK_MS)]),
    );
  }

  /** What is, and why. Plain data. */
  status(): Status {
    const { steering, isDataPlaneReady, nowMs } = this.#options;
    const isBlocked = this.#isFrontendAnnounced === false;
    const now = nowMs();
    const { known, served } = this.#judgement;
    const tried = [...known.values()].map((one) => targetStatus(one, served, now));
    const targets = [...tried, ...idleTargets(this.#configuration, tried, isBlocked)];
    const faults = new Map(this.#published.failures.map(({ name, message }) => [name, message]));
    const streams = (this.#configuration?.streams ?? []).map((stream) =>
      streamStatus(stream, this.#offsets.get(stream.name)?.offset ?? null, targets, faults.get(tableName(stream.name))),
    );
    const isReady = isDataPlaneReady();
    const last = this.#lastTurn;
    const repair = this.#lastRepair;
    return {
      ...configurationStatus(this.#configuration, streams, isBlocked),
      isFrontendAnnounced: this.#isFrontendAnnounced,
      isStopping: this.#isStopping,
      isDataPlaneReady: isReady,
      isAvailable: isReady && !isBlocked && !this.#isStopping && streams.some(({ ready }) => ready > 0),
      streams,
      targets,
      refusals: this.#refusals,
      interfacesSetDown: [...this.#setDown],
      lastTurn: last && {
        durationMs: last.durationMs,
        agoMs: now - last.endMs,
        steps: last.steps,
        failures: last.failures,
      },
      ...this.#counts,
      repairs: this.#repairs.count,
      lastRepair: repair && { agoMs: now - repair.atMs, commands: repair.commands },
      overruns: steering.overruns,
    };
  }

  /** Says that the end is near: packets are served as before, but the frontend is to send no more. */
  announceStop(): void {
    this.#isStopping = true;
    this.#options.onChange?.();
  }

  /** No turn begins after this. */
  stop(): void {
    this.#configuration = null;
    this.#timer.stop();
    this.#stopFollowing?.();
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
