import { closeSync, openSync, readFileSync, readSync } from "node:fs";

const PATH = "/proc/thread-self/net/netfilter/nfnetlink_queue";
/** Some 400 queues to begin with. */
const FIRST_BYTES = 16_384;

/** A queue as the kernel sees it. */
export type QueueState = {
  readonly queueNumber: number;
  /** Netlink port of the socket that serves it. */
  readonly portId: number;
  /** Packets that wait for their verdict. */
  readonly waiting: number;
  /** Bytes of each packet that are copied out. */
  readonly copyBytes: number;
  /** Packets lost because the queue was full, u32 since the queue was bound. */
  readonly queueDropped: number;
  /** Packets lost because they could not be handed to the socket, mostly for a full receive buffer; u32 as above. */
  readonly userDropped: number;
  /** Id of the youngest packet. */
  readonly lastPacketId: number;
};

/**
 * The queues that are bound in this thread's network namespace, by number. null: this user may not know. The file is
 * readable for user and group 0 alone (mode 0440), whatever capabilities a process has; CAP_DAC_OVERRIDE apart.
 */
export function readQueueStates(): ReadonlyMap<number, QueueState> | null {
  try {
    return parseQueueStates(readFileSync(PATH, "utf8"));
  } catch (error) {
    if ((error as { code?: string }).code === "EACCES") return null;
    throw error;
  }
}

/**
 * As {@link readQueueStates}, again and again: the file stays open, and what says the same as the last time is not read
 * anew. Of the network namespace in which the first reading took place.
 */
export class QueueStateReader implements Disposable {
  /** Open from the beginning, so that nothing opens later than when who has it is ready. */
  #fd = openOrNull();
  #bytes = Buffer.alloc(FIRST_BYTES);
  #last = Buffer.alloc(0);
  #states: ReadonlyMap<number, QueueState> = new Map();

  /** The same map as before when nothing changed. null: this user may not know. */
  read(): ReadonlyMap<number, QueueState> | null {
    if (this.#fd === null) return null;
    const length = this.#fill(this.#fd);
    if (this.#last.length === length && this.#bytes.compare(this.#last, 0, length, 0, length) === 0)
      return this.#states;
    this.#last = Buffer.from(this.#bytes.subarray(0, length));
    this.#states = parseQueueStates(this.#last.toString("latin1"));
    return this.#states;
  }

  /** @returns bytes of the file, which are in the buffer then */
  #fill(fd: number): number {
    for (let length = 0; ; ) {
      const count = readSync(fd, this.#bytes, length, this.#bytes.length - length, length);
      length += count;
      if (count === 0) return length;
      if (length === this.#bytes.length) this.#bytes = Buffer.concat([this.#bytes, Buffer.alloc(length)]);
    }
  }

  [Symbol.dispose](): void {
    if (this.#fd !== null) closeSync(this.#fd);
    this.#fd = null;
  }
}

/** null: this user may not read it. */
function openOrNull(): number | null {
  try {
    return openSync(PATH, "r");
  } catch (error) {
    if ((error as { code?: string }).code === "EACCES") return null;
    throw error;
  }
}

/**
 * Reads the kernel's list: one line per queue of nine columns, `%5u %6u %5u %1u %5u %5u %5u %8u %2d`; a line that is not
 * like that is passed over (net/netfilter/nfnetlink_queue.c, seq_show, v6.18).
 */
export function parseQueueStates(text: string): ReadonlyMap<number, QueueState> {
  const states = new Map<number, QueueState>();
  for (const line of text.split("\n")) {
    const match = /^ *([0-9]+) +([0-9]+) +([0-9]+) +[0-9] +([0-9]+) +([0-9]+) +([0-9]+) +([0-9]+) /.exec(line);
    if (match === null) continue;
    const [
      queueNumber = 0,
      portId = 0,
      waiting = 0,
      copyBytes = 0,
      queueDropped = 0,
      userDropped = 0,
      lastPacketId = 0,
    ] = match.slice(1).map(Number);
    states.set(queueNumber, { queueNumber, portId, waiting, copyBytes, queueDropped, userDropped, lastPacketId });
  }
  return states;
}
