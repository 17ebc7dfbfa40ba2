import { setTimeout as delay } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import type { WorkerSettings } from "#dataplane";
import { type QueueSocket, readQueueStates } from "#netlink/queue";
import { NetlinkSocket } from "#sys";

const NETLINK_NETFILTER = 12;
/** nlmsghdr of a NLMSG_NOOP: 16 bytes, type 1. Any message ends a blocking receive. */
const WAKE_UP = new Uint8Array(new Uint32Array([16, 1, 0, 0]).buffer);
/** A thread that serves this long has nothing to do with the fault before it. */
const STABLE_MS = 5_000;
/** Faults one after the other: the first restart is at once, further ones after a wait that doubles, up to the last. */
const FIRST_BACKOFF_MS = 20;
const LAST_BACKOFF_MS = 1_000;
/** So many faults in a row mean that the queue cannot be served: 15 s of them. */
const MOST_FAULTS = 20;
/** What gathered while there was no thread has this long to be worked off. */
const BACKLOG_DEADLINE_MS = 1_000;
const BACKLOG_POLL_MS = 5;
/** A thread that does not get as far as serving in this time hangs. */
const START_DEADLINE_MS = 10_000;
/** A thread that hangs and is ended is gone by then, unless it blocks outside of JavaScript. */
const END_DEADLINE_MS = 1_000;
/** A thread that has not ended by then after it was told to is left behind. */
const STOP_DEADLINE_MS = 700;

/** What happens to the threads, for the log and for the program's end. */
export type ThreadEvents = {
  /** A thread failed and is started again after `inMs`; the other queues are served meanwhile. */
  readonly onRestart: (queueNumber: number, error: unknown, inMs: number) => void;
  /** A queue cannot be served: its thread never began to, fails again and again, or hangs and cannot be ended. */
  readonly onFatal: (queueNumber: number, error: unknown) => void;
};

/** A queue to serve: its socket, and what its thread needs. */
export type ServedQueue = { readonly socket: QueueSocket; readonly settings: WorkerSettings };

type Thread = {
  readonly queue: ServedQueue;
  worker: Worker | null;
  /** Whether the worker has begun to serve; `hasServed`: whether any has. */
  isServing: boolean;
  /** Why the worker ends, where it is known before. */
  fault: unknown;
  isReady: boolean;
  hasServed: boolean;
  startedMs: number;
  faults: number;
};

/** The threads of all queues: started together, restarted one by one after a fault or when they hang, stopped together. */
export class QueueThreads {
  /** Resolves when every queue is being served. */
  readonly ready: Promise<void>;
  readonly #stop = new Int32Array(new SharedArrayBuffer(4));
  readonly #waker = new NetlinkSocket(NETLINK_NETFILTER);
  readonly #threads: readonly Thread[];
  readonly #file: string;
  readonly #events: ThreadEvents;
  #tellReady: () => void = () => {};
  #tellStopped: () => void = () => {};

  /**
   * @param file the worker's JavaScript file
   * @param queues bound sockets; they stay the caller's, who closes them after {@link stop}
   */
  constructor(file: string, queues: readonly ServedQueue[], events: ThreadEvents) {
    this.#file = file;
    this.#events = events;
    this.#threads = queues.map((queue) => ({
      queue,
      worker: null,
      isServing: false,
      fault: null,
      isReady: false,
      hasServed: false,
      startedMs: 0,
      faults: 0,
    }));
    this.ready = new Promise((resolve) => {
      this.#tellReady = resolve;
    });
    // A thread blocked in a receive would hold up the end of the process.
    process.on("exit", this.#askToStop);
    for (const thread of this.#threads) this.#start(thread);
  }

  /**
   * Ends the inflow, lets every thread answer what is queued and end. Resolves when all have, with true, or with false
   * after a deadline: a thread hangs.
   */
  async stop(): Promise<boolean> {
    for (const { queue } of this.#threads) queue.socket.stopFilling();
    let deadline: NodeJS.Timeout | undefined;
    const hasStopped = await new Promise<boolean>((resolve) => {
      this.#tellStopped = () => resolve(true);
      deadline = setTimeout(() => resolve(false), STOP_DEADLINE_MS);
      this.#askToStop();
      this.#tellIfStopped();
    });
    clearTimeout(deadline);
    process.off("exit", this.#askToStop);
    this.#waker[Symbol.dispose]();
    return hasStopped;
  }

  /**
   * Ends the thread of a queue, which hangs, so that another one takes its place as after a fault. One that has yet to begin
   * gets its time; no more than one attempt is made.
   */
  replace(queueNumber: number): void {
    const thread = this.#threads.find(({ queue }) => queue.socket.queueNumber === queueNumber)!;
    const { worker, queue } = thread;
    if (worker === null || thread.fault !== null || this.#isStopping) return;
    if (!thread.isServing && performance.now() - thread.startedMs < START_DEADLINE_MS) return;
    thread.fault = new Error("it hung, and was ended");
    void worker.terminate();
    this.#wake(queue.socket.portId); // it may have come to itself, and wait for packets now
    setTimeout(() => {
      if (thread.worker === worker)
        this.#events.onFatal(queueNumber, new Error("its thread hangs and cannot be ended"));
    }, END_DEADLINE_MS).unref();
  }

  get #isStopping(): boolean {
    return Atomics.load(this.#stop, 0) !== 0;
  }

  readonly #askToStop = (): void => {
    Atomics.store(this.#stop, 0, 1);
    for (const { worker, queue } of this.#threads) if (worker !== null) this.#wake(queue.socket.portId);
  };

  /** A receive has a time-out of its own: a wake-up that fails for want of room costs half a second. */
  #wake(portId: number): void {
    try {
      this.#waker.sendTo(portId, WAKE_UP);
    } catch {
      // EAGAIN: the buffer is full, so the thread is awake.
    }
  }

  #start(thread: Thread): void {
    const worker = new Worker(this.#file, { workerData: { settings: thread.queue.settings, stop: this.#stop } });
    thread.worker = worker;
    thread.isServing = false;
    thread.fault = null;
    thread.isReady = false;
    thread.startedMs = performance.now();
    worker.on("message", () => {
      thread.isServing = true;
      thread.hasServed = true;
      void this.#workOff(thread, worker);
    });
    worker.on("error", (error) => {
      thread.fault = error;
    });
    worker.on("exit", () => {
      thread.worker = null;
      if (this.#isStopping) this.#tellIfStopped();
      else this.#recover(thread);
    });
  }

  /**
   * Once the packets that gathered fit the queue it takes its usual length, and the thread counts as ready. Where this
   * user may not know how many there are, the thread is ready at once and the queue stays long for the time they have.
   */
  async #workOff(thread: Thread, worker: Worker): Promise<void> {
    const { socket } = thread.queue;
    const endMs = performance.now() + BACKLOG_DEADLINE_MS;
    const waiting = () => {
      const states = readQueueStates();
      return states === null ? null : (states.get(socket.queueNumber)?.waiting ?? 0);
    };
    const isKnown = waiting() !== null;
    if (!isKnown) this.#setReady(thread);
    while ((waiting() ?? socket.maxPackets) >= socket.maxPackets && performance.now() < endMs)
      await delay(isKnown ? BACKLOG_POLL_MS : BACKLOG_DEADLINE_MS);
    if (thread.worker !== worker || this.#isStopping) return;
    socket.endBacklog();
    this.#setReady(thread);
  }

  #setReady(thread: Thread): void {
    thread.isReady = true;
    if (this.#threads.every(({ isReady }) => isReady)) this.#tellReady();
  }

  #recover(thread: Thread): void {
    const { fault } = thread;
    const { queueNumber } = thread.queue.socket;
    const isStable = thread.isReady && performance.now() - thread.startedMs >= STABLE_MS;
    thread.faults = isStable ? 1 : thread.faults + 1;
    if (!thread.hasServed || thread.faults > MOST_FAULTS) {
      this.#events.onFatal(queueNumber, fault);
      return;
    }
    const inMs = thread.faults === 1 ? 0 : Math.min(LAST_BACKOFF_MS, FIRST_BACKOFF_MS * 2 ** (thread.faults - 2));
    thread.queue.socket.allowBacklog();
    this.#events.onRestart(queueNumber, fault, inMs);
    if (inMs === 0) this.#start(thread);
    else setTimeout(() => this.#isStopping || this.#start(thread), inMs).unref();
  }

  #tellIfStopped(): void {
    if (this.#threads.every(({ worker }) => worker === null)) this.#tellStopped();
  }
}
