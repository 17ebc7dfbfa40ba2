import { expect, test } from "vitest";
import { randomNumbers } from "../../test/harness/random.js";
import { paint } from "./paint.js";

test("each port belongs to the first rule that takes it; rules behind others at every port are not seen", () => {
  const random = randomNumbers(3);
  for (let round = 0; round < 200; round++) {
    const most = [1, 4, 50, 60_000][round % 4]!;
    const port = () => [0, 1, 65_535, random(65_536), random(100)][random(5)]!;
    const rangesOf = Array.from({ length: 1 + random(40) }, () => {
      if (random(12) === 0) return null;
      const ranges: number[] = [];
      for (let low = port(); low <= 65_535 && ranges.length < random(4); ) {
        const last = Math.min(65_535, low + random(most));
        ranges.push((low << 16) | last);
        low = last + 1 + random(most);
      }
      return Int32Array.from(ranges);
    });
    const hides = rangesOf.map(() => random(4) > 0);
    const takes = (rule: number, at: number) =>
      rangesOf[rule]?.some((range) => range >>> 16 <= at && at <= (range & 0xffff)) ?? rangesOf[rule] === null;
    const rules = [...rangesOf.keys()];
    const seen: number[] = [];
    const { first, owner } = paint(
      rules,
      (rule) => rangesOf[rule]!,
      (rule) => hides[rule]!,
      seen,
    );
    const reached = new Set<number>();
    const borders = rangesOf.flatMap((ranges) =>
      [...(ranges ?? [])].flatMap((range) => [range >>> 16, range & 0xffff]),
    );
    for (const at of new Set([0, 65_535, ...borders.flatMap((border) => [border - 1, border, border + 1])])) {
      if (at < 0 || at > 65_535) continue;
      const wanted = rules.find((rule) => hides[rule]! && takes(rule, at)) ?? -1;
      const place = first.findLastIndex((border) => border <= at);
      expect(owner[place]).toBe(wanted);
      for (const rule of rules) if (takes(rule, at) && (wanted < 0 || rule <= wanted)) reached.add(rule);
    }
    expect(seen).toEqual(rules.filter((rule) => reached.has(rule)));
  }
});
