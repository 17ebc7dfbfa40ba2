import { expect, test } from "vitest";
import { InstanceState } from "./stateless-lb/instance-state.js";

test("what turns did adds up, by duration too", () => {
  const state = new InstanceState({}, null, () => null);
  const turn = { kernelSteps: 5, failedSteps: 2, repairs: 3, error: null };
  state.takeTurn({ ...turn, durationMs: 2 });
  state.takeTurn({ ...turn, durationMs: 3_000, repairs: 1, error: "broke off" });
  state.dataPlaneDied();
  state.dataPlaneDied();
  const numbers = state.numbers(false);
  expect(numbers).toMatchObject({ kernelSteps: 10, failedSteps: 4, repairs: 4, failedTurns: 1, dataPlaneDeaths: 2 });
  expect(numbers.turns.seconds).toBeCloseTo(3.002, 9);
  expect(Array.from(numbers.turns.counts)).toEqual([0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
});
