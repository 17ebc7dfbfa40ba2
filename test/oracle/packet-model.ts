// What a packet means, written a second time from the RFCs and the compatibility rules, slowly and in other shapes than
// src/packet: bytes are consumed from a list, and any read beyond its end makes the packet unusable.

export type Understood = {
  readonly rc: number;
  readonly key: string;
  readonly fragmentId: number;
  /** Which kind of fragment an ICMP error quotes. */
  readonly quoted: "none" | "first" | "later";
};

/** Bounds on the extension headers of an IPv6 packet. */
const MOST_HEADERS = 16;
const MOST_HEADER_BYTES = 152;

class Missing extends Error {}

class Bytes {
  readonly #bytes: readonly number[];
  constructor(bytes: readonly number[]) {
    this.#bytes = bytes;
  }
  at(i: number): number {
    const byte = this.#bytes[i];
    if (byte === undefined) throw new Missing();
    return byte;
  }
  word(i: number): number {
    return this.at(i) * 256 + this.at(i + 1);
  }
  from(i: number): Bytes {
    if (i > this.#bytes.length) throw new Missing();
    return new Bytes(this.#bytes.slice(i));
  }
  list(i: number, n: number): number[] {
    return Array.from({ length: n }, (_, k) => this.at(i + k));
  }
}

type Network = {
  readonly source: number[];
  readonly destination: number[];
  readonly protocol: number;
  readonly payload: Bytes;
  readonly fragment: "none" | "first" | "later";
  readonly id: number;
};

const MAPPED = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255];

function network(bytes: Bytes, is4: boolean): Network {
  if (is4) {
    bytes.list(0, 20);
    const words = bytes.at(0) % 16;
    if (words < 5) throw new Missing();
    const flags = bytes.word(6);
    const isLater = flags % 8192 !== 0;
    const isMore = Math.floor(flags / 8192) % 2 === 1;
    return {
      source: [...MAPPED, ...bytes.list(12, 4)],
      destination: [...MAPPED, ...bytes.list(16, 4)],
      protocol: bytes.at(9),
      payload: isLater ? new Bytes([]) : maybe(bytes, words * 4),
      fragment: isLater ? "later" : isMore ? "first" : "none",
      id: bytes.word(4),
    };
  }
  bytes.list(0, 40);
  let protocol = bytes.at(6);
  let rest = bytes.from(40);
  let fragment: Network["fragment"] = "none";
  let id = 0;
  let hasFragmentHeader = false;
  const lengths: number[] = [];
  for (;;) {
    if (protocol === 0 || protocol === 43 || protocol === 60) {
      const next = rest.at(0);
      lengths.push((rest.at(1) + 1) * 8);
      rest = rest.from(lengths.at(-1)!);
      protocol = next;
    } else if (protocol === 44) {
      if (hasFragmentHeader) throw new Missing();
      hasFragmentHeader = true;
      const header = rest.list(0, 8);
      lengths.push(8);
      protocol = header[0]!;
      const field = rest.word(2);
      const isLater = Math.floor(field / 8) !== 0;
      if (isLater || field % 2 === 1) {
        fragment = isLater ? "later" : "first";
        id = rest.word(4) * 65536 + rest.word(6);
      }
      if (isLater) break;
      rest = rest.from(8);
    } else break;
  }
  if (lengths.length > MOST_HEADERS || lengths.reduce((sum, one) => sum + one, 0) > MOST_HEADER_BYTES)
    throw new Missing();
  return { source: bytes.list(8, 16), destination: bytes.list(24, 16), protocol, payload: rest, fragment, id };
}

/** IPv4 options may reach beyond the packet: only who reads the payload minds. */
function maybe(bytes: Bytes, i: number): Bytes {
  try {
    return bytes.from(i);
  } catch {
    return new Bytes([]);
  }
}

const hasPorts = (protocol: number) => protocol === 6 || protocol === 17 || protocol === 132;

function keyOf(source: number[], destination: number[], tail: number[]): string {
  return Buffer.from([...source, ...destination, ...tail]).toString("hex");
}

/** rc, key and fragment identification of a packet; rc -1 and an empty key when it cannot be used. */
export function understand(bytes: readonly number[], etherType: number, udpEncapPort: number): Understood {
  try {
    if (etherType !== 0x0800 && etherType !== 0x86dd) throw new Missing();
    return transport(network(new Bytes(bytes), etherType === 0x0800), etherType === 0x0800, udpEncapPort);
  } catch (error) {
    if (error instanceof Missing) return { rc: -1, key: "", fragmentId: 0, quoted: "none" };
    throw error;
  }
}

function transport(packet: Network, is4: boolean, encap: number): Understood {
  const { source, destination, protocol, payload, fragment, id } = packet;
  const quoted = "none";
  if (fragment === "later") {
    const idBytes = is4 ? [id >> 8, id & 255, 0, 0] : [id >>> 24, (id >>> 16) & 255, (id >>> 8) & 255, id & 255];
    return { rc: 2, key: keyOf(source, destination, [...idBytes, 0, 0, 0, 0]), fragmentId: id, quoted };
  }
  const first = fragment === "first" ? 1 : 0;
  const fragmentId = first === 1 ? id : 0;
  if (hasPorts(protocol)) {
    const ports = payload.list(0, 4);
    if (encap !== 0 && protocol === 17 && payload.word(2) === encap) {
      const tail = [0, 0, 132, 0, ...payload.list(8, 4)];
      return { rc: first + 4, key: keyOf(source, destination, tail), fragmentId, quoted };
    }
    return { rc: first, key: keyOf(source, destination, [0, 0, protocol, 0, ...ports]), fragmentId, quoted };
  }
  if (protocol !== (is4 ? 1 : 58)) {
    const tail = [0, 0, protocol, 0, 0, 0, 0, 0];
    return { rc: first + 32, key: keyOf(source, destination, tail), fragmentId, quoted };
  }
  const type = payload.at(0);
  if ((is4 ? [3, 4, 5, 11, 12] : [1, 2, 3, 4]).includes(type)) {
    if (first === 1) throw new Missing();
    return errorAbout(network(payload.from(8), is4), is4, encap);
  }
  const identifier = type === (is4 ? 8 : 128) ? payload.list(4, 2) : [0, 0];
  const tail = [...identifier, protocol, 0, 0, 0, 0, 0];
  return { rc: first + 16, key: keyOf(source, destination, tail), fragmentId, quoted };
}

function errorAbout(about: Network, is4: boolean, encap: number): Understood {
  try {
    return turnRound(about, is4, encap);
  } catch (error) {
    if (!(error instanceof Missing)) throw error;
    return { rc: -1, key: "", fragmentId: about.fragment === "none" ? 0 : about.id, quoted: about.fragment };
  }
}

function turnRound(about: Network, is4: boolean, encap: number): Understood {
  const { source, destination, protocol, payload, fragment, id } = about;
  const fragmentId = fragment === "none" ? 0 : id;
  const turned = (rc: number, tail: number[]) => {
    return { rc, key: keyOf(destination, source, tail), fragmentId, quoted: fragment };
  };
  const isHidden = !is4 && [0, 43, 44, 60].includes(protocol); // behind headers that only the first fragment has
  if (fragment === "later" && isHidden) throw new Missing();
  if (!hasPorts(protocol)) return turned(40, [0, 0, protocol, 0, 0, 0, 0, 0]);
  if (fragment === "later") throw new Missing();
  const [a, b, c, d] = payload.list(0, 4) as [number, number, number, number];
  if (encap !== 0 && protocol === 17 && payload.word(0) === encap) {
    const [e, f, g, h] = payload.list(8, 4) as [number, number, number, number];
    return turned(12, [0, 0, 132, 0, g, h, e, f]);
  }
  return turned(8, [0, 0, protocol, 0, c, d, a, b]);
}

/** djb2 over a key in hex, by the book. */
export function djb2Model(key: string, from: number, to: number): number {
  let hash = 5381n;
  for (const byte of Buffer.from(key, "hex").subarray(from, to)) hash = (hash * 33n + BigInt(byte)) % 2n ** 32n;
  return Number(hash);
}
