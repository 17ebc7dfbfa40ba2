import { type Codec, concat, DecodeError, type FixedCodec, u16 } from "./codec.js";

/** NLA_F_NESTED and NLA_F_NET_BYTEORDER; include/uapi/linux/netlink.h (v6.18). */
const NLA_F_NESTED = 0x8000;
const TYPE_MASK = 0x3fff;
const HEADER_BYTES = 4;
const LENGTH_BYTES = 2;

/** One kind of netlink attribute in a set: its number and the form of its payload. */
export type Attribute<T> = { readonly type: number; readonly codec: Codec<T>; readonly isNested: boolean };

/** An attribute that is not declared, as it came. */
type UnknownAttribute = { readonly type: number; readonly payload: Uint8Array };

type Fields = Record<string, Attribute<unknown>>;
type FieldValue<A> = A extends Attribute<infer T> ? T : never;
/** Absent attributes are absent keys; unknown ones are kept in `unknown`. */
export type AttributesValue<F> = { readonly [K in keyof F]?: FieldValue<F[K]> | undefined } & {
  readonly unknown?: readonly UnknownAttribute[] | undefined;
};

/** An attribute with that number. */
export function attr<T>(type: number, codec: Codec<T>): Attribute<T> {
  return { type, codec, isNested: false };
}

/** An attribute that holds attributes; its number carries NLA_F_NESTED when written. */
export function nested<T>(type: number, codec: Codec<T>): Attribute<T> {
  return { type, codec, isNested: true };
}

/**
 * A set of netlink attributes as an object. Encoding writes them in the order of declaration, undeclared ones last;
 * decoding takes any order, keeps unknown ones, and the last of equal ones wins.
 * @param prefix the kernel's prefix of their names, for messages
 */
export function attributes<F extends Fields>(prefix: string, fields: F): Codec<AttributesValue<F>> {
  const entries = Object.entries(fields);
  const byType = new Map(
    entries.map(([key, attribute]) => [attribute.type, { key, attribute, fixed: fixedCodec(attribute.codec) }]),
  );
  return {
    encode: (value, path) => {
      const values = value as Record<string, unknown>;
      const parts: UnknownAttribute[] = [];
      let size = 0;
      for (const [key, { type, codec, isNested }] of entries) {
        if (values[key] === undefined) continue;
        const payload = codec.encode(values[key], `${path}.${prefix}.${key}`);
        parts.push({ type: isNested ? type | NLA_F_NESTED : type, payload });
      }
      if (value.unknown !== undefined) parts.push(...value.unknown);
      for (const { payload } of parts) size += align(HEADER_BYTES + payload.length);
      const bytes = new Uint8Array(size);
      const view = new DataView(bytes.buffer);
      let at = 0;
      for (const { type, payload } of parts) at = writeAttribute(bytes, view, at, type, payload);
      return bytes;
    },
    decode: (bytes, path) => {
      const values: Record<string, unknown> = {};
      const unknown: UnknownAttribute[] = [];
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      for (let at = 0; at < bytes.length; ) {
        const length = attributeLength(view, at, path, prefix);
        const type = view.getUint16(at + 2, true);
        const known = byType.get(type & TYPE_MASK);
        if (known === undefined) unknown.push({ type, payload: bytes.slice(at + HEADER_BYTES, at + length) });
        else if (known.fixed !== null && length - HEADER_BYTES >= known.fixed.size)
          values[known.key] = known.fixed.read(view, at + HEADER_BYTES);
        else {
          const payload = bytes.subarray(at + HEADER_BYTES, at + length);
          values[known.key] = known.attribute.codec.decode(payload, `${path}.${prefix}.${known.key}`);
        }
        at += align(length);
      }
      return (unknown.length > 0 ? { ...values, unknown } : values) as AttributesValue<F>;
    },
  };
}

/** A list: every attribute has the same number and form (NFTA_LIST_ELEM). */
export function list<T>(type: number, codec: Codec<T>): Codec<readonly T[]> {
  return {
    encode: (values, path) =>
      concat(values.map((value, i) => encodeAttribute(type | NLA_F_NESTED, codec.encode(value, `${path}[${i}]`)))),
    decode: (bytes, path) =>
      splitAttributes(bytes, path).map(({ payload }, i) => codec.decode(payload, `${path}[${i}]`)),
  };
}

/**
 * Records one behind the other, each with its own length (u16, host order) in front and padded to 4 bytes: `rtnexthop`.
 * `codec` gets what follows the length.
 */
export function records<T>(codec: Codec<T>): Codec<readonly T[]> {
  return {
    encode: (values, path) =>
      concat(
        values.map((value, i) => {
          const payload = codec.encode(value, `${path}[${i}]`);
          const bytes = new Uint8Array(align(LENGTH_BYTES + payload.length));
          bytes.set(u16.encode(LENGTH_BYTES + payload.length, `${path}[${i}].length`));
          bytes.set(payload, LENGTH_BYTES);
          return bytes;
        }),
      ),
    decode: (bytes, path) => {
      const values: T[] = [];
      for (let at = 0; at < bytes.length; ) {
        const where = `${path}[${values.length}]`;
        const length = u16.decode(bytes.subarray(at), `${where}.length`);
        if (length < LENGTH_BYTES || at + length > bytes.length) {
          throw new DecodeError(where, `record length ${length} at ${at}, ${bytes.length - at} bytes left`);
        }
        values.push(codec.decode(bytes.subarray(at + LENGTH_BYTES, at + length), where));
        at += align(length);
      }
      return values;
    },
  };
}

/** A message body: a header of fixed length and the attributes behind it. */
export function message<H, A>(
  header: FixedCodec<H>,
  attributes: Codec<A>,
): Codec<{ readonly header: H; readonly attributes: A }> {
  return {
    encode: (value, path) => concat([header.encode(value.header, path), attributes.encode(value.attributes, path)]),
    decode: (bytes, path) => ({
      header: header.decode(bytes, path),
      attributes: attributes.decode(bytes.subarray(header.size), path),
    }),
  };
}

/** Cuts attributes apart; the last may lack its padding. @throws {DecodeError} a length does not fit */
function splitAttributes(bytes: Uint8Array, path: string): readonly UnknownAttribute[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const result: UnknownAttribute[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = attributeLength(view, at, path, "");
    result.push({ type: view.getUint16(at + 2, true), payload: bytes.subarray(at + HEADER_BYTES, at + length) });
    at += align(length);
  }
  return result;
}

/** Length of the attribute at `at`, its header included. @throws {DecodeError} it does not fit */
function attributeLength(view: DataView, at: number, path: string, prefix: string): number {
  const left = view.byteLength - at;
  const where = () => (prefix === "" ? path : `${path}.${prefix}`);
  if (left < HEADER_BYTES) throw new DecodeError(where(), `${left} stray bytes at ${at}`);
  const length = view.getUint16(at, true);
  if (length >= HEADER_BYTES && length <= left) return length;
  throw new DecodeError(where(), `attribute length ${length} at ${at}, ${left} bytes left`);
}

function encodeAttribute(type: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(align(HEADER_BYTES + payload.length));
  writeAttribute(bytes, new DataView(bytes.buffer), 0, type, payload);
  return bytes;
}

/** @returns where the next one begins */
function writeAttribute(bytes: Uint8Array, view: DataView, at: number, type: number, payload: Uint8Array): number {
  const length = HEADER_BYTES + payload.length;
  if (length > 0xffff) throw new RangeError(`attribute ${type & TYPE_MASK}: ${payload.length} bytes do not fit`);
  view.setUint16(at, length, true);
  view.setUint16(at + 2, type, true);
  bytes.set(payload, at + HEADER_BYTES);
  return at + align(length);
}

function fixedCodec(codec: Codec<unknown>): FixedCodec<unknown> | null {
  return "read" in codec ? (codec as FixedCodec<unknown>) : null;
}

/** NLA_ALIGN and NLMSG_ALIGN: the next multiple of 4, for every length of 32 bits; `&` of the sum would be negative from 2³¹-3 on. */
export function align(length: number): number {
  return length + (-length & 3);
}
