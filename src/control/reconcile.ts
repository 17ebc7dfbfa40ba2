import { type Configuration, tableName } from "#model";
import {
  admit,
  type DesiredKernel,
  diff,
  type Failure,
  formatEvent,
  formatPlan,
  type KernelEvent,
  NOTHING_DESIRED,
  type Plan,
  planLength,
  type Refusal,
  type Step,
} from "#steering";
import { countTargets, type Desired, evicted, FlowRules, MarkedTargets, toDesired } from "./desired.js";
import { countStreams, refusedFlows, type StreamCount, withoutUnpublished } from "./in-force.js";
import { surplusInterfaces } from "./interfaces.js";
import { KeptOffsets } from "./kept-offsets.js";
import { assignOffsets, type Offsets } from "./offsets.js";
import { OperatorLog } from "./operator-log.js";
import { Probing } from "./probes.js";
import { NOTHING_PUBLISHED, Publisher } from "./publish.js";
import type { ReconcilerOptions } from "./reconciler-options.js";
import { RepairWatch } from "./repairs.js";
import { RetryWatch } from "./retries.js";
import { configurationStatus, groupByStream, idleTargets, type Status, streamStatus, targetStatus } from "./status.js";
import { faultsOf, judge, NOBODY, usableMarks } from "./targets.js";
import { TurnLog } from "./turn-log.js";
import { TurnTimer } from "./turn-timer.js";
import { VerifySchedule } from "./verify-schedule.js";

/** What is desired, with what it follows from. */
type Wanted = {
  readonly configuration: Configuration;
  readonly isBlocked: boolean;
  /** What is left of the configuration while no frontend is announced. */
  readonly wanted: Configuration;
  readonly desired: Desired;
  /** The part of the kernel's that can be served. */
  readonly kernel: DesiredKernel;
  readonly refusals: readonly Refusal[];
  readonly offsets: Offsets;
  /** Streams without a range. */
  readonly homeless: readonly string[];
};

/** Events of the kernel come in swarms; one turn per so many ms is enough. */
const EVENT_INTERVAL_MS = 10;
const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 5_000;
/** Nothing tells of a table that somebody else has changed: it is looked for so often. */
const LOOK_MS = 1_000;
/** Commands of the last repair that are remembered for the status. */
const MOST_COMMANDS = 10;

/**
 * The configuration flow. Level-triggered: each turn compares the whole wanted state with the whole actual one, whatever
 * woke it up, so a restart, an operator's mistake or another program's interference heals by itself.
 */
export class Reconciler {
  readonly #options: ReconcilerOptions;
  readonly #publisher: Publisher;
  readonly #known = { flows: new FlowRules(), targets: new MarkedTargets() };
  /** What was desired last, and of which configuration. */
  #wanted: Wanted | null = null;
  readonly #repairs = new RepairWatch();
  readonly #retries = new RetryWatch();
  readonly #log: TurnLog;
  readonly #operatorLog: OperatorLog;
  readonly #probing: Probing;
  #configuration: Configuration | null = null;
  #isFrontendAnnounced: boolean | null = null;
  #isStopping = false;
  readonly #offsets: KeptOffsets;
  #judgement = NOBODY;
  #published = NOTHING_PUBLISHED;
  readonly #timer: TurnTimer;
  /** When the next turn is due; what the timer wakes for before is a verification. */
  #dueMs = Number.POSITIVE_INFINITY;
  readonly #verification: VerifySchedule;
  #retryMs = FIRST_RETRY_MS;
  /** Changes of the kernel in this turn. */
  #steps = 0;
  /** Failures of this turn that only say once more that a target is pending. */
  #stillPending = 0;
  #refusals: Status["refusals"] = [];
  #stopFollowing: (() => void) | null = null;
  readonly #setDown: string[] = [];
  #counts = { turns: 0, failedTurns: 0, driftsFound: 0 };
  #lastRepair: { readonly atMs: number; readonly commands: readonly string[] } | null = null;
  #lastTurn: { durationMs: number; endMs: number; steps: number; failures: readonly string[] } | null = null;

  constructor(options: ReconcilerOptions) {
    this.#options = options;
    this.#verification = new VerifySchedule(options.verifyIntervalMs);
    this.#timer = new TurnTimer(options.nowMs, () => this.#wakened());
    this.#log = new TurnLog(options.log);
    this.#operatorLog = new OperatorLog(options.log, options.kernelPlace.targetInterfaces);
    this.#publisher = new Publisher(options.place);
    this.#offsets = new KeptOffsets(options.place.folder, options.offsetPlacement, options.log);
    const ask = (fwmarks: readonly number[]) => options.steering.probe(new Set(fwmarks));
    this.#probing = new Probing(options.probeIntervalMs, () => this.#usable(), ask);
  }

  /** Begins to follow the kernel's changes, and to ask targets whether they are there. */
  start(): void {
    const { steering, log } = this.#options;
    const wake = () => this.wake(EVENT_INTERVAL_MS);
    const onHeard = () => {
      if (this.#usable().lost.length > 0) wake();
    };
    const onEvent = (event: () => KernelEvent, isNews: boolean) => {
      log.trace("kernel tells", () => ({ event: formatEvent(event()) }));
      if (isNews) this.#operatorLog.event(event());
    };
    const stopWatch = steering.watch(wake, { onEvent, onHeard });
    this.#probing.start();
    const looking = setInterval(() => this.#look(), LOOK_MS).unref();
    this.#stopFollowing = () => {
      clearInterval(looking);
      this.#probing.stop();
      stopWatch();
    };
  }

  /**
   * This is wanted from now on.
   * @param isFrontendAnnounced whether the frontend beside us asks for packets; null: nobody needs to ask
   */
  configure(configuration: Configuration, isFrontendAnnounced: boolean | null = null): void {
    if (isFrontendAnnounced !== this.#isFrontendAnnounced && isFrontendAnnounced !== null && !this.#isStopping)
      this.#operatorLog.frontend(isFrontendAnnounced);
    this.#configuration = configuration;
    if (!this.#isStopping) this.#isFrontendAnnounced = isFrontendAnnounced; // at the end it leaves too, before its packets do
    this.#verification.changed(this.#options.nowMs());
    this.wake(0);
  }

  /** Asks for a turn in `delayMs`. */
  wake(delayMs: number): void {
    this.#dueMs = Math.min(this.#dueMs, this.#options.nowMs() + delayMs);
    this.#timer.wake(delayMs);
  }

  /** What a turn would do for a configuration, as commands; changes nothing. */
  preview(configuration: Configuration): readonly string[] {
    const { desired, kernel } = this.#desiredOf(configuration);
    const tables = [...desired.tables].map(([name, table]) => `# table ${name}: ${countTargets(table)} targets`);
    const flows = desired.flows.map(({ name, priority }) => `# flow rule ${name}, priority ${priority}`);
    return [...tables, ...flows, ...formatPlan(diff(kernel, this.#options.steering.read()))];
  }

  /** A turn, unless it was woken only to read back and all is as it was. */
  #wakened(): void {
    if (this.#configuration === null) return;
    const startMs = this.#options.nowMs();
    const isDue = startMs >= this.#dueMs;
    let problem: Error | null = null;
    let isNews = false;
    try {
      isNews = this.#verification.take(startMs) && this.#verify();
    } catch (error) {
      problem = error as Error;
    }
    if (isDue || isNews || problem !== null) this.#turn(this.#configuration, startMs, problem);
    this.#timer.wake(Math.min(this.#dueMs, this.#verification.atMs) - this.#options.nowMs());
  }

  #turn(configuration: Configuration, startMs: number, unread: Error | null): void {
    const { nowMs, onTurn, onChange } = this.#options;
    const repairsBefore = this.#repairs.count;
    let failures: readonly string[];
    let problem: string | null = null;
    this.#steps = 0;
    this.#dueMs = Number.POSITIVE_INFINITY;
    this.#stillPending = 0;
    try {
      if (unread !== null) throw unread;
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
    this.wake(this.#judgement.nextReturnMs - endMs);
    if (failures.length > 0) this.#retry();
    else this.#retryMs = FIRST_RETRY_MS;
    const repairs = this.#repairs.count - repairsBefore;
    onTurn?.({
      durationMs,
      kernelSteps: this.#steps,
      repairs,
      failedSteps: failures.length - this.#stillPending,
      error: problem,
    });
    onChange?.();
  }

  /** @returns what could not be done, for people */
  #reconcile(configuration: Configuration): readonly string[] {
    const { steering, isDataPlaneReady } = this.#options;
    const { wanted, desired, kernel, refusals, offsets, homeless } = this.#desiredOf(configuration);
    const unsaved = this.#offsets.keep(offsets);
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
    this.#refusals = [...refusals, ...refusedFlows(this.#published.inForce)];
    this.#log.refusals(this.#refusals);
    this.#tellOperator(wanted, offsets);
    this.#tell(kernel, isServed ? plan : { ...plan, vips: [] }, failed, isServed ? [] : plan.vips);
    return [
      ...unsaved,
      ...failed.map(({ message }) => message),
      ...this.#published.failures.map(({ name, message }) => `${name}: ${message}`),
      ...homeless.map((name) => `stream ${name}: no range of fwmarks is left for it`),
    ];
  }

  /** The same object as the last time when nothing that decides has changed. */
  #desiredOf(configuration: Configuration): Wanted {
    const { steering, offsetPlacement, kernelPlace } = this.#options;
    const last = this.#wanted;
    const isBlocked = this.#isFrontendAnnounced === false;
    const isPlaced = last?.configuration.streams === configuration.streams && last.offsets === this.#offsets.current;
    if (isPlaced && last.configuration === configuration && last.isBlocked === isBlocked) return last;
    // Streams keep their marks while no frontend is there, and those that leave meanwhile free them (R13).
    const { offsets, refused: homeless } = isPlaced
      ? { offsets: last.offsets, refused: last.homeless }
      : assignOffsets(configuration.streams, this.#offsets.current, offsetPlacement);
    const wanted = isBlocked ? evicted(configuration) : configuration;
    const desired = toDesired(wanted, offsets, kernelPlace, this.#known);
    const { admitted: kernel, refusals } = admit(desired.kernel, steering.features, steering.memo); // what can be served of it
    this.#wanted = { configuration, isBlocked, wanted, desired, kernel, refusals, offsets, homeless };
    return this.#wanted;
  }

  #judge(desired: Desired, failed: readonly Failure[], refusals: readonly Refusal[]): void {
    const { steering, nowMs } = this.#options;
    const faults = faultsOf(failed, refusals, steering.brokenPaths(desired.kernel.vips));
    this.#judgement = judge(desired.targets, this.#judgement, faults, nowMs());
    const { changed } = this.#judgement;
    // What has a way again is asked at once whether it is there; probes in turn would take a second.
    const healing = changed.filter(({ state }) => state.kind === "unreachable" && state.isUsable);
    steering.probe(new Set(healing.map(({ target }) => target.fwmark)));
    this.#probing.judged();
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

  #tellOperator(wanted: Configuration, offsets: Offsets): void {
    const { known } = this.#judgement;
    const { isWhole, inForce } = this.#published;
    const told = isWhole ? { wanted, known } : withoutUnpublished(wanted, known, inForce);
    this.#operatorLog.turn({ ...told, offsets });
  }

  /** @param waiting steps that were left for later */
  #tell(desired: DesiredKernel, done: Plan, failed: readonly Failure[], waiting: readonly Step[]): void {
    const nowMs = this.#options.nowMs();
    const open = [...failed.map(({ step }) => step), ...waiting];
    const repairs = this.#repairs.turn(desired, done, open, this.#published.repairs, nowMs);
    const commands = [...repairs.kernel, ...repairs.tables];
    if (commands.length > 0) this.#lastRepair = { atMs: nowMs, commands: commands.slice(0, MOST_COMMANDS) };
    const repeated = this.#retries.turn(failed);
    this.#log.work(done, this.#published.changes, repairs, this.#repairs.count, { failed, repeated });
    this.#steps = planLength(done);
    this.#stillPending = repeated.filter(({ fwmark }) => fwmark !== null).length;
  }

  /** Reads back what is otherwise known by events and from memory. @returns whether there is anything to do about it */
  #verify(): boolean {
    const areTablesOurs = this.#publisher.verify();
    const found = this.#options.steering.verify();
    if (found === "drift") {
      this.#counts.driftsFound++;
      this.#options.log.error("the kernel's state was not what its events had told; it was read anew");
    }
    return !areTablesOurs || found !== "same";
  }

  /** Whether tables and rules are as they were published. */
  #look(): void {
    try {
      if (this.#publisher.look()) this.wake(0);
    } catch {
      this.wake(0); // the folder cannot be read: the turn tells why
    }
  }

  #retry(): void {
    this.#operatorLog.retry();
    this.wake(this.#retryMs);
    this.#retryMs = Math.min(this.#retryMs * 2, LAST_RETRY_MS);
  }

  /** Streams in force with their flows in force and ready targets: in short what {@link status} says, at little cost. */
  inForce(): readonly StreamCount[] {
    if (this.#configuration === null || this.#isFrontendAnnounced === false) return [];
    const { memo } = this.#options.steering;
    return countStreams(memo, this.#configuration, this.#offsets.current, this.#judgement.known, this.#published);
  }

  #usable() {
    const { known } = this.#judgement;
    return this.#options.steering.memo.last("usable targets", [known], () => usableMarks(known));
  }

  /** What is, and why. Plain data. */
  status(): Status {
    const { steering, isDataPlaneReady, nowMs, place } = this.#options;
    const isBlocked = this.#isFrontendAnnounced === false;
    const now = nowMs();
    const { known, served } = this.#judgement;
    const { failures, inForce } = this.#published;
    const tried = [...known.values()].map((one) => targetStatus(one, served, inForce, now));
    const targets = [...tried, ...idleTargets(this.#configuration, this.#offsets.current, known, isBlocked)];
    const faults = new Map(failures.map(({ name, message }) => [name, message]));
    const byStream = groupByStream(targets);
    const streams = (this.#configuration?.streams ?? []).map((stream) => {
      const offset = this.#offsets.current.get(stream.name)?.offset ?? null;
      return streamStatus(stream, offset, byStream.get(stream.name) ?? [], faults.get(tableName(stream.name)));
    });
    const isReady = isDataPlaneReady();
    const last = this.#lastTurn;
    const repair = this.#lastRepair;
    return {
      ...configurationStatus(this.#configuration, streams, isBlocked, inForce, faults.get(place.flowsName)),
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
      repairStorms: this.#repairs.storms(now).map(({ what, count, lastMs }) => ({ what, count, agoMs: now - lastMs })),
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
    this.#publisher[Symbol.dispose]();
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
