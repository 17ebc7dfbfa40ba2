/**
 * The states of a target, as pure functions.
 *
 *     (new) ──► ready ◄────────────── held, exponentially longer for one that flaps ◄─┐
 *       │         │ link or neighbor lost ──► unreachable ────────────────────────────┤ healed
 *       └─────────┴ no kernel state ────────► pending ────────────────────────────────┘
 *
 * A target that never was ready becomes so the moment its fault is gone.
 */
export type TargetState = {
  readonly kind: "ready" | "pending" | "unreachable";
  readonly cause: Cause | "";
  /** Why it is not ready, for people; "" for one that is. */
  readonly reason: string;
  /** When it came into this state; ms of the reconciler's clock. */
  readonly sinceMs: number;
  /** Times that it was ready and had to leave, as far as they are not forgotten. */
  readonly flaps: number;
  /** It is healed, and comes back then; null while it has a fault, and when it is ready. */
  readonly returnsAtMs: number | null;
  /** Its packets have a way that is only believed to be broken: better than none at all. */
  readonly isUsable: boolean;
};

/** Why a target is not ready, as a closed set for metrics. */
type Cause =
  | "noRoute"
  | "ownAddress"
  | "refused"
  | "foreignRoute"
  | "linkDown"
  | "noCarrier"
  | "neighborFailed"
  | "neighborUnknown";

/** What is wrong with a target now. */
export type Fault = {
  /** `pending`: the kernel has no rule or route for it; `unreachable`: it has, and they lead nowhere. */
  readonly kind: "pending" | "unreachable";
  readonly cause: Cause;
  readonly reason: string;
  readonly isUsable: boolean;
  /** Not a fault but a doubt: it keeps a target that was lost from coming back, and does not harm another one. */
  readonly isDoubt?: boolean;
};

/**
 * How long a target has to be whole before it comes back, after its first flap: longer than the swarm of events that one
 * change of a link brings, shorter than what anybody notices.
 */
export const FIRST_HOLD_MS = 200;
/** The hold doubles with each flap up to this: a target that flaps for ever moves flows twice in that time at most. */
export const LAST_HOLD_MS = 30_000;
/** A target that was ready for so long has a clean record again. */
export const FORGET_MS = 2 * LAST_HOLD_MS;

/** How long a target that has left so many times is held once it is healed, in ms. */
export function holdMs(flaps: number): number {
  return flaps === 0 ? 0 : Math.min(LAST_HOLD_MS, FIRST_HOLD_MS * 2 ** (flaps - 1));
}

/**
 * The state after `before`, which is returned as it is when nothing changed.
 * @param before null: a new target, or one whose addresses changed
 * @param fault what is wrong now, or null
 */
export function nextState(before: TargetState | null, fault: Fault | null, nowMs: number): TargetState {
  const wasLost = before !== null && before.kind !== "ready" && before.flaps > 0;
  if (fault === null || (fault.isDoubt === true && !wasLost)) return whole(before, nowMs);
  const { kind, cause, reason, isUsable } = fault;
  const isSame = before?.kind === kind && before.returnsAtMs === null;
  if (isSame && before.reason === reason && before.isUsable === isUsable) return before;
  return {
    kind,
    cause,
    reason,
    sinceMs: before === null || before.kind === "ready" ? nowMs : before.sinceMs,
    flaps: flapsOf(before, nowMs),
    returnsAtMs: null,
    isUsable,
  };
}

function whole(before: TargetState | null, nowMs: number): TargetState {
  if (before?.kind === "ready") return before;
  const flaps = before?.flaps ?? 0;
  const returnsAtMs = before?.returnsAtMs ?? nowMs + holdMs(flaps);
  if (before === null || returnsAtMs <= nowMs) {
    return { kind: "ready", cause: "", reason: "", sinceMs: nowMs, flaps, returnsAtMs: null, isUsable: true };
  }
  return before.returnsAtMs === null ? { ...before, returnsAtMs, isUsable: true } : before;
}

function flapsOf(before: TargetState | null, nowMs: number): number {
  if (before === null) return 0;
  if (before.kind !== "ready") return before.flaps;
  return (nowMs - before.sinceMs >= FORGET_MS ? 0 : before.flaps) + 1;
}

/**
 * Which targets of one stream get packets: those that are ready. Where none is, all that have a way at all: to lose
 * everything is no better than to try, and when the judgement was wrong (a broken link of ours looks like the death of
 * everybody behind it) nothing was lost.
 */
export function servedTargets<T extends { readonly state: TargetState }>(targets: readonly T[]): readonly T[] {
  const ready = targets.filter(({ state }) => state.kind === "ready");
  return ready.length > 0 ? ready : targets.filter(({ state }) => state.isUsable);
}
