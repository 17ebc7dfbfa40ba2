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

/**
 * A codec whose bytes have a fixed length; structs are made of these. `read` and `write` work on bytes that are there, at
 * `at` of the view, and allocate nothing: reading the kernel is mostly these.
 */
export type FixedCodec<T> = Codec<T> & {
  readonly size: number;
  read(view: DataView, at: number): T;
  /** `path` and `key` name the value, for messages only. @throws {RangeError} */
  write(view: DataView, at: number, value: T, path: string, key: string): void;
};

export type ValueOf<C> = C extends Codec<infer T> ? T : never;

function fixed<T>(size: number, write: FixedCodec<T>["write"], read: FixedCodec<T>["read"]): FixedCodec<T> {
  return {
    size,
    read,
    write,
    encode: (value, path) => {
      const bytes = new Uint8Array(size);
      write(new DataView(bytes.buffer), 0, value, path, "");
      return bytes;
    },
    decode: (bytes, path) => {
      if (bytes.length < size) throw new DecodeError(path, `${size} bytes needed, ${bytes.length} found`);
      return read(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), 0);
    },
  };
}

const joined = (path: string, key: string) => (key === "" ? path : `${path}.${key}`);

function unsigned(
  size: 1 | 2 | 4,
  write: (view: DataView, at: number, value: number) => void,
  read: (view: DataView, at: number) => number,
): FixedCodec<number> {
  const limit = 2 ** (size * 8);
  return fixed(
    size,
    (view, at, value, path, key) => {
      if (!Number.isInteger(value) || value < 0 || value >= limit) {
        throw new RangeError(`${joined(path, key)}: ${value} is not a whole number 0..${limit - 1}`);
      }
      write(view, at, value);
    },
    read,
  );
}

export const u8 = unsigned(
  1,
  (view, at, value) => view.setUint8(at, value),
  (view, at) => view.getUint8(at),
);
/** Host order; the machines we run on are little endian. */
export const u16 = unsigned(
  2,
  (view, at, value) => view.setUint16(at, value, true),
  (view, at) => view.getUint16(at, true),
);
export const u32 = unsigned(
  4,
  (view, at, value) => view.setUint32(at, value, true),
  (view, at) => view.getUint32(at, true),
);
/** Network order. */
export const be16 = unsigned(
  2,
  (view, at, value) => view.setUint16(at, value),
  (view, at) => view.getUint16(at),
);
export const be32 = unsigned(
  4,
  (view, at, value) => view.setUint32(at, value),
  (view, at) => view.getUint32(at),
);
export const be64 = fixed<bigint>(
  8,
  (view, at, value) => view.setBigUint64(at, value),
  (view, at) => view.getBigUint64(at),
);
/** Host order. */
export const u64 = fixed<bigint>(
  8,
  (view, at, value) => view.setBigUint64(at, value, true),
  (view, at) => view.getBigUint64(at, true),
);
/** Signed, network order: priorities of chains. */
export const be32s = fixed<number>(
  4,
  (view, at, value) => view.setInt32(at, value),
  (view, at) => view.getInt32(at),
);
export const i32 = fixed<number>(
  4,
  (view, at, value) => view.setInt32(at, value, true),
  (view, at) => view.getInt32(at, true),
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
  let size = 0;
  const entries = Object.entries(fields).map(([key, field]) => {
    const at = size;
    size += field.size;
    return { key, field, at };
  });
  const read = (view: DataView, start: number) => {
    const values: Record<string, unknown> = {};
    for (const { key, field, at } of entries) values[key] = field.read(view, start + at);
    return values as StructValue<F>;
  };
  const write: FixedCodec<StructValue<F>>["write"] = (view, start, value, path, key) => {
    const values = value as Record<string, unknown>;
    const where = `${joined(path, key)}.${name}`;
    for (const { key: own, field, at } of entries) field.write(view, start + at, values[own], where, own);
  };
  return {
    ...fixed(size, write, read),
    decode: (bytes, path) => {
      if (bytes.length < size) throw new DecodeError(`${path}.${name}`, `${size} bytes needed, ${bytes.length} found`);
      return read(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), 0);
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
