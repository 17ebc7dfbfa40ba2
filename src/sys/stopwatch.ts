import { check, libc } from "./libc.js";

const CLOCK_MONOTONIC = 1;
/** `struct timespec` of 64 bits: tv_sec and tv_nsec, of which the low words are enough for short times. */
const SECONDS = 0;
const NANOSECONDS = 2;

/**
 * Measures short times for the packet path: clock_gettime(2) into memory of its own. Allocates nothing, which
 * `performance.now()` and `process.hrtime` do.
 */
export class Stopwatch {
  readonly #now = new Uint32Array(4);
  readonly #start = new Float64Array(1);

  start(): void {
    this.#start[0] = this.#read();
  }

  /** Microseconds since `start`, rounded; at most 35 minutes, so that it stays a small integer. */
  elapsedUs(): number {
    return ((this.#read() - this.#start[0]! + 500) / 1_000) | 0;
  }

  #read(): number {
    check("clock_gettime", libc.clock_gettime(CLOCK_MONOTONIC, this.#now));
    return this.#now[SECONDS]! * 1e9 + this.#now[NANOSECONDS]!;
  }
}
