import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeEach, expect, onTestFinished, test } from "vitest";
import { KeptOffsets } from "./kept-offsets.js";

const first = { start: 5_000, isByName: false };
const ranges = new Map([["web", { offset: 5_000, maxTargets: 10 }]]);
let folder = "";
let lines: string[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "offsets-"));
  lines = [];
  onTestFinished(() => rmSync(folder, { recursive: true }));
});

function open(placement: typeof first): KeptOffsets {
  const ignore = () => {};
  const info = (message: string) => void lines.push(message);
  return new KeptOffsets(folder, placement, { trace: ignore, debug: ignore, info, warning: ignore, error: ignore });
}

test("a restart finds the ranges again", () => {
  expect(open(first).keep(ranges)).toEqual([]);
  expect(open(first).current).toEqual(ranges);
  expect(lines).toEqual([]);
});

test.each([
  ["another start", { ...first, start: 9_000 }],
  ["places by name", { ...first, isByName: true }],
])("with %s the ranges of an earlier run are dropped, told once, and the new ones are kept", (_what, placement) => {
  open(first).keep(ranges);
  const kept = open(placement);
  expect(kept.current).toEqual(new Map());
  expect(lines).toEqual(["fwmark ranges are given anew, the settings of their place have changed"]);
  const others = new Map([["web", { offset: 9_000, maxTargets: 10 }]]);
  kept.keep(others);
  expect(open(placement).current).toEqual(others);
  expect(lines).toHaveLength(1);
});

test("equal ranges are saved again for another place, so that the next change of it is noticed", () => {
  open(first).keep(new Map());
  const kept = open({ ...first, start: 9_000 });
  kept.keep(ranges);
  expect(open(first).current).toEqual(new Map());
});

test("ranges whose place was not saved are taken over and saved with it, and what cannot be read is nothing", () => {
  writeFileSync(join(folder, "stateless-lb.json"), JSON.stringify({ offsets: Object.fromEntries(ranges) }));
  const kept = open(first);
  expect(kept.current).toEqual(ranges);
  kept.keep(kept.current);
  expect(open({ ...first, start: 9_000 }).current).toEqual(new Map());
  writeFileSync(join(folder, "stateless-lb.json"), "{");
  expect(open(first).current).toEqual(new Map());
});
