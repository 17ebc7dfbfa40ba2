/** What is costly to make and comes again in each scrape. What a scrape does not ask for is forgotten after it. */
export class Kept<K, V> {
  readonly #entries = new Map<K, { value: V; scrape: number }>();
  #scrape = 0;

  /** A scrape begins. */
  begin(): void {
    for (const [key, { scrape }] of this.#entries) if (scrape !== this.#scrape) this.#entries.delete(key);
    this.#scrape++;
  }

  /** @param isRight whether the one that is kept still holds */
  get(key: K, isRight: (kept: V) => boolean, make: () => V): V {
    const entry = this.#entries.get(key);
    if (entry === undefined) {
      const value = make();
      this.#entries.set(key, { value, scrape: this.#scrape });
      return value;
    }
    entry.scrape = this.#scrape;
    if (!isRight(entry.value)) entry.value = make();
    return entry.value;
  }
}
