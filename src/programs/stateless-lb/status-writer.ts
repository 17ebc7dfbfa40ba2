import type { Status, Turn } from "#control";
import { type StatusContent, writeStatus } from "./status-document.js";

/** The document is written at most so often; in between changes gather. */
const WRITE_INTERVAL_MS = 250;
/** What cannot be written is tried again so often. */
const RETRY_MS = 1_000;

/** Keeps the status document of the running control plane current, or says why it is not. */
export class StatusWriter {
  readonly #folder: string;
  readonly #onFault: (fault: string) => void;
  #content: StatusContent;
  /** What is asked for only when the file is written: it is long, and changes more often than anybody can read. */
  #live: () => Partial<StatusContent> = () => ({});
  #timer: NodeJS.Timeout | null = null;
  #writtenMs = Number.NEGATIVE_INFINITY;
  #fault = "";

  /** @param onFault why the document cannot be written, once per distinct fault; empty: it is written again */
  constructor(folder: string, content: StatusContent, onFault: (fault: string) => void) {
    this.#folder = folder;
    this.#content = content;
    this.#onFault = onFault;
    this.#write();
  }

  /**
   * Takes over what changed; it is in the file a quarter of a second later at the latest.
   * @param live gives the rest as of then
   */
  update(changes: Partial<StatusContent>, live = this.#live): void {
    this.#content = { ...this.#content, ...changes };
    this.#live = live;
    if (this.#timer !== null) return;
    const waitMs = this.#writtenMs + WRITE_INTERVAL_MS - performance.now();
    if (waitMs <= 0) this.#write();
    else this.#timer = setTimeout(() => this.#write(), waitMs).unref();
  }

  /** The last word: ended in order; `failure` says why if nobody had asked for it. */
  end(failure: string | null): void {
    const nothing = { isServed: false, isAvailable: false, targets: [] };
    this.#content = { ...this.#content, ...this.#live(), ...nothing, phase: "ended", failure };
    this.#live = () => ({});
    this.#write();
  }

  #write(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#writtenMs = performance.now();
    let fault = "";
    try {
      writeStatus(this.#folder, { ...this.#content, ...this.#live() }, new Date());
    } catch (error) {
      fault = (error as Error).message;
      this.#timer = setTimeout(() => this.#write(), RETRY_MS).unref();
    }
    if (fault !== this.#fault) this.#onFault(fault);
    this.#fault = fault;
  }
}

/** What a turn of the reconcile loop changes in the document. Pure. */
export function contentOf(status: Status, { durationMs, error }: Turn, now: Date): Partial<StatusContent> {
  const { isDataPlaneReady, streams, flows, refusals, vips, targets, lastRepair, repairStorms } = status;
  const before = (agoMs: number) => new Date(now.getTime() - agoMs).toISOString();
  const lastTurn = { at: now.toISOString(), durationMs: Math.round(durationMs * 10) / 10, error };
  if (!status.isConfigured) return { lastTurn };
  const own = new Set(targets.flatMap(({ reason }) => reason.split("; ")));
  const refused = refusals.filter(({ fwmark }) => fwmark === null);
  return {
    phase: status.isStopping ? "ending" : "serving",
    lastTurn,
    repairs: {
      count: status.repairs,
      last: lastRepair && {
        at: before(lastRepair.agoMs),
        commands: lastRepair.commands,
      },
      storms: repairStorms.map(({ what, count, agoMs }) => ({ what, count, lastAt: before(agoMs) })),
    },
    isFrontendAnnounced: status.isFrontendAnnounced,
    isServed: isDataPlaneReady, // without a frontend too: then they are dropped
    faults: [
      ...(status.lastTurn?.failures ?? []).filter((message) => message !== error && !own.has(message)),
      ...refused.map(({ what, name, reason }) => `${what} ${name} refused: ${reason}`),
    ],
    vips: vips.map(({ prefix }) => prefix),
    streams: streams.map(({ name, maxTargets, offset }) => ({ name, maxTargets, offset })),
    flows: flows.map(({ name, stream, priority }) => ({ name, stream, priority })),
    refusedFlows: status.refusedFlows.map(({ flow: { name, stream }, reason }) => ({ name, stream, reason })),
    targets: targets.map(({ stream, identifier, fwmark, addresses, state, reason }) => {
      return { stream, identifier, fwmark, addresses, state, reason };
    }),
  };
}
