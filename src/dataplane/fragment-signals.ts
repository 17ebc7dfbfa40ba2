import { PACKET_LISTS } from "./held-fragments.js";

const BITS = 32;

/** Memory for the signals of `workers` threads; zero is "nobody waits". */
export function createSignalMemory(workers: number): SharedArrayBuffer {
  return new SharedArrayBuffer((2 * workers + 2 * PACKET_LISTS * groupsOf(workers)) * 4);
}

const groupsOf = (workers: number) => Math.ceil(workers / BITS);

/**
 * How threads tell each other that a first fragment has come, when several queues bring fragments of one packet. A
 * thread that holds a fragment sets its bit among those who wait for the packet's queue, and then looks at the records
 * once more; a thread that has written a record then looks who waits. Atomics are sequentially consistent, so one of
 * the two sees the other. The one who waits is woken by a message to its netlink port, and not twice.
 *
 * Shared words: per worker a flag "was woken" and its port; per queue and 32 workers a set of those who wait, and of
 * those whose first fragment may have come. Nobody waits for a word; allocates nothing after construction.
 */
export class FragmentSignals {
  readonly #words: Int32Array;
  readonly #worker: number;
  readonly #workers: number;
  readonly #groups: number;
  readonly #waiting: number;
  readonly #ready: number;
  readonly #wake: (portId: number) => void;

  /** @param wake ends the blocking receive of the thread with this netlink port; may fail: then that thread is awake */
  constructor(memory: SharedArrayBuffer, worker: number, workers: number, wake: (portId: number) => void) {
    this.#words = new Int32Array(memory);
    this.#worker = worker;
    this.#workers = workers;
    this.#groups = groupsOf(workers);
    this.#waiting = 2 * workers;
    this.#ready = this.#waiting + PACKET_LISTS * this.#groups;
    this.#wake = wake;
    Atomics.store(this.#words, worker, 0); // what a thread that died has left: no wake-up for it is on its way
    for (let list = 0; list < PACKET_LISTS; list++) {
      this.stopWaiting(list);
      this.takeReady(list);
    }
  }

  /** Makes the thread's netlink port known. */
  setPort(portId: number): void {
    Atomics.store(this.#words, this.#workers + this.#worker, portId);
  }

  /** The thread holds fragments of packets in this queue. */
  wait(list: number): void {
    Atomics.or(this.#words, this.#wordOf(this.#waiting, list), this.#bit);
  }

  stopWaiting(list: number): void {
    Atomics.and(this.#words, this.#wordOf(this.#waiting, list), ~this.#bit);
  }

  /** A record of a packet in this queue was written: wakes all other threads that hold fragments of such packets. */
  tellOthers(list: number): void {
    for (let group = 0; group < this.#groups; group++) {
      const waiting = Atomics.load(this.#words, this.#waiting + list * this.#groups + group);
      const others = group === this.#worker >> 5 ? waiting & ~this.#bit : waiting;
      if (others === 0) continue;
      Atomics.or(this.#words, this.#ready + list * this.#groups + group, others);
      for (let bit = 0; bit < BITS; bit++) if ((others & (1 << bit)) !== 0) this.#tell(group * BITS + bit);
    }
  }

  /** Whether the thread was woken since the last call. */
  takeWoken(): boolean {
    if (Atomics.load(this.#words, this.#worker) === 0) return false;
    Atomics.store(this.#words, this.#worker, 0); // before it looks who is ready: what comes later wakes it anew
    return true;
  }

  /** Whether a record was written, since the last call, for a queue in which the thread waits. */
  takeReady(list: number): boolean {
    const word = this.#wordOf(this.#ready, list);
    if ((Atomics.load(this.#words, word) & this.#bit) === 0) return false;
    Atomics.and(this.#words, word, ~this.#bit);
    return true;
  }

  #tell(worker: number): void {
    if (Atomics.exchange(this.#words, worker, 1) === 0) this.#wake(Atomics.load(this.#words, this.#workers + worker));
  }

  get #bit(): number {
    return 1 << (this.#worker & (BITS - 1));
  }

  #wordOf(area: number, list: number): number {
    return area + list * this.#groups + (this.#worker >> 5);
  }
}
