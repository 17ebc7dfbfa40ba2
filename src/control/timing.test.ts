import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { MOST_PER_SECOND, ProbeRound } from "./probes.js";
import { TurnTimer } from "./turn-timer.js";
import { VerifySchedule } from "./verify-schedule.js";

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

/** Targets asked in so many seconds, ten calls a second. */
function asked(round: ProbeRound, fwmarks: readonly number[], seconds: number): readonly number[] {
  return Array.from({ length: seconds * 10 }, () => round.next(fwmarks, 100)).flat();
}

test("each target is asked once in an interval, evenly spread", () => {
  const fwmarks = Array.from({ length: 20 }, (_, i) => 5_001 + i);
  const round = new ProbeRound(5_000);
  const first = asked(round, fwmarks, 5);
  expect(first.toSorted((a, b) => a - b)).toEqual(fwmarks);
  expect(round.next(fwmarks, 100).length).toBeLessThanOrEqual(1);
});

test("with many targets the rate is limited, and with an interval of 0 nobody is asked", () => {
  const fwmarks = Array.from({ length: 1_000 }, (_, i) => 5_001 + i);
  expect(asked(new ProbeRound(5_000), fwmarks, 3)).toHaveLength(3 * MOST_PER_SECOND);
  expect(new Set(asked(new ProbeRound(5_000), fwmarks, 10)).size).toBe(1_000);
  expect(asked(new ProbeRound(0), fwmarks, 3)).toEqual([]);
  expect(asked(new ProbeRound(5_000), [], 3)).toEqual([]);
});

test("the earliest wish counts, and a turn is followed by a rest as long as it took", () => {
  let workMs = 30;
  const begun: number[] = [];
  const timer: TurnTimer = new TurnTimer(Date.now, () => {
    begun.push(Date.now() - zero);
    vi.setSystemTime(Date.now() + workMs);
    timer.wake(0);
  });
  const zero = Date.now();
  timer.wake(500);
  timer.wake(100);
  timer.wake(300);
  vi.advanceTimersByTime(99);
  expect(begun).toEqual([]);
  vi.advanceTimersByTime(1);
  expect(begun).toEqual([100]);
  workMs = 0;
  vi.advanceTimersByTime(29);
  expect(begun).toHaveLength(1);
  vi.advanceTimersByTime(1);
  expect(begun).toEqual([100, 160]);
  timer.stop();
  vi.advanceTimersByTime(10_000);
  expect(begun).toHaveLength(2);
});

test("a wish that comes alone is followed at once; in a storm of them rests grow to 8 ms", () => {
  const begun: number[] = [];
  const timer = new TurnTimer(Date.now, () => {
    begun.push(Date.now());
    vi.setSystemTime(Date.now() + 2);
  });
  const wishEach = (everyMs: number, count: number) => {
    begun.length = 0;
    for (let i = 0; i < count; i++) {
      timer.wake(0);
      vi.advanceTimersByTime(everyMs);
    }
    return begun.length;
  };
  expect(wishEach(20, 10)).toBe(10);
  const inStorm = wishEach(1, 500);
  expect(inStorm).toBeGreaterThan(30);
  expect(inStorm).toBeLessThan(70);
  vi.advanceTimersByTime(20);
  expect(wishEach(20, 10)).toBe(10);
  timer.wake(0);
  timer.stop();
  begun.length = 0;
  vi.advanceTimersByTime(100);
  expect(begun).toEqual([]);
});

test("reading back is due at once, again when what was made stands still, then in intervals, and waits for changes to end, but not for ever", () => {
  const schedule = new VerifySchedule(10_000);
  schedule.changed(3);
  expect([schedule.take(4), schedule.take(5), schedule.take(1_003), schedule.take(1_004)]).toEqual([
    true,
    false,
    false,
    true,
  ]);
  expect([schedule.take(11_003), schedule.take(11_004)]).toEqual([false, true]);
  schedule.changed(20_900);
  expect([schedule.take(21_004), schedule.take(21_899), schedule.take(21_900)]).toEqual([false, false, true]);
  const taken: number[] = [];
  for (let nowMs = 21_900; nowMs < 151_000; nowMs += 100) {
    schedule.changed(nowMs);
    if (schedule.take(nowMs)) taken.push(nowMs);
  }
  expect(taken).toEqual([81_900, 141_900]);
});
