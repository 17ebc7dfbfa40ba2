// Any bytes as messages of an NFQUEUE, against a reader that cuts attributes apart one by one. They come through a socket
// of our own, as the kernel's do.
import { PacketBatch } from "#netlink/queue";
import { MSG_DONTWAIT, NetlinkSocket, SendBlock } from "#sys";
import { pick, type Random } from "../../harness/random.js";
import { differ, type TargetMaker } from "../target.js";

/** A protocol on which user programs may write to each other. */
const NETLINK_USERSOCK = 2;
const COPY_BYTES = 128;
const SLOTS = 8;
const MOST_BYTES = 700; // some more than a slot
const LENGTHS = [0, 1, 3, 4, 5, 7, 8, 11, 12, 0x7fff, 0xffff];

type Plain = { readonly packets: readonly unknown[]; readonly errors: number; readonly malformed: number };

/** A message as the kernel builds it, with some of the attributes that it may have. */
function message(random: Random): number[] {
  const payload = Array.from({ length: random(random(20) === 0 ? 300 : COPY_BYTES) }, () => random(256));
  const attribute = (type: number, body: readonly number[], lie = 0) => {
    const length = (4 + body.length + lie) & 0xffff;
    const bytes = [length & 255, length >> 8, type & 255, type >> 8, ...body];
    while (bytes.length % 4 !== 0) bytes.push(0);
    return bytes;
  };
  const lie = () => (random(40) === 0 ? pick(random, LENGTHS) : 0);
  const id = Array.from({ length: 4 }, () => random(256));
  const attributes = [
    attribute(
      random(30) === 0 ? random(65_536) : 1,
      [
        ...id,
        ...pick(random, [
          [8, 0],
          [0x86, 0xdd],
          [1, 2],
        ]),
        random(5),
      ],
      lie(),
    ),
    ...(random(2) === 0 ? [attribute(5, [0, 0, 0, random(9)], lie())] : []),
    ...(random(4) === 0 ? [attribute(9, [0, 6, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0], lie())] : []),
    ...(random(3) === 0 ? [attribute(13, [0, 0, random(256), random(256)], lie())] : []),
    ...(random(12) > 0 ? [attribute(random(5) === 0 ? 0x800a : 10, payload, lie())] : []),
  ];
  const body = [0, 0, 0, 0, ...attributes.flat()];
  const type = random(15) === 0 ? pick(random, [1, 2, 3, 0x0301, random(65_536)]) : 0x0300;
  const length = 16 + body.length;
  const bytes = [length & 255, length >> 8, 0, 0, type & 255, type >> 8, 0, 0, ...Array<number>(8).fill(0), ...body];
  if (random(6) === 0) bytes.length = random(bytes.length + 1);
  if (random(6) === 0 && bytes.length > 0) bytes[random(bytes.length)] = random(256);
  return bytes.slice(0, MOST_BYTES);
}

export const queueMessagesTarget: TargetMaker = () => {
  const seen = { packets: 0, "without payload": 0, errors: 0, malformed: 0 };
  const [from, to] = [new NetlinkSocket(NETLINK_USERSOCK), new NetlinkSocket(NETLINK_USERSOCK)];
  const block = new SendBlock(MOST_BYTES);
  const batch = new PacketBatch(SLOTS, COPY_BYTES);
  const slotBytes = Math.ceil((COPY_BYTES + 384) / 64) * 64;
  return {
    seen,
    generate: (random) => ({
      settings: [],
      parts: Array.from({ length: 1 + random(SLOTS) }, () => Uint8Array.from(message(random))),
    }),
    weigh: ({ parts }) => parts.length,
    check({ parts }) {
      const some = parts.filter(({ length }) => length > 0).slice(0, SLOTS); // there are no datagrams without bytes
      const sent = some.map((part) => part.subarray(0, MOST_BYTES));
      if (sent.length === 0) return null;
      for (const part of sent) {
        block.u8.set(part);
        const errno = block.sendToPort(from.fd, part.length, to.portId);
        if (errno !== 0) return `errno ${errno}`;
      }
      const [errors, malformed] = [batch.errors, batch.malformed];
      const count = batch.receive(to.fd, MSG_DONTWAIT);
      const packets = Array.from({ length: count }, (_, n) => {
        const [start, end] = [batch.start[n]!, batch.end[n]!];
        const id = Buffer.from(batch.packetId.buffer, n * 4, 4).toString("hex");
        const payload = Buffer.from(batch.bytes.subarray(start, end)).toString("hex");
        const isThere = start > 0;
        if (isThere) batch.inputInterface(start); // reads where it should not, or for ever: would be seen
        return { id, etherType: batch.etherType[n], payload, length: isThere ? batch.originalLength(n) : 0 };
      });
      const got = { packets, errors: batch.errors - errors, malformed: batch.malformed - malformed };
      const want = sent.map((part) => readPlainly(part.subarray(0, slotBytes)));
      seen.packets += count;
      seen["without payload"] += packets.filter(({ payload }) => payload === "").length;
      seen.errors += got.errors;
      seen.malformed += got.malformed;
      return differ("batch", got, {
        packets: want.flatMap((one) => one.packets),
        errors: want.reduce((sum, one) => sum + one.errors, 0),
        malformed: want.reduce((sum, one) => sum + one.malformed, 0),
      });
    },
  };
};

/** `nfqnl_build_packet_message` the other way round: packet header first, the other attributes in any order. */
function readPlainly(given: Uint8Array): Plain {
  const bytes = Buffer.from(given);
  const none = { packets: [], errors: 0, malformed: 0 };
  const type = bytes.length >= 16 ? bytes.readUInt16LE(4) : -1;
  if (type === 1) return none;
  if (type === 2) return { ...none, errors: 1 };
  const isPacket = type === 0x0300 && bytes.length >= 32 && (bytes.readUInt16LE(22) & 0x3fff) === 1;
  if (!isPacket) return { ...none, malformed: 1 };
  const packet = { id: bytes.toString("hex", 24, 28), etherType: bytes.readUInt16BE(28), payload: "", length: 0 };
  let capture = -1;
  for (let rest = bytes.subarray(32); rest.length >= 4; ) {
    const length = rest.readUInt16LE(0);
    if (length < 4) break;
    const kind = rest.readUInt16LE(2) & 0x3fff;
    if (kind === 13 && capture < 0 && rest.length >= 8) capture = rest.readUInt32BE(4);
    if (kind === 10) {
      const payload = rest.subarray(4, length);
      packet.payload = payload.toString("hex");
      packet.length = capture >= 0 ? capture : payload.length;
      break;
    }
    rest = rest.subarray(Math.ceil(length / 4) * 4);
  }
  return { ...none, packets: [packet] };
}
