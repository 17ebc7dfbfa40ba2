import type { Failure, PathFault, Refusal } from "#steering";
import type { DesiredTarget } from "./desired.js";
import { type Fault, nextState, servedTargets, type TargetState } from "./target-state.js";

/** A target and how it does. */
export type KnownTarget = { readonly target: DesiredTarget; readonly state: TargetState };

/** By fwmark. One whose target and state are as before is the same object. */
export type KnownTargets = ReadonlyMap<number, KnownTarget>;

/** What became of all targets in one turn. */
export type Judgement = {
  readonly known: KnownTargets;
  /** fwmarks that get packets; the same set as before when nothing about any target changed. */
  readonly served: ReadonlySet<number>;
  /** Those whose kind of state or cause is another one than before, new ones that are not ready among them. */
  readonly changed: readonly KnownTarget[];
  /** When the next held target comes back, or Infinity. */
  readonly nextReturnMs: number;
};

/** The judgement before the first. */
export const NOBODY: Judgement = {
  known: new Map(),
  served: new Set(),
  changed: [],
  nextReturnMs: Number.POSITIVE_INFINITY,
};

/** Judges every target by what the kernel refused and where its path is broken. Pure. */
export function judge(
  targets: readonly DesiredTarget[],
  before: Pick<Judgement, "known" | "served">,
  faults: ReadonlyMap<number, Fault>,
  nowMs: number,
): Judgement {
  const all: KnownTarget[] = [];
  const changed: KnownTarget[] = [];
  let nextReturnMs = Number.POSITIVE_INFINITY;
  let isSame = targets.length === before.known.size;
  for (const target of targets) {
    const last = before.known.get(target.fwmark);
    const lastState = last !== undefined && isSameTarget(last.target, target) ? last.state : null;
    const state = nextState(lastState, faults.get(target.fwmark) ?? null, nowMs);
    const one = last?.target === target && last.state === state ? last : { target, state };
    all.push(one);
    isSame &&= one === last;
    const isNews = one.state.kind !== (lastState?.kind ?? "ready") || one.state.cause !== (lastState?.cause ?? "");
    if (isNews) changed.push(one);
    nextReturnMs = Math.min(nextReturnMs, one.state.returnsAtMs ?? Number.POSITIVE_INFINITY);
  }
  if (isSame) return { known: before.known, served: before.served, changed, nextReturnMs };
  const known = new Map<number, KnownTarget>();
  const byStream = new Map<string, KnownTarget[]>();
  for (const one of all) {
    known.set(one.target.fwmark, one);
    const others = byStream.get(one.target.stream);
    if (others === undefined) byStream.set(one.target.stream, [one]);
    else others.push(one);
  }
  const served = new Set<number>();
  for (const stream of byStream.values()) for (const { target } of servedTargets(stream)) served.add(target.fwmark);
  return { known, served, changed, nextReturnMs };
}

/** fwmarks of the targets that have a way: those that are ready, and the others. */
export function usableMarks(known: KnownTargets): {
  readonly ready: readonly number[];
  readonly lost: readonly number[];
} {
  const marks = { ready: [] as number[], lost: [] as number[] };
  for (const { target, state } of known.values())
    if (state.isUsable) marks[state.kind === "ready" ? "ready" : "lost"].push(target.fwmark);
  return marks;
}

function isSameTarget(a: DesiredTarget, b: DesiredTarget): boolean {
  if (a === b) return true;
  const isSamePlace = a.stream === b.stream && a.identifier === b.identifier;
  return isSamePlace && (a.addresses === b.addresses || a.addresses.join() === b.addresses.join());
}

/** What the kernel refused and where paths are broken, as faults of targets by fwmark. Pure. */
export function faultsOf(
  failures: readonly Failure[],
  refusals: readonly Refusal[],
  broken: ReadonlyMap<number, PathFault>,
): ReadonlyMap<number, Fault> {
  const faults = new Map<number, Fault>();
  for (const [fwmark, { kind: cause, text: reason }] of broken) {
    if (cause === "ownAddress") faults.set(fwmark, { kind: "pending", cause, reason, isUsable: false });
    else {
      const isDoubt = cause === "neighborUnknown";
      const isUsable = cause !== "linkDown" && cause !== "foreignRoute";
      faults.set(fwmark, { kind: "unreachable", cause, reason, isUsable, isDoubt });
    }
  }
  for (const { fwmark, errno, message } of failures) {
    if (fwmark === null) continue;
    const known = faults.get(fwmark);
    const reason = known?.kind === "pending" ? `${known.reason}; ${message}` : message;
    faults.set(fwmark, { kind: "pending", cause: causeOf(errno), reason, isUsable: false });
  }
  for (const { fwmark, reason } of refusals) {
    if (fwmark !== null) faults.set(fwmark, { kind: "pending", cause: "refused", reason, isUsable: false });
  }
  return faults;
}

function causeOf(errno: string): Fault["cause"] {
  if (errno === "EADDRINUSE") return "ownAddress";
  return errno === "ENETUNREACH" || errno === "EHOSTUNREACH" ? "noRoute" : "refused";
}
