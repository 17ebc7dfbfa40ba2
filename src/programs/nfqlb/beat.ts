/** Time between two beats. */
const BEAT_MS = 200;

/**
 * One timer for all that the data plane's main thread does again and again: each wake-up of a thread that sleeps costs some
 * 0.1 ms, more than what is done then. Does not keep the process alive.
 */
export class Beat implements Disposable {
  readonly #works = new Set<{ readonly beats: number; readonly work: () => void }>();
  readonly #timer: NodeJS.Timeout;
  #count = 0;

  constructor(beatMs = BEAT_MS) {
    this.#timer = setInterval(() => this.#beat(), beatMs).unref();
  }

  /** Has something done with every n-th beat, until the result is called. */
  every(beats: number, work: () => void): () => void {
    const entry = { beats, work };
    this.#works.add(entry);
    return () => {
      this.#works.delete(entry);
    };
  }

  #beat(): void {
    this.#count++;
    for (const { beats, work } of this.#works) if (this.#count % beats === 0) work();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}
