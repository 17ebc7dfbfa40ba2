// Packets near what rules ask for, whole, in fragments, quoted in ICMP errors, and all of that with wrong bytes.
import type { FlowRule } from "#flow";
import { pick, type Random } from "../harness/random.js";
import { packetNear } from "../harness/random-flows.js";

export type GivenPacket = { etherType: number; bytes: number[] };

const PROTOCOLS = [0, 1, 6, 17, 43, 44, 47, 50, 51, 58, 59, 60, 132, 135];
const INTERESTING = [0, 1, 2, 3, 4, 5, 7, 8, 11, 12, 0x1f, 0x20, 0x45, 0x60, 127, 128, 129, 255];
const ERRORS_4 = [3, 4, 5, 11, 12];
const ERRORS_6 = [1, 2, 3, 4];
const FRAGMENT = 44;
/** More than the kernel copies out. */
const MOST_BYTES = 400;

/** One to three packets that belong together. */
export function packetInput(random: Random, rules: readonly FlowRule[], known: readonly GivenPacket[]): GivenPacket[] {
  const kind = random(20);
  if (kind < 3) return [spoil(random, copy(pick(random, known)))];
  const { etherType, bytes } = packetNear(rules, random);
  const plain = { etherType, bytes: [...bytes] };
  if (kind < 14) return [maybeSpoil(random, plain)];
  const id = random(4);
  const first = fragmentOf(random, plain, id, 0);
  const later = fragmentOf(random, plain, random(10) === 0 ? id ^ 1 : id, 1 + random(100));
  const packets = random(3) === 0 ? [later, first, later] : [first, later];
  const isQuoted = kind >= 17;
  return packets.map((packet) => {
    const sent = random(12) === 0 ? spoil(random, copy(packet)) : packet;
    return isQuoted ? errorAbout(random, sent) : sent;
  });
}

const copy = ({ etherType, bytes }: GivenPacket): GivenPacket => ({ etherType, bytes: [...bytes] });

/** The packet as a fragment: with `offset` 0, in units of 8 bytes, the first one. */
function fragmentOf(random: Random, { etherType, bytes }: GivenPacket, id: number, offset: number): GivenPacket {
  const isMore = offset === 0 || random(2) === 0;
  if (etherType === 0x0800) {
    const fragment = [...bytes];
    const total = bytes.length;
    fragment.splice(2, 6, total >> 8, total & 255, 0, id, (isMore ? 0x20 : 0) | (offset >> 8), offset & 255);
    return { etherType, bytes: fragment };
  }
  const field = (offset << 3) | (isMore ? 1 : 0);
  const header = [bytes[6]!, 0, field >> 8, field & 255, 0, 0, 0, id];
  const fragment = [...bytes.slice(0, 40), ...header, ...bytes.slice(40)];
  fragment[6] = FRAGMENT;
  fragment[5] = (fragment.length - 40) & 255;
  return { etherType, bytes: fragment };
}

/** An ICMP error from a router on the way, about a packet that was sent by its destination: the quoted one is turned round. */
function errorAbout(random: Random, { etherType, bytes }: GivenPacket): GivenPacket {
  const is4 = etherType === 0x0800;
  const [addresses, size, l4] = is4 ? [12, 4, 20] : [8, 16, 40];
  const source = bytes.slice(addresses, addresses + size);
  const destination = bytes.slice(addresses + size, addresses + 2 * size);
  const quoted = [...bytes.slice(0, addresses), ...destination, ...source, ...bytes.slice(addresses + 2 * size)];
  const icmp = [pick(random, is4 ? ERRORS_4 : ERRORS_6), random(5), 0, 0, 0, 0, 0, 0];
  const head = is4
    ? [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 192, 0, 2, random(256), ...destination]
    : [0x60, 0, 0, 0, 0, 0, 58, 64, 0x20, 1, 13, 0xb8, ...Array<number>(11).fill(0), random(256), ...destination];
  return { etherType, bytes: [...head.slice(0, l4), ...icmp, ...quoted].slice(0, MOST_BYTES) };
}

function maybeSpoil(random: Random, packet: GivenPacket): GivenPacket {
  return random(2) === 0 ? spoil(random, packet) : packet;
}

function spoil(random: Random, packet: GivenPacket): GivenPacket {
  const { bytes } = packet;
  for (let n = 1 + random(5); n > 0; n--) {
    const kind = random(8);
    const at = bytes.length === 0 ? 0 : random(Math.min(bytes.length, 80));
    if (kind < 3) bytes[at] = pick(random, INTERESTING);
    else if (kind === 3) setProtocol(packet, pick(random, PROTOCOLS));
    else if (kind === 4) bytes[at] = random(256);
    else if (kind === 5) bytes.length = random(bytes.length + 1);
    else if (kind === 6) addHeader(random, packet);
    else bytes.splice(at, random(9));
  }
  if (random(50) === 0) packet.etherType = pick(random, [0, 0x0800, 0x86dd, 0x8100, random(65_536)]);
  if (bytes.length > MOST_BYTES) bytes.length = MOST_BYTES;
  return packet;
}

function setProtocol({ etherType, bytes }: GivenPacket, protocol: number): void {
  const at = etherType === 0x0800 ? 9 : 6;
  if (at < bytes.length) bytes[at] = protocol;
}

/** IPv6: an extension header more, in front; IPv4: options. */
function addHeader(random: Random, { etherType, bytes }: GivenPacket): void {
  if (etherType === 0x0800) {
    if (bytes.length < 20) return;
    bytes[0] = 0x46;
    bytes.splice(20, 0, 1, 1, 1, 0);
    return;
  }
  if (bytes.length < 40) return;
  const words = random(4) === 0 ? random(20) : 0;
  const [type, field] = [pick(random, [0, 43, 44, 44, 60, 60]), random(3) === 0 ? random(65_536) : random(2)];
  const header = [bytes[6]!, words, field >> 8, field & 255, 0, 0, 0, random(4)];
  bytes[6] = type;
  const size = type === FRAGMENT ? 8 : random(10) === 0 ? 8 : 8 * (words + 1);
  bytes.splice(40, 0, ...header, ...Array<number>(size - 8).fill(0));
}
