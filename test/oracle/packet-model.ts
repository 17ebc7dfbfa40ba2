// What a packet means, written a second time from the RFCs and the compatibility rules, slowly and in other shapes than
// src/packet: bytes are consumed from a list, and any read beyond its end makes the packet unusable.

export type Understood = {
  readonly rc: number;
  readonly key: string;
  readonly fragmentId: number;
  /** Which kind of fragment an ICMP error quotes. */
  readonly quoted: "none" | "first" | "later";
  /** Which packet the fragment is of, the packet's own or the quoted one; "" without a fragment. */
  readonly whole: string;
  /** Where the packet's own L4 header begins, and its protocol; -1 in a later fragment. */
  readonly l4Offset: number;
  readonly l4Protocol: number;
  readonly isEchoRequest: boolean;
};

const UNUSABLE: Understood = {
  rc: -1,
  key: "",
  fragmentId: 0,
  quoted: "none",
  whole: "",
  l4Offset: -1,
  l4Protocol: -1,
  isEchoRequest: false,
};

/** Bounds on the extension headers of an IPv6 packet; the bytes of a quoted packet's are counted with its error's own. */
const MOST_HEADERS = 16;
const MOST_HEADER_BYTES = 152;

class Missing extends Error {}

class Bytes {
  readonly #bytes: readonly number[];
  constructor(bytes: readonly number[]) {
    this.#bytes = bytes;
  }
  get length(): number {
    return this.#bytes.length;
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
    if (i + n > this.#bytes.length) throw new Missing();
    return this.#bytes.slice(i, i + n);
  }
}

type Network = {
  readonly source: number[];
  readonly destination: number[];
  readonly protocol: number;
  readonly payload: Bytes;
  readonly fragment: "none" | "first" | "later";
  readonly id: number;
  /** Bytes of extension headers. */
  readonly headerBytes: number;
};

const MAPPED = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255];

function network(bytes: Bytes, is4: boolean, mostHeaderBytes: number): Network {
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
      headerBytes: 0,
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
  const headerBytes = lengths.reduce((sum, one) => sum + one, 0);
  if (lengths.length > MOST_HEADERS || headerBytes > mostHeaderBytes) throw new Missing();
  const [source, destination] = [bytes.list(8, 16), bytes.list(24, 16)];
  return { source, destination, protocol, payload: rest, fragment, id, headerBytes };
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
    const is4 = etherType === 0x0800;
    const packet = network(new Bytes(bytes), is4, MOST_HEADER_BYTES);
    const isLater = packet.fragment === "later";
    return {
      ...transport(packet, is4, udpEncapPort),
      l4Offset: isLater ? -1 : bytes.length - packet.payload.length,
      l4Protocol: isLater ? -1 : packet.protocol,
    };
  } catch (error) {
    if (error instanceof Missing) return UNUSABLE;
    throw error;
  }
}

/** Source, destination, identification and, in IPv4, protocol (RFC 791; RFC 8200 section 4.5). */
function wholeOf({ source, destination, protocol, fragment, id }: Network, is4: boolean): string {
  if (fragment === "none") return "";
  return `${keyOf(source, destination, [])} ${id} ${is4 ? protocol : ""}`;
}

function transport(packet: Network, is4: boolean, encap: number): Understood {
  const { source, destination, protocol, payload, fragment, id } = packet;
  const whole = wholeOf(packet, is4);
  if (fragment === "later") {
    const idBytes = is4 ? [id >> 8, id & 255, 0, 0] : [id >>> 24, (id >>> 16) & 255, (id >>> 8) & 255, id & 255];
    return { ...UNUSABLE, rc: 2, key: keyOf(source, destination, [...idBytes, 0, 0, 0, 0]), fragmentId: id, whole };
  }
  const first = fragment === "first" ? 1 : 0;
  const plain = { ...UNUSABLE, fragmentId: first === 1 ? id : 0, whole };
  if (hasPorts(protocol)) {
    const ports = payload.list(0, 4);
    if (encap !== 0 && protocol === 17 && payload.word(2) === encap) {
      const tail = [0, 0, 132, 0, ...payload.list(8, 4)];
      return { ...plain, rc: first + 4, key: keyOf(source, destination, tail) };
    }
    return { ...plain, rc: first, key: keyOf(source, destination, [0, 0, protocol, 0, ...ports]) };
  }
  if (protocol !== (is4 ? 1 : 58)) {
    const tail = [0, 0, protocol, 0, 0, 0, 0, 0];
    return { ...plain, rc: first + 32, key: keyOf(source, destination, tail) };
  }
  const type = payload.at(0);
  if ((is4 ? [3, 4, 5, 11, 12] : [1, 2, 3, 4]).includes(type)) {
    if (first === 1) throw new Missing();
    return errorAbout(network(payload.from(8), is4, MOST_HEADER_BYTES - packet.headerBytes), is4, encap);
  }
  const isEchoRequest = type === (is4 ? 8 : 128);
  const identifier = isEchoRequest ? payload.list(4, 2) : [0, 0];
  const tail = [...identifier, protocol, 0, 0, 0, 0, 0];
  return { ...plain, rc: first + 16, key: keyOf(source, destination, tail), isEchoRequest };
}

function errorAbout(about: Network, is4: boolean, encap: number): Understood {
  try {
    return turnRound(about, is4, encap);
  } catch (error) {
    if (!(error instanceof Missing)) throw error;
    const fragmentId = about.fragment === "none" ? 0 : about.id;
    return { ...UNUSABLE, fragmentId, quoted: about.fragment, whole: wholeOf(about, is4) };
  }
}

function turnRound(about: Network, is4: boolean, encap: number): Understood {
  const { source, destination, protocol, payload, fragment, id } = about;
  const fragmentId = fragment === "none" ? 0 : id;
  const turned = (rc: number, tail: number[]): Understood => {
    const key = keyOf(destination, source, tail);
    return { ...UNUSABLE, rc, key, fragmentId, quoted: fragment, whole: wholeOf(about, is4) };
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
