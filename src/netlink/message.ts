import { align, DecodeError } from "#bytes";

/** include/uapi/linux/netlink.h (v6.18). */
export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;
export const NLM_F_REQUEST = 0x1;
export const NLM_F_ACK = 0x4;
export const NLM_F_DUMP_INTR = 0x10;
export const NLM_F_DUMP = 0x300;
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
export const NLM_F_APPEND = 0x800;
/** nlmsgerr flags: the error comes without the request's payload; attributes follow. */
const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;

/** `struct nlmsghdr`. */
export const MESSAGE_HEADER_BYTES = 16;

/** One netlink message. `body` is a view of what was received. */
export type Message = {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  readonly portId: number;
  readonly body: Uint8Array;
};

/** `struct nlmsghdr` and the body, padded to 4 bytes. */
export function encodeMessage(type: number, flags: number, sequence: number, body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(align(MESSAGE_HEADER_BYTES + body.length));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MESSAGE_HEADER_BYTES + body.length, true);
  view.setUint16(4, type, true);
  view.setUint16(6, flags, true);
  view.setUint32(8, sequence, true);
  bytes.set(body, MESSAGE_HEADER_BYTES);
  return bytes;
}

/** Cuts one datagram into messages; the last may lack its padding (nfnetlink_queue). @throws {DecodeError} */
export function splitMessages(bytes: Uint8Array): readonly Message[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const messages: Message[] = [];
  eachMessage(view, bytes.length, (at, length) => {
    messages.push({
      type: typeAt(view, at),
      flags: flagsAt(view, at),
      sequence: sequenceAt(view, at),
      portId: view.getUint32(at + 12, true),
      body: bytes.subarray(at + MESSAGE_HEADER_BYTES, at + length),
    });
  });
  return messages;
}

/**
 * Calls `visit` with where each message of a datagram begins and its length, the header included: for who has thousands of
 * them and needs no object of each. @throws {DecodeError} as {@link splitMessages}
 */
export function eachMessage(view: DataView, bytes: number, visit: (at: number, length: number) => void): void {
  for (let at = 0; at < bytes; ) {
    if (bytes - at < MESSAGE_HEADER_BYTES) throw new DecodeError("nlmsghdr", `${bytes - at} stray bytes at ${at}`);
    const length = view.getUint32(at, true);
    if (length < MESSAGE_HEADER_BYTES || at + length > bytes)
      throw new DecodeError("nlmsghdr.len", `${length} at ${at}, ${bytes - at} bytes left`);
    visit(at, length);
    at += align(length);
  }
}

export const typeAt = (view: DataView, at: number) => view.getUint16(at + 4, true);
export const flagsAt = (view: DataView, at: number) => view.getUint16(at + 6, true);
export const sequenceAt = (view: DataView, at: number) => view.getUint32(at + 8, true);
/** Makes messages equal that differ in nothing else. */
export const blankSequence = (view: DataView, at: number) => view.setUint32(at + 8, 0, true);

/** What an NLMSG_ERROR or NLMSG_DONE says. */
export type Outcome = {
  /** 0 = success, else a positive errno. */
  readonly errno: number;
  /** The kernel's explanation, or "". */
  readonly text: string;
  /** Offset of the offending attribute in the request, or -1. */
  readonly offset: number;
};

const NLMSGERR_ATTR_MSG = 1;
const NLMSGERR_ATTR_OFFS = 2;

/** Reads `struct nlmsgerr` with its extended-ack attributes; NLMSG_DONE has the same shape without the request. */
export function decodeOutcome({ type, flags, body }: Message): Outcome {
  if (type !== NLMSG_ERROR && body.length < 4) return { errno: 0, text: "", offset: -1 }; // NLMSG_DONE of old kernels
  if (body.length < 4) throw new DecodeError("nlmsgerr", `${body.length} bytes`);
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const errno = 0 - view.getInt32(0, true);
  let at = 4;
  if (type === NLMSG_ERROR) {
    if (body.length < 4 + MESSAGE_HEADER_BYTES) throw new DecodeError("nlmsgerr", `${body.length} bytes`);
    at = 4 + ((flags & NLM_F_CAPPED) !== 0 ? MESSAGE_HEADER_BYTES : align(view.getUint32(4, true)));
  }
  let text = "";
  let offset = -1;
  if ((flags & NLM_F_ACK_TLVS) === 0) return { errno, text, offset };
  while (at + 4 <= body.length) {
    const length = view.getUint16(at, true);
    if (length < 4 || at + length > body.length) break;
    const attribute = view.getUint16(at + 2, true) & 0x3fff;
    if (attribute === NLMSGERR_ATTR_MSG) {
      text = new TextDecoder().decode(body.subarray(at + 4, at + length)).replace(/\0.*$/, "");
    } else if (attribute === NLMSGERR_ATTR_OFFS && length >= 8) offset = view.getUint32(at + 4, true);
    at += align(length);
  }
  return { errno, text, offset };
}
