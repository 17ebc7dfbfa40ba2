/** Largest prime not above 997² = 994009, the bound of nfqlb's sieve (nfqlb 1.2.0 src/lib/prime.c). */
export const MAX_SIZE = 993_997;

/**
 * Largest prime ≤ `n`, as nfqlb's `primebelow`: n above 994009 gives 993997; below 4 it is n itself. `n` is a whole
 * number ≥ 2.
 */
export function primeBelow(n: number): number {
  let candidate = Math.min(n, MAX_SIZE);
  if (candidate < 4) return candidate;
  if (candidate % 2 === 0) candidate--;
  while (!isOddPrime(candidate)) candidate -= 2;
  return candidate;
}

function isOddPrime(n: number): boolean {
  for (let divisor = 3; divisor * divisor <= n; divisor += 2) if (n % divisor === 0) return false;
  return true;
}

/** Positions of a lookup table for which `requested` were asked: 3 at least, else the largest prime not above. */
export function effectiveSize(requested: number): number {
  return requested < 3 ? 3 : primeBelow(requested);
}
