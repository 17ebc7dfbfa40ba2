// A strict reader of pcapng files, written from the draft alone: whatever the draft forbids, or what we never mean to
// write, is an error. draft-ietf-opsawg-pcapng-03, sections 3 and 4.

export type PcapngPacket = {
  readonly interfaceName: string;
  readonly queue: number;
  readonly timestampNs: bigint;
  readonly bytes: Uint8Array;
  readonly originalLength: number;
  readonly comments: readonly string[];
};

type Option = { readonly code: number; readonly value: Uint8Array };
type Interface = { readonly name: string; readonly snapLength: number };

const text = (bytes: Uint8Array) => new TextDecoder("utf-8", { fatal: true }).decode(bytes);

/** The packets of a file with raw IP interfaces and nanosecond timestamps. @throws {Error} naming the byte */
export function readPcapngStrictly(given: Uint8Array): readonly PcapngPacket[] {
  const file = new Uint8Array(given); // a Buffer's slice would be no copy
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const interfaces: Interface[] = [];
  const packets: PcapngPacket[] = [];
  for (let at = 0; at < file.length; ) {
    const fail = (problem: string) => new Error(`byte ${at}: ${problem}`);
    if (at + 12 > file.length) throw fail("a block breaks off");
    const type = view.getUint32(at, true);
    const length = view.getUint32(at + 4, true);
    if (length < 12 || length % 4 !== 0 || at + length > file.length) throw fail(`block length ${length}`);
    if (view.getUint32(at + length - 4, true) !== length) throw fail("the two block lengths differ");
    const end = at + length - 4;
    if ((at === 0) !== (type === 0x0a0d0d0a)) throw fail("one section header, at the beginning");
    if (type === 0x0a0d0d0a) {
      if (view.getUint32(at + 8, true) !== 0x1a2b3c4d) throw fail("byte order magic");
      if (view.getUint16(at + 12, true) !== 1 || view.getUint16(at + 14, true) !== 0) throw fail("version");
      if (view.getBigInt64(at + 16, true) !== -1n) throw fail("section length");
      readOptions(file, at + 24, end);
    } else if (type === 1) {
      if (view.getUint16(at + 8, true) !== 101) throw fail("link type");
      if (view.getUint16(at + 10, true) !== 0) throw fail("reserved field");
      const options = readOptions(file, at + 16, end);
      const resolution = options.find(({ code }) => code === 9)?.value;
      if (resolution?.length !== 1 || resolution[0] !== 9) throw fail("timestamp resolution");
      const name = options.find(({ code }) => code === 2)?.value;
      interfaces.push({ name: text(name ?? new Uint8Array(0)), snapLength: view.getUint32(at + 12, true) });
    } else if (type === 6) {
      const from = interfaces[view.getUint32(at + 8, true)];
      const captured = view.getUint32(at + 20, true);
      const originalLength = view.getUint32(at + 24, true);
      if (from === undefined) throw fail("an interface that is not there");
      if (captured > from.snapLength || captured > originalLength) throw fail(`captured length ${captured}`);
      const padded = (captured + 3) & ~3;
      if (file.subarray(at + 28 + captured, at + 28 + padded).some((byte) => byte !== 0)) throw fail("padding");
      const options = readOptions(file, at + 28 + padded, end);
      const queue = options.filter(({ code }) => code === 6).map(({ value }) => value);
      if (queue.length !== 1 || queue[0]!.length !== 4) throw fail("epb_queue");
      packets.push({
        interfaceName: from.name,
        queue: new DataView(queue[0]!.slice().buffer).getUint32(0, true),
        timestampNs: (BigInt(view.getUint32(at + 12, true)) << 32n) | BigInt(view.getUint32(at + 16, true)),
        bytes: file.slice(at + 28, at + 28 + captured),
        originalLength,
        comments: options.flatMap(({ code, value }) => (code === 1 ? [text(value)] : [])),
      });
    } else throw fail(`block type ${type}`);
    at += length;
  }
  return packets;
}

/** The options up to `end`; they end with opt_endofopt just there. */
function readOptions(file: Uint8Array, from: number, end: number): readonly Option[] {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const options: Option[] = [];
  for (let at = from; at + 4 <= end; ) {
    const code = view.getUint16(at, true);
    const length = view.getUint16(at + 2, true);
    at += 4;
    if (code === 0) {
      if (length !== 0 || at !== end) throw new Error(`byte ${at}: opt_endofopt is not the end`);
      return options;
    }
    if (at + length > end) throw new Error(`byte ${at}: option of ${length} bytes`);
    options.push({ code, value: file.slice(at, at + length) });
    at += (length + 3) & ~3;
  }
  throw new Error(`byte ${end}: no opt_endofopt`);
}
