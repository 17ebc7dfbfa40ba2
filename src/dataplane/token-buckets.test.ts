import { expect, test } from "vitest";
import { TokenBuckets } from "./token-buckets.js";

const PACKET = 2;
const FLOWS = 64;

test("each selection has a rate of its own, at most a second's worth at once", () => {
  const refused: number[] = [];
  const buckets = new TokenBuckets(10);
  const take = (selected: number, times: number) => {
    let taken = 0;
    for (let i = 0; i < times; i++)
      taken += buckets.take(selected, { suppress: (bit) => refused.push(bit) }) === 0 ? 0 : 1;
    return taken;
  };
  expect(take(PACKET, 25)).toBe(10);
  expect(refused).toEqual(Array.from({ length: 15 }, () => 1));
  expect(buckets.take(PACKET | FLOWS, { suppress: () => {} })).toBe(FLOWS); // the flood has not used up the other's
  buckets.fill(350);
  expect(take(PACKET, 25)).toBe(3);
  buckets.fill(1e9);
  expect(take(PACKET, 25)).toBe(10);
});
