import { expect, test } from "vitest";
import { describe as describeRun, fuzz, seedOf, TARGETS } from "../../scripts/fuzz.mjs";
import type { RunResult } from "./run.js";

const results = new Map<string, RunResult>();

test("generated input is treated as the slow models treat it", { timeout: 600_000 }, async () => {
  const wishes = Object.entries(TARGETS).map(([target, cases]) => ({
    target: target as keyof typeof TARGETS,
    seed: seedOf(undefined),
    cases,
  }));
  await fuzz(wishes, (result) => {
    console.log(describeRun(result));
    results.set(result.target, result);
  });
  expect([...results.keys()].toSorted()).toEqual(Object.keys(TARGETS).toSorted());
});

test.each(Object.entries(TARGETS))(
  "%s: no case of %i fails, and everything that can happen happens",
  (target, cases) => {
    const { failure, cases: checked, corpus, seen } = results.get(target)!;
    expect(failure).toBeNull();
    expect(checked).toBeGreaterThanOrEqual(cases);
    expect(corpus).toBeGreaterThan(0);
    for (const [what, count] of Object.entries(seen))
      expect(count, what).toBeGreaterThan(what === "rules at most" ? 4 : cases / 5_000);
  },
);
