import type { Turn } from "#control";
import { type StatusContent, type TargetStatus, writeStatus } from "./status-document.js";

/** The document is written at most so often; in between changes gather. */
const WRITE_INTERVAL_MS = 250;

/** Keeps the status document of the running control plane current. A folder that cannot be written to is told once. */
export class StatusWriter {
  readonly #folder: string;
  readonly #onFault: (message: string) => void;
  #content: StatusContent;
  #timer: NodeJS.Timeout | null = null;
  #writtenMs = Number.NEGATIVE_INFINITY;
  #toldFault = "";

  constructor(folder: string, content: StatusContent, onFault: (message: string) => void) {
    this.#folder = folder;
    this.#content = content;
    this.#onFault = onFault;
    this.#write();
  }

  /** Takes over what changed; it is in the file a quarter of a second later at the latest. */
  update(changes: Partial<StatusContent>): void {
    this.#content = { ...this.#content, ...changes };
    if (this.#timer !== null) return;
    const waitMs = this.#writtenMs + WRITE_INTERVAL_MS - performance.now();
    if (waitMs <= 0) this.#write();
    else this.#timer = setTimeout(() => this.#write(), waitMs).unref();
  }

  /** The last word: ended in order. */
  end(): void {
    this.#content = { ...this.#content, phase: "ended", isServed: false, targets: [] };
    this.#write();
  }

  #write(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#writtenMs = performance.now();
    try {
      writeStatus(this.#folder, this.#content, new Date());
      this.#toldFault = "";
    } catch (error) {
      const { message } = error as Error;
      if (message !== this.#toldFault) this.#onFault(message);
      this.#toldFault = message;
    }
  }
}

/** What a turn of the reconcile loop changes in the document. Pure. */
export function contentOf(turn: Turn, isServed: boolean, now: Date): Partial<StatusContent> {
  const { configuration, offsets, failures, refusals, error, durationMs } = turn;
  const lastTurn = { at: now.toISOString(), durationMs: Math.round(durationMs * 10) / 10, error };
  if (configuration === null) return { lastTurn };
  const reasons = new Map<number, string>();
  const problems = [
    ...failures.map(({ fwmark, message }) => ({ fwmark, message })),
    ...refusals.map(({ what, name, fwmark, reason }) => ({ fwmark, message: `${what} ${name} refused: ${reason}` })),
  ];
  for (const { fwmark, message } of problems) {
    if (fwmark !== null) reasons.set(fwmark, [reasons.get(fwmark) ?? [], message].flat().join("; "));
  }
  const targets = configuration.targets.map(({ stream, identifier, addresses }): TargetStatus => {
    const range = offsets.get(stream);
    const fwmark = range === undefined ? null : range.offset + identifier;
    const reason = fwmark === null ? "no fwmarks are left for its stream" : (reasons.get(fwmark) ?? error ?? "");
    return { stream, identifier, fwmark, addresses, state: reason === "" ? "ready" : "pending", reason };
  });
  return {
    phase: "serving",
    lastTurn,
    isServed,
    faults: problems.filter(({ fwmark }) => fwmark === null).map(({ message }) => message),
    vips: configuration.vips.map(({ prefix }) => prefix),
    streams: configuration.streams.map(({ name, maxTargets }) => ({
      name,
      maxTargets,
      offset: offsets.get(name)?.offset ?? null,
    })),
    flows: configuration.flows.map(({ name, stream, priority }) => ({ name, stream, priority })),
    targets,
  };
}
