import fc from "fast-check";
import { expect, test } from "vitest";
import {
  type Fault,
  FIRST_HOLD_MS,
  FORGET_MS,
  holdMs,
  LAST_HOLD_MS,
  nextState,
  servedTargets,
  type TargetState,
} from "./target-state.js";

const lost: Fault = { kind: "unreachable", cause: "noCarrier", reason: "t1 has no carrier", isUsable: true };
const refused: Fault = { kind: "pending", cause: "noRoute", reason: "no way", isUsable: false };
const doubt: Fault = { kind: "unreachable", cause: "neighborUnknown", reason: "?", isUsable: true, isDoubt: true };

/** The states after each of these faults, at these times. */
function history(...events: readonly (readonly [atMs: number, fault: Fault | null])[]): TargetState {
  return events.reduce<TargetState | null>((state, [atMs, fault]) => nextState(state, fault, atMs), null)!;
}

test("a new target is ready at once, or as soon as its fault is gone", () => {
  expect(history([5, null])).toMatchObject({ kind: "ready", sinceMs: 5, flaps: 0 });
  expect(history([5, doubt])).toMatchObject({ kind: "ready" });
  expect(history([5, refused], [9, null])).toMatchObject({ kind: "ready", sinceMs: 9, flaps: 0 });
  expect(history([5, lost], [9, doubt])).toMatchObject({ kind: "ready" });
});

test("a target that was ready leaves at once, is held when it is healed, and comes back in time", () => {
  const away = history([0, null], [10, lost]);
  expect(away).toMatchObject({ kind: "unreachable", reason: "t1 has no carrier", sinceMs: 10, returnsAtMs: null });
  const held = nextState(away, null, 50);
  expect(held).toMatchObject({ kind: "unreachable", sinceMs: 10, returnsAtMs: 50 + FIRST_HOLD_MS, isUsable: true });
  expect(nextState(held, null, 49 + FIRST_HOLD_MS)).toBe(held);
  expect(nextState(held, null, 50 + FIRST_HOLD_MS)).toMatchObject({ kind: "ready", sinceMs: 50 + FIRST_HOLD_MS });
});

test("one that was lost does not come back before its neighbor has answered", () => {
  const doubted = history([0, null], [10, lost], [20, doubt]);
  expect(doubted).toMatchObject({ kind: "unreachable", cause: "neighborUnknown", returnsAtMs: null });
  expect(nextState(doubted, doubt, 1_000_000)).toBe(doubted);
  expect(nextState(doubted, null, 1_000_000).returnsAtMs).toBe(1_000_000 + FIRST_HOLD_MS);
});

test("a fault while it is held starts the hold anew, and is no flap of its own", () => {
  const again = history([0, null], [10, lost], [50, null], [100, lost]);
  expect(again).toMatchObject({ returnsAtMs: null, flaps: 1, sinceMs: 10 });
  expect(nextState(again, null, 200)).toMatchObject({ returnsAtMs: 200 + FIRST_HOLD_MS });
});

test("each flap doubles the hold up to a limit; a target that stays ready long enough has a clean record", () => {
  let state = history([0, null]);
  let nowMs = 0;
  const holds: number[] = [];
  for (let flap = 0; flap < 12; flap++) {
    nowMs += 10;
    state = nextState(nextState(state, lost, nowMs), null, nowMs);
    holds.push(state.returnsAtMs! - nowMs);
    nowMs = state.returnsAtMs!;
    state = nextState(state, null, nowMs);
  }
  expect(holds.slice(0, 4)).toEqual([200, 400, 800, 1_600]);
  expect(holds.at(-1)).toBe(LAST_HOLD_MS);
  expect(nextState(state, lost, nowMs + FORGET_MS).flaps).toBe(1);
});

test("nothing is new while nothing changes: the same object comes back", () => {
  const faults: fc.Arbitrary<Fault | null> = fc.constantFrom(null, lost, refused, doubt);
  const histories = fc.array(fc.tuple(fc.nat(5_000), faults), { minLength: 1, maxLength: 30 });
  const holds = fc.property(histories, (steps) => {
    let state = null as TargetState | null;
    let nowMs = 0;
    for (const [passedMs, fault] of steps) {
      nowMs += passedMs;
      const next: TargetState = nextState(state, fault, nowMs);
      expect(nextState(next, fault, nowMs)).toBe(next);
      if (state?.kind === "ready" && next.kind !== "ready") expect(next.sinceMs).toBe(nowMs);
      if (next.kind === "ready") expect(fault === null || fault.isDoubt === true).toBe(true);
      if (next.returnsAtMs !== null) expect(next.returnsAtMs - nowMs).toBeLessThanOrEqual(holdMs(next.flaps));
      state = next;
    }
  });
  fc.assert(holds);
});

test("who gets packets: the ready; where nobody is, all that have a way", () => {
  const target = (...events: readonly (readonly [number, Fault | null])[]) => ({ state: history(...events) });
  const ready = target([0, null]);
  const away = target([0, null], [1, lost]);
  const out = target([0, refused]);
  expect(servedTargets([ready, away, out])).toEqual([ready]);
  expect(servedTargets([away, out])).toEqual([away]);
  expect(servedTargets([out])).toEqual([]);
});
