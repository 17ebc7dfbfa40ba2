import { Worker } from "node:worker_threads";
import type { WorkerReady, WorkerSettings } from "#dataplane";
import { NetlinkSocket } from "#sys";

const NETLINK_NETFILTER = 12;
/** nlmsghdr of a NLMSG_NOOP: 16 bytes, type 1. Any message ends a blocking receive. */
const WAKE_UP = new Uint8Array(new Uint32Array([16, 1, 0, 0]).buffer);
/** A thread that fails sooner than this after its start is not started again at once. */
const STABLE_MS = 5_000;

/** What happens to the threads, for the log and for the program's end. */
export type ThreadEvents = {
  /** All queues are bound; called once. */
  readonly onAllReady: (ready: readonly WorkerReady[]) => void;
  /** A thread failed and is started again. */
  readonly onRestart: (queueNumber: number, error: unknown) => void;
  /** A queue cannot be served: its thread failed at its start, or again right after a restart. */
  readonly onFatal: (queueNumber: number, error: unknown) => void;
};

type Thread = { worker: Worker; ready: WorkerReady | null; startedMs: number };

/** The threads of all queues: started together, restarted one by one after a fault, stopped together. */
export class QueueThreads {
  readonly #stop = new Int32Array(new SharedArrayBuffer(4));
  readonly #waker = new NetlinkSocket(NETLINK_NETFILTER);
  readonly #threads: (Thread | null)[];
  readonly #settings: readonly WorkerSettings[];
  readonly #file: string;
  readonly #events: ThreadEvents;
  #isAllReadyTold = false;
  #onAllStopped: (() => void) | null = null;

  /** @param file the worker's JavaScript file */
  constructor(file: string, settings: readonly WorkerSettings[], events: ThreadEvents) {
    this.#file = file;
    this.#settings = settings;
    this.#events = events;
    this.#threads = settings.map(() => null);
    // A thread blocked in a receive would hold up the end of the process.
    process.on("exit", () => this.#askToStop());
    settings.forEach((_, index) => {
      this.#start(index);
    });
  }

  /** Lets every thread answer what is queued and end; resolves when all have. */
  stop(): Promise<void> {
    const stopped = new Promise<void>((resolve) => {
      this.#onAllStopped = resolve;
    });
    this.#askToStop();
    this.#tellIfAllStopped();
    return stopped;
  }

  get #isStopping(): boolean {
    return Atomics.load(this.#stop, 0) !== 0;
  }

  #askToStop(): void {
    Atomics.store(this.#stop, 0, 1);
    for (const thread of this.#threads) if (thread?.ready) this.#wake(thread.ready.portId);
  }

  /** The thread may be gone already, and its receive has a time-out of its own: a failed wake-up costs a second. */
  #wake(portId: number): void {
    try {
      this.#waker.sendTo(portId, WAKE_UP);
    } catch {
      // ECONNREFUSED: it has closed its socket.
    }
  }

  #start(index: number): void {
    const settings = this.#settings[index]!;
    const worker = new Worker(this.#file, { workerData: { settings, stop: this.#stop } });
    const thread: Thread = { worker, ready: null, startedMs: performance.now() };
    let fault: unknown = null;
    this.#threads[index] = thread;
    worker.on("message", (ready: WorkerReady) => {
      thread.ready = ready;
      if (this.#isStopping) this.#wake(ready.portId);
      this.#tellIfAllReady();
    });
    worker.on("error", (error) => {
      fault = error;
    });
    worker.on("exit", () => {
      this.#threads[index] = null;
      if (this.#isStopping) this.#tellIfAllStopped();
      else this.#recover(index, thread, fault);
    });
  }

  #recover(index: number, thread: Thread, fault: unknown): void {
    const { queueNumber } = this.#settings[index]!.queue;
    const hasServed = thread.ready !== null && performance.now() - thread.startedMs >= STABLE_MS;
    if (!hasServed) {
      this.#events.onFatal(queueNumber, fault);
      return;
    }
    this.#events.onRestart(queueNumber, fault);
    this.#start(index);
  }

  #tellIfAllReady(): void {
    if (this.#isAllReadyTold) return;
    const ready = this.#threads.map((thread) => thread?.ready ?? null);
    if (!ready.every((one) => one !== null)) return;
    this.#isAllReadyTold = true;
    this.#events.onAllReady(ready);
  }

  #tellIfAllStopped(): void {
    if (this.#onAllStopped === null || this.#threads.some((thread) => thread !== null)) return;
    this.#waker[Symbol.dispose]();
    this.#onAllStopped();
    this.#onAllStopped = null;
  }
}
