// rtnetlink of one network namespace in memory. It stands below the framing: bytes in, bytes out, as a socket. Its own
// framing is written by hand from struct nlmsghdr and nlmsgerr; message bodies go through the codecs that the vectors in
// test/vectors/netlink prove. test/compliance holds it against a real kernel.
import type { DatagramSocket } from "#sys";
import { SysError } from "../../src/sys/libc.js";
import { MemoryLinks, MemoryNeighbors, MemoryRoutes, MemoryRules, Refusal, type Table } from "./memory-tables.js";

const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NLM_F_MULTI = 0x2;
const NLM_F_ACK = 0x4;
const NLM_F_DUMP_INTR = 0x10;
const NLM_F_DUMP = 0x300;
const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;
const NLMSGERR_ATTR_MSG = 1;
const HEADER_BYTES = 16;
const EOPNOTSUPP = 95;
const ENOBUFS = 105;
/** A real kernel fills 32 KiB; so few make every dump one of several datagrams. */
const ENTRIES_PER_DATAGRAM = 3;

type Header = { readonly type: number; readonly flags: number; readonly sequence: number };

/** One network namespace: a loopback device and `v0` with 10.1.0.1/16 and fd00::1/64. */
export class MemoryKernel {
  readonly #tables: readonly Table[];
  readonly #subscribers = new Set<(message: Uint8Array) => void>();
  #changes = 0;
  /** Called ahead of each datagram of a dump but the first, for example to change what is being dumped. */
  betweenDatagrams: () => void = () => {};

  constructor() {
    this.#tables = [new MemoryRules(), new MemoryRoutes(), new MemoryNeighbors(), ...MemoryLinks.both()];
  }

  /** A socket for requests. */
  open(): DatagramSocket {
    const waiting: (() => Uint8Array | null)[] = [];
    return {
      send: (bytes) => {
        for (const { header, body, whole } of requestsOf(bytes)) this.#answer(header, body, whole, waiting);
      },
      receive: (into) => {
        for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
          const datagram = next();
          if (datagram === null) continue;
          into.set(datagram.subarray(0, into.length));
          return datagram.length;
        }
        return -1;
      },
      [Symbol.dispose]: () => {},
    };
  }

  /**
   * A socket in all multicast groups that holds `capacity` messages. As in net/netlink/af_netlink.c (v6.18): when it is
   * full, ENOBUFS is told once, ahead of what waits, and everything more is dropped until it has been read empty.
   */
  subscriber(capacity: number): DatagramSocket {
    const waiting: Uint8Array[] = [];
    let isCongested = false;
    let error = 0;
    const deliver = (message: Uint8Array) => {
      if (waiting.length < capacity && !isCongested) waiting.push(message);
      else if (!isCongested) {
        isCongested = true;
        error = ENOBUFS;
      }
    };
    this.#subscribers.add(deliver);
    return {
      send: () => {},
      receive: (into) => {
        if (error !== 0) {
          error = 0;
          throw new SysError("recv", ENOBUFS);
        }
        const next = waiting.shift();
        if (waiting.length === 0) isCongested = false;
        if (next === undefined) return -1;
        into.set(next.subarray(0, into.length));
        return next.length;
      },
      [Symbol.dispose]: () => this.#subscribers.delete(deliver),
    };
  }

  #answer(header: Header, body: Uint8Array, whole: Uint8Array, waiting: (() => Uint8Array | null)[]): void {
    const { type, flags } = header;
    const acknowledge = (errno: number, text: string) => waiting.push(() => errorReply(header, whole, errno, text));
    const table = this.#tables.find(({ types }) => Object.values(types).includes(type));
    if (table === undefined) acknowledge(EOPNOTSUPP, "");
    else if (type === table.types.get && (flags & NLM_F_DUMP) === NLM_F_DUMP) this.#dump(table, header, body, waiting);
    else {
      try {
        const isNew = type === table.types.add;
        const event = isNew ? table.add(body, flags) : table.delete(body);
        this.#changes++;
        const message = frame({ type, flags: 0, sequence: header.sequence }, event);
        for (const deliver of this.#subscribers) deliver(message);
        if ((flags & NLM_F_ACK) !== 0) acknowledge(0, "");
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        acknowledge(error.errno, error.message);
      }
    }
  }

  /** The datagrams are made when they are received, as a kernel does; a change meanwhile marks what follows. */
  #dump(table: Table, { sequence }: Header, query: Uint8Array, waiting: (() => Uint8Array | null)[]): void {
    const before = this.#changes;
    let entries = table.list(query);
    let seen = before;
    let at = 0;
    const next = () => {
      if (at > 0) this.betweenDatagrams();
      if (seen !== this.#changes) entries = table.list(query);
      seen = this.#changes;
      const part = entries.slice(at, at + ENTRIES_PER_DATAGRAM);
      at += ENTRIES_PER_DATAGRAM;
      const flags = NLM_F_MULTI | (this.#changes === before || !table.isChecked ? 0 : NLM_F_DUMP_INTR);
      if (part.length === 0) return frame({ type: NLMSG_DONE, flags, sequence }, new Uint8Array(4));
      waiting.unshift(next);
      return Buffer.concat(part.map((body) => frame({ type: table.types.add, flags, sequence }, body)));
    };
    waiting.push(next);
  }
}

function requestsOf(bytes: Uint8Array) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const requests = [];
  for (let at = 0; at < bytes.length; ) {
    const length = view.getUint32(at, true);
    if (length < HEADER_BYTES || at + length > bytes.length) throw new Error(`nlmsg_len ${length} at ${at}`);
    const header = {
      type: view.getUint16(at + 4, true),
      flags: view.getUint16(at + 6, true),
      sequence: view.getUint32(at + 8, true),
    };
    const whole = bytes.slice(at, at + length);
    requests.push({ header, body: whole.subarray(HEADER_BYTES), whole });
    at += (length + 3) & ~3;
  }
  return requests;
}

function frame({ type, flags, sequence }: Header, body: Uint8Array): Uint8Array {
  const bytes = Buffer.alloc((HEADER_BYTES + body.length + 3) & ~3);
  bytes.writeUInt32LE(HEADER_BYTES + body.length, 0);
  bytes.writeUInt16LE(type, 4);
  bytes.writeUInt16LE(flags, 6);
  bytes.writeUInt32LE(sequence, 8);
  bytes.writeUInt32LE(42, 12);
  bytes.set(body, HEADER_BYTES);
  return bytes;
}

/** A success is told with the request's header alone, a refusal with the whole request and, if there is one, the text. */
function errorReply({ sequence }: Header, request: Uint8Array, errno: number, text: string): Uint8Array {
  const code = Buffer.alloc(4);
  code.writeInt32LE(-errno);
  if (errno === 0) {
    const parts = [code, request.subarray(0, HEADER_BYTES)];
    return frame({ type: NLMSG_ERROR, flags: NLM_F_CAPPED, sequence }, Buffer.concat(parts));
  }
  const padded = Buffer.alloc((request.length + 3) & ~3);
  padded.set(request);
  if (text === "") return frame({ type: NLMSG_ERROR, flags: 0, sequence }, Buffer.concat([code, padded]));
  const attribute = Buffer.alloc((4 + text.length + 1 + 3) & ~3);
  attribute.writeUInt16LE(4 + text.length + 1, 0);
  attribute.writeUInt16LE(NLMSGERR_ATTR_MSG, 2);
  attribute.write(text, 4, "latin1");
  return frame({ type: NLMSG_ERROR, flags: NLM_F_ACK_TLVS, sequence }, Buffer.concat([code, padded, attribute]));
}
