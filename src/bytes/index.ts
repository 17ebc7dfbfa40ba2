// For callers
export { type AttributesValue, align, attr, attributes, list, message, nested, records } from "./attributes.js";
export {
  be16,
  be32,
  be32s,
  be64,
  type Codec,
  concat,
  DecodeError,
  flag,
  i32,
  raw,
  struct,
  text,
  u8,
  u16,
  u32,
  u64,
  type ValueOf,
} from "./codec.js";
