import { expect, test } from "vitest";
import { IdleRelease } from "./idle-release.js";

test("after every sixth receive that found nothing garbage is collected, twice in all", () => {
  let collections = 0;
  const release = new IdleRelease(() => collections++);
  const seen = Array.from({ length: 18 }, () => {
    release.idle();
    return collections;
  });
  expect(seen).toEqual([0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2]);
});
