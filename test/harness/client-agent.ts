// Runs inside the client host. Reads one JSON command per line, answers with one JSON line each.
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { createInterface } from "node:readline";
import { setTimeout as delay, setImmediate as nextTurn } from "node:timers/promises";
import {
  AF_INET,
  AF_INET6,
  bindInet,
  connectInet,
  MSG_DONTWAIT,
  openSocket,
  ReceiveRing,
  raiseReceiveBuffer,
  raiseSendBuffer,
  SendRing,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOCK_RAW,
  setSocketOption,
  watchReadable,
} from "#sys";
import {
  addressBytes,
  CLIENT_PORT,
  clientAddress,
  type Family,
  FLOWS,
  flowOf,
  setNumber,
  TCP_PORT,
  udpPacket,
  VIPS,
} from "./flows.js";
import type { TcpOptions } from "./topology.js";

const IPPROTO_RAW = 255;
const IPPROTO_IPV6 = 41;
const IPV6_V6ONLY = 26;
const BURST = 32;
/** What a generator that was held up makes good at once, half a queue; the rest of the delay is not made good. */
const MOST_AT_ONCE = 512;

type UdpCommand = {
  readonly cmd: "udp";
  readonly family: Family;
  readonly rate: number;
  readonly count: number;
  readonly firstId: number;
};
type TcpCommand = { readonly cmd: "tcp" | "open"; readonly family: Family; readonly count: number } & TcpOptions;
type Command = UdpCommand | TcpCommand | { readonly cmd: "answers" | "finish" };

/** Flows that were answered, per family, and answers in all. */
const answered = { 4: new Set<number>(), 6: new Set<number>() };
let isSending = false;
let isStopAsked = false;

for (const family of [4, 6] as const) {
  const fd = openSocket(family === 4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  raiseReceiveBuffer(fd, 8 << 20);
  if (family === 6) setSocketOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
  bindInet(fd, new Uint8Array(family === 4 ? 4 : 16), CLIENT_PORT);
  const ring = new ReceiveRing(64, 64);
  watchReadable(
    fd,
    () => {
      for (let count = ring.receive(fd, MSG_DONTWAIT); count > 0; count = ring.receive(fd, MSG_DONTWAIT)) {
        for (let i = 0; i < count; i++)
          answered[family].add(flowOf(ring.view.getUint32(ring.dataOffset + i * ring.slotBytes)));
      }
    },
    (error) => console.error(error),
  );
}

/** Sends `count` packets numbered from `firstId` at `rate` per second, or fewer when told to stop. */
async function sendUdp({ family, rate, count, firstId }: UdpCommand): Promise<object> {
  const fd = openSocket(family === 4 ? AF_INET : AF_INET6, SOCK_RAW, IPPROTO_RAW);
  raiseSendBuffer(fd, 4 << 20);
  connectInet(fd, addressBytes(VIPS[family]), 0);
  const packets = Array.from({ length: FLOWS }, (_, flow) => udpPacket(flow, family));
  const ring = new SendRing(BURST, 72);
  const payload = family === 4 ? 28 : 48;
  for (let slot = 0; slot < BURST; slot++) ring.setSlotLength(slot, packets[0]!.length);
  const startMs = performance.now();
  let dueFromMs = startMs;
  let sent = 0;
  let worstGapMs = 0;
  let lastMs = startMs;
  isSending = true;
  isStopAsked = false;
  while (sent < count && !isStopAsked) {
    const nowMs = performance.now();
    worstGapMs = Math.max(worstGapMs, nowMs - lastMs);
    lastMs = nowMs;
    const late = Math.floor(((nowMs - dueFromMs) * rate) / 1000) - sent - MOST_AT_ONCE;
    // Else the machine's stall would become a burst faster than any rate that is meant.
    if (late > 0) dueFromMs += (late * 1000) / rate;
    const due = Math.min(count, Math.floor(((nowMs - dueFromMs) * rate) / 1000));
    while (sent < due) {
      const burst = Math.min(BURST, due - sent);
      for (let slot = 0; slot < burst; slot++) {
        const at = ring.dataOffset + slot * ring.slotBytes;
        ring.u8.set(packets[flowOf(firstId + sent + slot)]!, at);
        setNumber(ring.view, at + payload, firstId + sent + slot);
      }
      let done = 0;
      while (done < burst) {
        const result = ring.send(fd, burst);
        if (result < 0) throw new Error(`send: errno ${-result}`);
        if (result !== burst) throw new Error(`${result} of ${burst} packets sent`);
        done += result;
      }
      sent += burst;
    }
    if (late <= 0) await delay(1);
    else await nextTurn(); // one that cannot keep up still listens for `stop`
  }
  isSending = false;
  const seconds = (performance.now() - startMs) / 1000;
  return { sent, rate: Math.round(sent / seconds), worstGapMs: Math.round(worstGapMs) };
}

/** Opens connections, 8 at a time, from different addresses; each asks for bytes and gets the target's name with them. */
async function sendTcp({ family, count, first = 0, bytes = 0, stallMs = 5_000 }: TcpCommand): Promise<object> {
  const targets: Record<string, number> = {};
  const failures: string[] = [];
  const one = (i: number) =>
    new Promise<void>((resolve) => {
      const socket = connect({
        host: VIPS[family],
        port: TCP_PORT,
        localAddress: clientAddress((first + i) % FLOWS, family),
      });
      let text = "";
      socket.setTimeout(stallMs, () =>
        socket.destroy(new Error(`nothing for ${stallMs} ms after ${text.length} bytes`)),
      );
      socket.on("connect", () => socket.write(`${bytes}\n`));
      socket.on("data", (chunk) => {
        text += chunk;
      });
      socket.on("error", (error) => failures.push(error.message));
      socket.on("close", () => {
        const name = text.slice(0, text.indexOf("\n"));
        if (name !== "" && text.length === name.length + 1 + bytes) targets[name] = (targets[name] ?? 0) + 1;
        resolve();
      });
    });
  for (let i = 0; i < count; i += 8)
    await Promise.all(Array.from({ length: Math.min(8, count - i) }, (_, k) => one(i + k)));
  const answeredCount = Object.values(targets).reduce((sum, n) => sum + n, 0);
  return { connections: count, answered: answeredCount, targets, failures };
}

/** Connections that are open and have asked for nothing yet. */
let held: Socket[] = [];

/** Opens `count` connections from different addresses and leaves them at that. */
async function openTcp({ family, count, first = 0 }: TcpCommand): Promise<object> {
  held = Array.from({ length: count }, (_, i) =>
    connect({ host: VIPS[family], port: TCP_PORT, localAddress: clientAddress((first + i) % FLOWS, family) }),
  );
  for (const socket of held) socket.setTimeout(5_000, () => socket.destroy(new Error("nothing for 5 s")));
  await Promise.all(held.map((socket) => once(socket, "connect")));
  return {};
}

/** Lets the open connections ask for the target's name; one name per connection, or why there is none. */
async function finishTcp(): Promise<object> {
  const name = async (socket: Socket) => {
    socket.write("0\n");
    const [chunk] = (await once(socket, "data")) as [Buffer];
    socket.destroy();
    return String(chunk).trim();
  };
  return { names: await Promise.all(held.map((socket) => name(socket).catch((error: Error) => error.message))) };
}

async function run(command: Command): Promise<object> {
  if (command.cmd === "udp") return sendUdp(command);
  if (command.cmd === "tcp") return sendTcp(command);
  if (command.cmd === "open") return openTcp(command);
  if (command.cmd === "finish") return finishTcp();
  return { 4: [...answered[4]], 6: [...answered[6]] };
}

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const command = JSON.parse(line) as Command | { cmd: "stop" };
    if (command.cmd === "stop") {
      if (isSending) isStopAsked = true;
      return;
    }
    run(command).then(
      (answer) => console.log(JSON.stringify(answer)),
      (error: Error) => console.log(JSON.stringify({ error: error.message })),
    );
  })
  .on("close", () => process.exit(0));
console.log(JSON.stringify({ ready: true }));
