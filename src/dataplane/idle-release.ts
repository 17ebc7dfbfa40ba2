/** So many receives that find nothing, each of half a second, before each collection. */
const QUIET_RECEIVES = 6;
/** The engine gives half of its young generation back at the first collection that follows little allocation, the rest at the next one. */
const COLLECTIONS = 2;

/**
 * Gives back what the start of a queue's thread has left in its memory, once no packet has come for a while: 2.3 MiB per
 * thread. The packet loop leaves no garbage behind, so twice is enough for the thread's life; one that is never idle keeps its
 * memory. See decision 0076.
 */
export class IdleRelease {
  readonly #collect: () => void;
  #quiet = 0;
  #done = 0;

  /** @param collect collects all garbage: 3 to 6 ms, during which packets wait in the queue */
  constructor(collect: () => void) {
    this.#collect = collect;
  }

  /** A receive found nothing. */
  idle(): void {
    if (this.#done === COLLECTIONS || ++this.#quiet < QUIET_RECEIVES) return;
    this.#quiet = 0;
    this.#done++;
    this.#collect();
  }
}
