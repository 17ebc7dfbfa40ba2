import { afterEach, expect, test, vi } from "vitest";
import { Beat } from "./nfqlb/beat.js";

afterEach(() => vi.useRealTimers());

test("everything is done with every n-th beat, until it is ended or the beat is", () => {
  vi.useFakeTimers();
  const done: string[] = [];
  const beat = new Beat(200);
  const end = beat.every(1, () => done.push("sample"));
  beat.every(3, () => done.push("sweep"));
  vi.advanceTimersByTime(600);
  expect(done).toEqual(["sample", "sample", "sample", "sweep"]);
  end();
  vi.advanceTimersByTime(600);
  expect(done.slice(4)).toEqual(["sweep"]);
  beat[Symbol.dispose]();
  vi.advanceTimersByTime(600);
  expect(done).toHaveLength(5);
});
