/** Bytes do not have the form that was declared. `path` names the field, `offset` is relative to the innermost codec. */
export class DecodeError extends Error {
  readonly code = "ERR_DECODE";
  readonly path: string;

  constructor(path: string, problem: string) {
    super(`${path}: ${problem}`);
    this.name = "DecodeError";
    this.path = path;
  }
}

/** Both directions of one form of bytes. `path` is for messages only. */
export type Codec<T> = {
  /** @throws {RangeError} a number does not fit its field */
  encode(value: T, path: string): Uint8Array;
  /** Takes all of `bytes`. @throws {DecodeError} */
  decode(bytes: Uint8Array, path: string): T;
};

/** A codec whose bytes have a fixed length; structs are made of these. */
export type FixedCodec<T> = Codec<T> & { readonly size: number };

export type ValueOf<C> = C extends Codec<infer T> ? T : never;

function fixed<T>(
  size: number,
  write: (view: DataView, value: T, path: string) => void,
  read: (view: DataView) => T,
): FixedCodec<T> {
  return {
    size,
    encode: (value, path) => {
      const bytes = new Uint8Array(size);
      write(new DataView(bytes.buffer), value, path);
      return bytes;
    },
    decode: (bytes, path) => {
      if (bytes.length < size) throw new DecodeError(path, `${size} bytes needed, ${bytes.length} found`);
      return read(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength));
    },
  };
}

function unsigned(
  size: 1 | 2 | 4,
  write: (view: DataView, value: number) => void,
  read: (view: DataView) => number,
): FixedCodec<number> {
  const limit = 2 ** (size * 8);
  return fixed(
    size,
    (view, value, path) => {
      if (!Number.isInteger(value) || value < 0 || value >= limit) {
        throw new RangeError(`${path}: ${value} is not a whole number 0..${limit - 1}`);
      }
      write(view, value);
    },
    read,
  );
}

export const u8 = unsigned(
  1,
  (view, value) => view.setUint8(0, value),
  (view) => view.getUint8(0),
);
/** Host order; the machines we run on are little endian. */
export const u16 = unsigned(
  2,
  (view, value) => view.setUint16(0, value, true),
  (view) => view.getUint16(0, true),
);
export const u32 = unsigned(
  4,
  (view, value) => view.setUint32(0, value, true),
  (view) => view.getUint32(0, true),
);
/** Network order. */
export const be16 = unsigned(
  2,
  (view, value) => view.setUint16(0, value),
  (view) => view.getUint16(0),
);
export const be32 = unsigned(
  4,
  (view, value) => view.setUint32(0, value),
  (view) => view.getUint32(0),
);
export const be64 = fixed<bigint>(
  8,
  (view, value) => view.setBigUint64(0, value),
  (view) => view.getBigUint64(0),
);
/** Host order. */
export const u64 = fixed<bigint>(
  8,
  (view, value) => view.setBigUint64(0, value, true),
  (view) => view.getBigUint64(0, true),
);
/** Signed, network order: priorities of chains. */
export const be32s = fixed<number>(
  4,
  (view, value) => view.setInt32(0, value),
  (view) => view.getInt32(0),
);
export const i32 = fixed<number>(
  4,
  (view, value) => view.setInt32(0, value, true),
  (view) => view.getInt32(0, true),
);

/** Bytes as they are; decoding copies. */
export const raw: Codec<Uint8Array> = { encode: (value) => value, decode: (bytes) => bytes.slice() };

/** Text ended by a zero byte; decoding takes what stands before the first one. */
export const text: Codec<string> = {
  encode: (value) => new TextEncoder().encode(`${value}\0`),
  decode: (bytes) => {
    const end = bytes.indexOf(0);
    return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
  },
};

/** An attribute that says something by being there; its value is true. */
export const flag: Codec<true> = { encode: () => new Uint8Array(0), decode: () => true };

type StructValue<F extends Record<string, FixedCodec<unknown>>> = {
  readonly [K in keyof F]: F[K] extends FixedCodec<infer T> ? T : never;
};

/** Fields one behind the other, without padding between them. `name` is the C struct's. */
export function struct<F extends Record<string, FixedCodec<unknown>>>(
  name: string,
  fields: F,
): FixedCodec<StructValue<F>> {
  const entries = Object.entries(fields);
  const size = entries.reduce((sum, [, field]) => sum + field.size, 0);
  return {
    size,
    encode: (value, path) => {
      const values = value as Record<string, unknown>;
      return concat(entries.map(([key, field]) => field.encode(values[key], `${path}.${name}.${key}`)));
    },
    decode: (bytes, path) => {
      if (bytes.length < size) throw new DecodeError(`${path}.${name}`, `${size} bytes needed, ${bytes.length} found`);
      let at = 0;
      const values: Record<string, unknown> = {};
      for (const [key, field] of entries) {
        values[key] = field.decode(bytes.subarray(at, at + field.size), `${path}.${name}.${key}`);
        at += field.size;
      }
      return values as StructValue<F>;
    },
  };
}

/** The byte arrays one behind the other. */
export function concat(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
