// A kernel at the other end of a netlink socket, as one function: a request's bytes in, the datagrams of its answer out.

import type { DatagramSocket } from "#sys";
import { SysError } from "../../src/sys/libc.js";

const ENOBUFS = 105;

export type Answer = readonly (Uint8Array | "overrun")[];

/** A socket whose peer is `answer`. What is sent is kept in `sent`. */
export function fakeKernel(
  answer: (request: Uint8Array, n: number) => Answer,
): DatagramSocket & { readonly sent: Uint8Array[] } {
  const sent: Uint8Array[] = [];
  const queue: (Uint8Array | "overrun")[] = [];
  return {
    sent,
    send: (bytes) => {
      queue.push(...answer(bytes, sent.push(bytes.slice()) - 1));
    },
    receive: (into) => {
      const next = queue.shift();
      if (next === undefined) return -1;
      if (next === "overrun") throw new SysError("recv", ENOBUFS);
      into.set(next.subarray(0, into.length));
      return next.length;
    },
    [Symbol.dispose]: () => {},
  };
}

/** Bytes from hexadecimal text with blanks. */
export function bytesOf(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text.replace(/\s/g, ""), "hex"));
}
