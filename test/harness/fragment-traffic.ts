// Fragmented UDP test traffic: what a datagram holds and who sent it follows from its number.
import { type Family, VIPS } from "./flows.js";
import type { Ends } from "./fragment-packets.js";

export const PORT = 5_000;
const SOURCES = 16;

/** How the fragments of `window` datagrams are mixed before they are sent. */
export type Order = "in order" | "reversed" | "shuffled";

export type Traffic = {
  readonly family: Family;
  /** Numbers of the datagrams: first…first+count-1. */
  readonly first: number;
  readonly count: number;
  /** UDP payload. */
  readonly bytes: number;
  readonly order: Order;
  readonly window: number;
  /** Datagrams per second. */
  readonly rate: number;
  /** Routing marks of the next hops; fragments take them in turn. */
  readonly paths: readonly number[];
};

/** A flood of later fragments that belong to nothing, from random sources or from one. */
export type Flood = {
  readonly family: Family;
  readonly count: number;
  /** Fragments per second. */
  readonly rate: number;
  readonly source: string | null;
  readonly path: number;
};

export function endsOf(family: Family, id: number): Ends {
  const n = 1 + (id % SOURCES);
  const source = family === 4 ? `10.200.0.${n}` : `fd99::${n.toString(16)}`;
  return { family, source, destination: VIPS[family], sourcePort: 20_000 + n, destinationPort: PORT };
}

/** Number of a datagram, then bytes that follow from it. */
export function payloadOf(id: number, bytes: number): Uint8Array {
  const payload = new Uint8Array(bytes);
  for (let i = 0; i < bytes; i++) payload[i] = id * 31 + i * 7;
  new DataView(payload.buffer).setUint32(0, id);
  return payload;
}
