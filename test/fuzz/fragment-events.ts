// A structure-aware generator of fragment traffic: packets of both families cut at random places and sent in any order,
// with duplicates, overlaps, contradicting ends, padding, cut captures, reused identifications, floods.
import { type FragmentParts, fragmentPacket } from "../harness/fragment-packets.js";
import type { Random } from "../harness/random.js";

export type FragmentEvent =
  | { readonly kind: "fragment"; readonly bytes: Uint8Array; readonly is4: boolean }
  /** One of the fragments that were sent back into the kernel arrives. */
  | { readonly kind: "return" }
  | { readonly kind: "wait"; readonly ms: number };

type PacketEnds = Omit<FragmentParts, "offset" | "isLast" | "payload">;
type OpenPacket = { readonly parts: FragmentParts[]; next: number };

/** Events without end: `next` gives one after the other. */
export class FragmentEvents {
  readonly #random: Random;
  readonly #sources: number;
  #open: OpenPacket[] = [];

  /** @param sources well-behaved source addresses per family; a flood has many more */
  constructor(random: Random, { sources = 6 } = {}) {
    this.#random = random;
    this.#sources = sources;
  }

  next(): FragmentEvent {
    const kind = this.#random(100);
    if (kind < 25) return { kind: "return" };
    if (kind < 33) return { kind: "wait", ms: this.#random(10) === 0 ? this.#random(150) : this.#random(4) };
    if (kind < 38) return this.#event({ ...this.#flood() });
    if (this.#open.length < 3 || kind < 48) this.#open.push(this.#packet());
    const index = this.#random(this.#open.length);
    const packet = this.#open[index]!;
    const parts = packet.parts[packet.next]!;
    packet.next++;
    if (packet.next === packet.parts.length) this.#open.splice(index, 1);
    return this.#event(parts);
  }

  #event(parts: FragmentParts): FragmentEvent {
    let bytes = fragmentPacket(parts);
    const padding = this.#random(20);
    if (padding === 0) bytes = Uint8Array.of(...bytes, ...new Uint8Array(this.#random(30)));
    const isCut = padding === 1 && parts.offset > 0; // a first fragment needs its ports
    if (isCut) bytes = bytes.slice(0, bytes.length - this.#random(Math.min(8, parts.payload.length + 1)));
    return { kind: "fragment", bytes, is4: parts.family === 4 };
  }

  /** A later fragment of a packet that nobody completes. */
  #flood(): FragmentParts {
    const family = this.#random(2) === 0 ? 4 : 6;
    const source = this.#address(family, 1_000 + this.#random(50_000));
    return {
      ...this.#ends(family, source),
      offset: 8 + 8 * this.#random(100),
      isLast: this.#random(2) === 0,
      payload: this.#bytes(8 * this.#random(5)),
    };
  }

  #packet(): OpenPacket {
    const family = this.#random(2) === 0 ? 4 : 6;
    const ends = this.#ends(family, this.#address(family, this.#random(this.#sources)));
    const whole = this.#bytes(16 + this.#random(400));
    const parts = this.#cut(ends, whole);
    const manner = this.#random(6);
    if (manner === 0) parts.reverse();
    else if (manner > 1) this.#shuffle(parts);
    this.#spoil(parts, whole);
    return { parts, next: 0 };
  }

  #cut(ends: PacketEnds, whole: Uint8Array): FragmentParts[] {
    const parts: FragmentParts[] = [];
    for (let offset = 0; offset < whole.length; ) {
      const most = this.#random(8) === 0 ? 8 : 8 * (1 + this.#random(16));
      const payload = whole.slice(offset, offset + most);
      parts.push({ ...ends, offset, isLast: offset + payload.length >= whole.length, payload });
      offset += payload.length;
    }
    if (parts.length > 1) return parts;
    return [
      { ...parts[0]!, isLast: false },
      { ...parts[0]!, offset: Math.ceil(whole.length / 8) * 8, payload: this.#bytes(9) },
    ];
  }

  /** Duplicates, overlaps, holes, other ends, units that are not full. */
  #spoil(parts: FragmentParts[], whole: Uint8Array): void {
    for (let n = this.#random(4); n > 0; n--) {
      const index = this.#random(parts.length);
      const part = parts[index]!;
      const where = this.#random(parts.length + 1);
      const how = this.#random(7);
      if (how <= 1) parts.splice(where, 0, part);
      else if (how === 2) {
        const offset = 8 * this.#random(Math.ceil(whole.length / 8) + 4);
        parts.splice(where, 0, { ...part, offset, isLast: false, payload: this.#bytes(8 * (1 + this.#random(6))) });
      } else if (how === 3 && parts.length > 1) parts.splice(index, 1);
      else if (how === 4 && part.offset > 0) parts.splice(where, 0, { ...part, isLast: true });
      else if (how === 5)
        parts[index] = {
          ...part,
          payload: part.payload.slice(0, Math.max(part.offset === 0 ? 4 : 0, part.payload.length - this.#random(9))),
        };
      else parts.splice(where, 0, { ...part, payload: this.#bytes(part.payload.length) }); // other content; first ones: other ports
    }
  }

  #ends(family: 4 | 6, source: Uint8Array): PacketEnds {
    return {
      family,
      source,
      destination: this.#address(family, 77),
      protocol: family === 4 ? [6, 17, 132][this.#random(3)]! : 17,
      identification: this.#random(family === 4 ? 12 : 40), // few, so that they are used again
      hasOptions: family === 6 && this.#random(4) === 0,
    };
  }

  #address(family: 4 | 6, number: number): Uint8Array {
    if (family === 4) return Uint8Array.of(10, number >>> 16, number >>> 8, number);
    return Uint8Array.of(0x20, 1, 13, 0xb8, ...new Uint8Array(9), number >>> 16, number >>> 8, number);
  }

  #bytes(length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (let i = 0; i < length; i++) bytes[i] = this.#random(256);
    return bytes;
  }

  #shuffle<T>(list: T[]): void {
    for (let i = list.length - 1; i > 0; i--) {
      const other = this.#random(i + 1);
      [list[i], list[other]] = [list[other]!, list[i]!];
    }
  }
}
