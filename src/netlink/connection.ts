import { createHash } from "node:crypto";
import { concat } from "#bytes";
import { type DatagramSocket, errnoName } from "#sys";
import { NetlinkError } from "./error.js";
import {
  blankSequence,
  decodeOutcome,
  eachMessage,
  encodeMessage,
  flagsAt,
  type Message,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLM_F_REQUEST,
  NLMSG_DONE,
  NLMSG_ERROR,
  sequenceAt,
  splitMessages,
  typeAt,
} from "./message.js";

/** Kernels put at most 32 KiB into one datagram of a dump; nf_tables may use more. */
const RECEIVE_BYTES = 256 * 1024;
/** A dump that never comes out consistent is asked for so often. */
export const DUMP_ATTEMPTS = 10;

/** One request of a batch. */
export type Request = {
  readonly type: number;
  readonly flags: number;
  readonly body: Uint8Array;
  /** What is done on which object, for errors: `RTM_NEWRULE fwmark 5001`. */
  readonly operation: string;
};

/** Room for messages, twice: to copy into, and to write numbers into. */
export type Room = { readonly bytes: Uint8Array; readonly words: DataView };

const NO_REFUSALS: ReadonlyMap<number, string> = new Map();

/** `datagrams`: how many were received before the one with the end. */
type Dump = { readonly messages: readonly Message[]; readonly datagrams: number };

/**
 * Requests and their answers over one netlink socket, synchronous: the kernel works a request off inside the send, so
 * the answer is there when it returns. Not to be used from two threads. The owner closes the socket.
 */
export class NetlinkConnection {
  readonly #socket: DatagramSocket;
  readonly #received = makeRoom(RECEIVE_BYTES);
  #sequence = 0;
  #room = makeRoom(0);

  /** @param socket with a receive time-out, so that a lost answer is an error and not a hang */
  constructor(socket: DatagramSocket) {
    this.#socket = socket;
  }

  /** Sends one request and waits for its acknowledgement. @throws {NetlinkError} with the kernel's explanation */
  request(operation: string, type: number, flags: number, body: Uint8Array): void {
    const sequence = ++this.#sequence;
    this.#socket.send(encodeMessage(type, flags | NLM_F_REQUEST | NLM_F_ACK, sequence, body));
    for (;;) {
      for (const message of this.#receive(operation)) {
        if (message.sequence !== sequence || message.type !== NLMSG_ERROR) continue;
        throwIfRefused(operation, message);
        return;
      }
    }
  }

  /**
   * Sends requests in one datagram, of which the kernel works off each for itself, in order. Only the last one's success is
   * told, and with it that there are no more refusals.
   * @param mostBytes of one request
   * @param write writes the message of request `index` at `at`, with that sequence number and these flags among its own;
   * returns where the next one begins. Nothing is allocated for it
   * @returns errno names of those refused, by index
   */
  requestAll(
    count: number,
    mostBytes: number,
    write: (room: Room, at: number, index: number, sequence: number, flags: number) => number,
  ): ReadonlyMap<number, string> {
    if (count === 0) return NO_REFUSALS;
    if (this.#room.bytes.length < count * mostBytes) this.#room = makeRoom(count * mostBytes);
    const first = this.#sequence + 1;
    const last = this.#sequence + count;
    this.#sequence = last;
    let length = 0;
    for (let i = 0; i < count; i++) {
      const flags = NLM_F_REQUEST | (first + i === last ? NLM_F_ACK : 0);
      length = write(this.#room, length, i, first + i, flags);
    }
    this.#socket.send(this.#room.bytes.subarray(0, length));
    const refused = new Map<number, string>();
    for (;;) {
      for (const message of this.#receive("requests")) {
        const index = message.sequence - first;
        if (message.type !== NLMSG_ERROR || index < 0 || index >= count) continue;
        const { errno } = decodeOutcome(message);
        if (errno !== 0) refused.set(index, errnoName(errno));
        if (message.sequence === last) return refused;
      }
    }
  }

  /**
   * Sends many requests in one datagram, framed by `begin` and `end`, which are not acknowledged (nf_tables batches).
   * The kernel applies all or none. @throws {NetlinkError} that names the first request refused
   */
  batch(begin: Omit<Request, "operation">, requests: readonly Request[], end: Omit<Request, "operation">): void {
    const first = this.#sequence + 1;
    const parts = [encodeMessage(begin.type, begin.flags | NLM_F_REQUEST, first, begin.body)];
    for (const [i, { type, flags, body }] of requests.entries()) {
      parts.push(encodeMessage(type, flags | NLM_F_REQUEST | NLM_F_ACK, first + 1 + i, body));
    }
    const last = first + requests.length + 1;
    parts.push(encodeMessage(end.type, end.flags | NLM_F_REQUEST, last, end.body));
    this.#sequence = last;
    this.#socket.send(concat(parts));
    let failure: NetlinkError | null = null;
    for (let open = requests.length; open > 0; ) {
      for (const message of this.#receive("nf_tables batch")) {
        const index = message.sequence - first - 1;
        if (message.type !== NLMSG_ERROR || index < -1 || index > requests.length) continue;
        const operation = requests[index]?.operation ?? "nf_tables batch";
        const { errno, text, offset } = decodeOutcome(message);
        if (errno !== 0) failure ??= new NetlinkError(operation, errno, text, offset);
        const isWholeBatch = index < 0 || index === requests.length; // refused as a whole: no more answers follow
        open = isWholeBatch && errno !== 0 ? 0 : open - (isWholeBatch ? 0 : 1);
      }
    }
    if (failure !== null) throw failure;
  }

  /**
   * The bodies of all messages of a dump; copies. A dump that the kernel calls inconsistent is asked for again.
   * @throws {NetlinkError} refused, or EINTR when it never came out consistent
   */
  dump(operation: string, type: number, body: Uint8Array): readonly Message[] {
    return this.#consistentDump(operation, type, body).messages;
  }

  /**
   * The same for a dump whose consistency the kernel does not check: it goes on by index and leaves out an object that
   * was there all the time when one in front of it goes between two datagrams. One of several datagrams is repeated until
   * two in a row are equal. After ten the last is given: then changes go on and on, and their events will tell.
   */
  uncheckedDump(operation: string, type: number, body: Uint8Array): readonly Message[] {
    let dump = this.#consistentDump(operation, type, body);
    for (let attempt = 1; attempt < DUMP_ATTEMPTS && dump.datagrams > 1; attempt++) {
      const before = dump;
      dump = this.#consistentDump(operation, type, body);
      if (isEqual(before, dump)) break;
    }
    return dump.messages;
  }

  /**
   * Equal for dumps that say the same in the same order, without decoding, cutting or keeping them. An inconsistent one is
   * like no other.
   */
  digest(operation: string, type: number, body: Uint8Array): string {
    const hash = createHash("sha1");
    const isConsistent = this.walk(operation, type, body, ({ bytes, words }, length) => {
      eachMessage(words, length, (at) => blankSequence(words, at));
      hash.update(bytes.subarray(0, length));
    });
    return isConsistent ? hash.digest("hex") : `inconsistent ${this.#sequence}`;
  }

  /**
   * Hands on the datagrams of a dump as they come, for who makes no object of each of thousands of messages.
   * @param visit is given the datagram, valid during the call, and its length in bytes; the last has the dump's end too
   * @returns whether the kernel calls the dump consistent
   * @throws {NetlinkError} refused; {DecodeError}
   */
  walk(operation: string, type: number, body: Uint8Array, visit: (datagram: Room, length: number) => void): boolean {
    const sequence = ++this.#sequence;
    this.#socket.send(encodeMessage(type, NLM_F_REQUEST | NLM_F_DUMP, sequence, body));
    const { words } = this.#received;
    for (let isConsistent = true; ; ) {
      const length = this.#receiveDatagram(operation);
      let end = -1;
      let isOurs = true;
      eachMessage(words, length, (at) => {
        isOurs &&= sequenceAt(words, at) === sequence;
        if ((flagsAt(words, at) & NLM_F_DUMP_INTR) !== 0) isConsistent = false;
        if (typeAt(words, at) === NLMSG_DONE || typeAt(words, at) === NLMSG_ERROR) end = at;
      });
      if (!isOurs) continue; // the rest of an answer that nobody waits for any more
      const last = end < 0 ? null : splitMessages(this.#received.bytes.subarray(end, length))[0]!;
      if (last !== null) throwIfRefused(operation, last);
      visit(this.#received, length);
      if (last !== null) return isConsistent;
    }
  }

  #consistentDump(operation: string, type: number, body: Uint8Array): Dump {
    for (let attempt = 0; attempt < DUMP_ATTEMPTS; attempt++) {
      const dump = this.#dumpOnce(operation, type, body);
      if (dump !== null) return dump;
    }
    throw new NetlinkError(operation, "EINTR", `dump interrupted ${DUMP_ATTEMPTS} times`);
  }

  /** Asks for one object and gives the body of the answer; a copy. @throws {NetlinkError} ENOENT and the like */
  get(operation: string, type: number, body: Uint8Array): Uint8Array {
    const sequence = ++this.#sequence;
    this.#socket.send(encodeMessage(type, NLM_F_REQUEST | NLM_F_ACK, sequence, body));
    let answer: Uint8Array | null = null;
    for (;;) {
      for (const message of this.#receive(operation)) {
        if (message.sequence !== sequence) continue;
        if (message.type !== NLMSG_ERROR) {
          answer = message.body.slice();
          continue;
        }
        throwIfRefused(operation, message);
        if (answer === null) throw new NetlinkError(operation, "ENODATA");
        return answer;
      }
    }
  }

  /** null: the kernel called it inconsistent. */
  #dumpOnce(operation: string, type: number, body: Uint8Array): Dump | null {
    const sequence = ++this.#sequence;
    this.#socket.send(encodeMessage(type, NLM_F_REQUEST | NLM_F_DUMP, sequence, body));
    const messages: Message[] = [];
    let isConsistent = true;
    for (let datagrams = 0; ; datagrams++) {
      for (const message of this.#receive(operation)) {
        if (message.sequence !== sequence) continue;
        if ((message.flags & NLM_F_DUMP_INTR) !== 0) isConsistent = false;
        if (message.type === NLMSG_ERROR || message.type === NLMSG_DONE) {
          throwIfRefused(operation, message);
          return isConsistent ? { messages, datagrams } : null;
        }
        messages.push({ ...message, body: message.body.slice() });
      }
    }
  }

  #receive(operation: string): readonly Message[] {
    const length = this.#receiveDatagram(operation);
    return splitMessages(this.#received.bytes.subarray(0, length));
  }

  /** @returns its length in bytes */
  #receiveDatagram(operation: string): number {
    const { bytes } = this.#received;
    const length = this.#socket.receive(bytes);
    if (length < 0) throw new NetlinkError(operation, "ETIMEDOUT", "no answer from the kernel");
    if (length > bytes.length) throw new NetlinkError(operation, "EMSGSIZE", `answer of ${length} bytes`);
    return length;
  }
}

function makeRoom(length: number): Room {
  const bytes = new Uint8Array(length);
  return { bytes, words: new DataView(bytes.buffer) };
}

function isEqual(a: Dump, b: Dump): boolean {
  return (
    a.messages.length === b.messages.length &&
    a.messages.every(({ body }, i) => Buffer.compare(body, b.messages[i]!.body) === 0)
  );
}

function throwIfRefused(operation: string, message: Message): void {
  const { errno, text, offset } = decodeOutcome(message);
  if (errno !== 0) throw new NetlinkError(operation, errno, text, offset);
}
