import type { Failure, PathFault, Refusal } from "#steering";
import type { DesiredTarget } from "./desired.js";
import { type Fault, nextState, servedTargets, type TargetState } from "./target-state.js";

/** A target and how it does. */
export type KnownTarget = { readonly target: DesiredTarget; readonly state: TargetState };

/** By stream and identifier. */
export type KnownTargets = ReadonlyMap<string, KnownTarget>;

/** What became of all targets in one turn. */
export type Judgement = {
  readonly known: KnownTargets;
  /** fwmarks that get packets. */
  readonly served: ReadonlySet<number>;
  /** Those whose kind of state or cause is another one than before, new ones that are not ready among them. */
  readonly changed: readonly KnownTarget[];
  /** When the next held target comes back, or Infinity. */
  readonly nextReturnMs: number;
};

/** Judges every target by what the kernel refused and where its path is broken. Pure. */
export function judge(
  targets: readonly DesiredTarget[],
  before: KnownTargets,
  faults: ReadonlyMap<number, Fault>,
  nowMs: number,
): Judgement {
  const known = new Map<string, KnownTarget>();
  const byStream = new Map<string, KnownTarget[]>();
  const changed: KnownTarget[] = [];
  let nextReturnMs = Number.POSITIVE_INFINITY;
  for (const target of targets) {
    const key = `${target.stream}\n${target.identifier}`;
    const last = before.get(key);
    const lastState = last !== undefined && isSameTarget(last.target, target) ? last.state : null;
    const one = { target, state: nextState(lastState, faults.get(target.fwmark) ?? null, nowMs) };
    known.set(key, one);
    const others = byStream.get(target.stream);
    if (others === undefined) byStream.set(target.stream, [one]);
    else others.push(one);
    const isNews = one.state.kind !== (lastState?.kind ?? "ready") || one.state.cause !== (lastState?.cause ?? "");
    if (isNews) changed.push(one);
    nextReturnMs = Math.min(nextReturnMs, one.state.returnsAtMs ?? Number.POSITIVE_INFINITY);
  }
  const served = [...byStream.values()].flatMap((stream) => servedTargets(stream).map(({ target }) => target.fwmark));
  return { known, served: new Set(served), changed, nextReturnMs };
}

function isSameTarget(a: DesiredTarget, b: DesiredTarget): boolean {
  return a.fwmark === b.fwmark && (a.addresses === b.addresses || a.addresses.join() === b.addresses.join());
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
      faults.set(fwmark, { kind: "unreachable", cause, reason, isUsable: cause !== "linkDown", isDoubt });
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
