/** What is costly to make and comes again in each scrape. What a scrape does not ask for is forgotten after it. */
export class Kept<K, V> {
  #last: ReadonlyMap<K, V> = new Map();
  #now = new Map<K, V>();

  /** A scrape begins. */
  begin(): void {
    this.#last = this.#now;
    this.#now = new Map();
  }

  /** @param isRight whether the one that is kept still holds */
  get(key: K, isRight: (kept: V) => boolean, make: () => V): V {
    const kept = this.#last.get(key);
    const value = kept !== undefined && isRight(kept) ? kept : make();
    this.#now.set(key, value);
    return value;
  }
}
