import type { RingWriter } from "#tables";

/** Selections, by bit number. */
const BUCKETS = 7;

/** One token bucket per selection: a second's worth at most, filled as time goes by. Allocates nothing after construction. */
export class TokenBuckets {
  readonly #perSecond: number;
  readonly #tokens: Float64Array;

  constructor(perSecond: number) {
    this.#perSecond = perSecond;
    this.#tokens = new Float64Array(BUCKETS).fill(perSecond);
  }

  /** Adds what `elapsedMs` brings. */
  fill(elapsedMs: number): void {
    const tokens = this.#tokens;
    const added = (this.#perSecond * Math.min(elapsedMs, 1_000)) / 1_000;
    for (let bit = 0; bit < BUCKETS; bit++) tokens[bit] = Math.min(this.#perSecond, tokens[bit]! + added);
  }

  /**
   * Takes a token for each selection of the mask.
   * @returns those that had one; of the others each is counted in `refused`
   */
  take(selected: number, refused: Pick<RingWriter, "suppress">): number {
    const tokens = this.#tokens;
    let allowed = 0;
    for (let bit = 0; bit < BUCKETS; bit++) {
      if (((selected >> bit) & 1) === 0) continue;
      if (tokens[bit]! >= 1) {
        tokens[bit]!--;
        allowed |= 1 << bit;
      } else {
        refused.suppress(bit);
      }
    }
    return allowed;
  }
}
