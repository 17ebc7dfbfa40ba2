/** A whole number 0…limit-1. */
export type Random = (limit: number) => number;

/** xorshift32: the same numbers for the same seed. */
export function randomNumbers(seed: number): Random {
  let state = Math.imul(seed, 2_654_435_761) >>> 0 || 1;
  return (limit) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state % limit;
  };
}

export function pick<T>(random: Random, values: readonly T[]): T {
  return values[random(values.length)]!;
}
