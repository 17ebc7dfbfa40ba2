import { expect, test } from "vitest";
import { RepairStorms } from "./repair-storms.js";

test("one thing that is put right more than ten times in a minute is a storm, told once until it has passed", () => {
  const storms = new RepairStorms();
  for (let i = 0; i < 10; i++) expect(storms.repaired(["a", `other ${i}`], i * 5_000)).toEqual([]);
  expect(storms.repaired(["a"], 50_000)).toEqual([{ what: "a", count: 11, lastMs: 50_000 }]);
  expect(storms.repaired(["a"], 51_000)).toEqual([]);
  expect(storms.now(52_000)).toEqual([{ what: "a", count: 12, lastMs: 51_000 }]);
  expect(storms.now(70_000)).toEqual([]); // those of the first seconds are older than a minute
  expect(storms.now(120_000)).toEqual([]);
  for (let i = 0; i < 10; i++) storms.repaired(["a"], 200_000);
  expect(storms.repaired(["a"], 200_000)).toHaveLength(1);
});

test("repairs that are further apart are none", () => {
  const storms = new RepairStorms();
  for (let i = 0; i < 100; i++) expect(storms.repaired(["a"], i * 6_000)).toEqual([]);
});
