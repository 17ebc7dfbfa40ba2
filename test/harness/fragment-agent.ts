// Runs in the router: sends fragments by hand, in any order, over one or several next hops. One JSON command per line.
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import {
  AF_INET,
  AF_INET6,
  connectInet,
  openSocket,
  raiseSendBuffer,
  SendRing,
  SOCK_RAW,
  SOL_SOCKET,
  setSocketOption,
} from "#sys";
import { addressBytes, type Family, VIPS } from "./flows.js";
import { fragmentPacket, udpFragments } from "./fragment-packets.js";
import { endsOf, type Flood, payloadOf, type Traffic } from "./fragment-traffic.js";
import { randomNumbers } from "./random.js";

const IPPROTO_RAW = 255;
const SO_MARK = 36;
const MTU = 1_500;
const BURST = 32;
/** Fragments that are made up for at once after the machine was busy: more would overrun the queue. */
const MOST_AT_ONCE = 256;
const random = randomNumbers(0x1234);

/** A raw socket to the VIP over the next hop that the mark selects, and memory to send many packets at once. */
function openPath(family: Family, mark: number) {
  const fd = openSocket(family === 4 ? AF_INET : AF_INET6, SOCK_RAW, IPPROTO_RAW);
  setSocketOption(fd, SOL_SOCKET, SO_MARK, mark);
  raiseSendBuffer(fd, 4 << 20);
  connectInet(fd, addressBytes(VIPS[family]), 0);
  return { fd, ring: new SendRing(BURST, MTU + 4) };
}

const paths = new Map<string, ReturnType<typeof openPath>>();

function path(family: Family, mark: number) {
  const key = `${family} ${mark}`;
  const known = paths.get(key) ?? openPath(family, mark);
  paths.set(key, known);
  return known;
}

function send(family: Family, mark: number, packets: readonly Uint8Array[]): void {
  const { fd, ring } = path(family, mark);
  for (let done = 0; done < packets.length; ) {
    const burst = packets.slice(done, done + BURST);
    for (const [slot, packet] of burst.entries()) {
      ring.u8.set(packet, ring.dataOffset + slot * ring.slotBytes);
      ring.setSlotLength(slot, packet.length);
    }
    const sent = ring.send(fd, burst.length);
    if (sent !== burst.length) throw new Error(`${sent} of ${burst.length} packets sent`);
    done += sent;
  }
}

/** Calls `step` for numbers up to `count`, at `rate` per second, not more than `most` at once. */
async function pace(
  count: number,
  rate: number,
  most: number,
  step: (from: number, to: number) => void,
): Promise<{ ms: number }> {
  const startMs = performance.now();
  for (let sent = 0; sent < count; ) {
    const due = Math.min(count, Math.ceil(((performance.now() - startMs) * rate) / 1000), sent + most);
    if (due > sent) step(sent, due);
    sent = Math.max(sent, due);
    await delay(1);
  }
  return { ms: Math.round(performance.now() - startMs) };
}

function shuffle<T>(list: T[]): T[] {
  for (let i = list.length - 1; i > 0; i--) {
    const other = random(i + 1);
    [list[i], list[other]] = [list[other]!, list[i]!];
  }
  return list;
}

/** Identification 0 is none: the kernel would put in its own. */
const identification = (id: number) => 1 + (id % 65_535);

/** Everything to be sent, made beforehand: per window of datagrams the fragments in their order. */
function windowsOf({ family, first, count, bytes, order, window }: Traffic): Uint8Array[][] {
  return Array.from({ length: Math.ceil(count / window) }, (_, w) => {
    const ids = Array.from({ length: Math.min(window, count - w * window) }, (_unused, i) => first + w * window + i);
    const fragments = ids.flatMap((id) =>
      udpFragments(endsOf(family, id), identification(id), payloadOf(id, bytes), MTU),
    );
    return order === "in order" ? fragments : order === "reversed" ? fragments.reverse() : shuffle(fragments);
  });
}

async function sendTraffic(traffic: Traffic): Promise<object> {
  const windows = windowsOf(traffic);
  const { paths: marks, family, rate, window } = traffic;
  const most = Math.max(1, Math.floor(MOST_AT_ONCE / windows[0]!.length));
  const paced = await pace(windows.length, rate / window, most, (from, to) => {
    const fragments = windows.slice(from, to).flat();
    for (const [turn, mark] of marks.entries())
      send(family, mark, marks.length === 1 ? fragments : fragments.filter((_, i) => i % marks.length === turn));
  });
  return { ...paced, fragments: windows.reduce((sum, one) => sum + one.length, 0) };
}

/** Later fragments of packets that have no first one. */
function sendFlood({ family, count, rate, source, path: mark }: Flood): Promise<object> {
  const destination = addressBytes(VIPS[family]);
  const payload = new Uint8Array(1_000);
  return pace(count, rate, MOST_AT_ONCE, (from, to) => {
    const packets = Array.from({ length: to - from }, (_, i) => {
      const address = addressBytes(source ?? VIPS[family]);
      if (source === null)
        for (let at = address.length === 4 ? 1 : 2; at < address.length; at++) address[at] = random(256);
      const identification = (from + i) & 0xffff;
      return fragmentPacket({
        family,
        source: address,
        destination,
        protocol: 17,
        identification,
        offset: 1_480,
        isLast: false,
        payload,
      });
    });
    send(family, mark, packets);
  });
}

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const { traffic, flood } = JSON.parse(line) as { traffic: Traffic; flood: Flood | null };
    Promise.all([sendTraffic(traffic), flood === null ? null : sendFlood(flood)]).then(
      ([answer]) => console.log(JSON.stringify(answer)),
      (error: Error) => console.log(JSON.stringify({ error: error.message })),
    );
  })
  .on("close", () => process.exit(0));
console.log(JSON.stringify({ ready: true }));
