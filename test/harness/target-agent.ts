// Runs inside a target: notes the number of every packet it gets, answers a part of them, serves TCP.
import { writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { createInterface } from "node:readline";
import {
  AF_INET,
  AF_INET6,
  bindInet,
  MSG_DONTWAIT,
  openSocket,
  ReceiveRing,
  raiseReceiveBuffer,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  sendInet,
  watchReadable,
} from "#sys";
import { addressBytes, CLIENT_PORT, clientAddress, FLOWS, flowOf, TCP_PORT, UDP_PORT, VIPS } from "./flows.js";

const [name = "?", maxIdText = "0"] = process.argv.slice(2);
/** Per packet number: how often it came (255 at most). */
const received = new Uint8Array(Number(maxIdText));
let total = 0;
/** Somebody wants to know when the next packet comes. */
let isAwaited = false;

for (const family of [4, 6] as const) {
  const fd = openSocket(family === 4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  raiseReceiveBuffer(fd, 32 << 20);
  bindInet(fd, addressBytes(VIPS[family]), UDP_PORT);
  const ring = new ReceiveRing(64, 64);
  const answers = Array.from({ length: FLOWS }, (_, flow) => addressBytes(clientAddress(flow, family)));
  const isAnswered = new Uint8Array(FLOWS);
  watchReadable(
    fd,
    () => {
      const before = total;
      for (let count = ring.receive(fd, MSG_DONTWAIT); count > 0; count = ring.receive(fd, MSG_DONTWAIT)) {
        for (let i = 0; i < count; i++) {
          const at = ring.dataOffset + i * ring.slotBytes;
          const id = ring.view.getUint32(at);
          if (id < received.length && received[id]! < 255) received[id]!++;
          total++;
          const flow = flowOf(id);
          if (isAnswered[flow] === 1) continue;
          isAnswered[flow] = 1; // each target answers each flow once
          sendInet(fd, ring.u8.slice(at, at + ring.length(i)), answers[flow]!, CLIENT_PORT);
        }
      }
      if (isAwaited && total > before) {
        isAwaited = false;
        console.log(JSON.stringify({ atNs: String(process.hrtime.bigint()) })); // CLOCK_MONOTONIC, the same for all processes
      }
    },
    (error) => console.error(error),
  );
}

/** A line asks for the target's name, and for as many bytes as it says. */
createServer((socket) => {
  socket.on("error", () => {});
  socket.once("data", (line) => socket.end(`${name}\n${"x".repeat(Number(line.toString()))}`));
}).listen(TCP_PORT, "::"); // every address, IPv4 too

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const command = JSON.parse(line) as { cmd: "dump"; path: string } | { cmd: "total" | "next" };
    if (command.cmd === "dump") writeFileSync(command.path, received);
    if (command.cmd === "next") isAwaited = true;
    else console.log(JSON.stringify({ total }));
  })
  .on("close", () => process.exit(0));
console.log(JSON.stringify({ ready: true }));
