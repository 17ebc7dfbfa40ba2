// Every answer of the contract is a message whose field 1 is a list of objects. Taking it apart without decoding the
// objects shows which of them changed.

/** Tag of field 1, length-delimited (protobuf encoding, "Message Structure"). */
const LIST_TAG = 0x0a;
/** Bytes that follow a tag by wire type; -1 a varint, -2 a length and so many bytes, -3 not allowed. */
const AFTER_TAG = [-1, 8, -2, -3, -3, 4, -3, -3];

/** An answer is no message at all. */
export class MalformedAnswer extends Error {}

/** The encoded objects of an answer, over the same memory. @throws {MalformedAnswer} */
export function splitList(bytes: Uint8Array): readonly Uint8Array[] {
  const bounds = findList(bytes);
  return Array.from({ length: bounds.length / 2 }, (_, i) => bytes.subarray(bounds[2 * i], bounds[2 * i + 1]));
}

/**
 * Where the encoded objects of an answer stand: the first byte of each, and the one behind it. Other fields are skipped.
 * @throws {MalformedAnswer}
 */
export function findList(bytes: Uint8Array): readonly number[] {
  const bounds: number[] = [];
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let factor = 1; factor < 2 ** 70; factor *= 128) {
      const byte = bytes[at++];
      if (byte === undefined) throw new MalformedAnswer(`answer ends within a number, ${bytes.length} bytes`);
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
    }
    throw new MalformedAnswer(`number of more than 10 bytes at ${at}`);
  };
  while (at < bytes.length) {
    const tag = varint();
    const kind = AFTER_TAG[tag % 8]!;
    if (kind === -3 || tag < 8) throw new MalformedAnswer(`tag ${tag} at ${at} is not allowed`);
    if (kind === -1) {
      varint();
      continue;
    }
    const length = kind === -2 ? varint() : kind;
    if (length > bytes.length - at)
      throw new MalformedAnswer(`field of ${length} bytes at ${at}, ${bytes.length - at} are left`);
    if (tag === LIST_TAG) bounds.push(at, at + length);
    at += length;
  }
  return bounds;
}

/** Whether an answer's list is empty. @throws {MalformedAnswer} */
export function isEmptyList(bytes: Uint8Array): boolean {
  return bytes[0] !== LIST_TAG && splitList(bytes).length === 0;
}

/** An answer from encoded objects. */
export function joinList(items: readonly Uint8Array[]): Uint8Array {
  const size = items.reduce((sum, { length }) => sum + 1 + varintBytes(length) + length, 0);
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const item of items) {
    bytes[at++] = LIST_TAG;
    let length = item.length;
    while (length >= 0x80) {
      bytes[at++] = (length & 0x7f) | 0x80;
      length >>>= 7;
    }
    bytes[at++] = length;
    bytes.set(item, at);
    at += item.length;
  }
  return bytes;
}

function varintBytes(value: number): number {
  let count = 1;
  for (let rest = value; rest >= 0x80; rest >>>= 7) count++;
  return count;
}

export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a === b || (a.length === b.length && Buffer.compare(a, b) === 0);
}
