// Runs in a target: takes UDP datagrams that the kernel has put together again, and checks what is in them.
import { writeFileSync } from "node:fs";
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
  watchReadable,
} from "#sys";
import { addressBytes, VIPS } from "./flows.js";
import { PORT } from "./fragment-traffic.js";

/** Per datagram number: how often it came whole and right (255 at most). */
const received = new Uint8Array(Number(process.argv[2]));
let total = 0;
let wrong = 0;

for (const family of [4, 6] as const) {
  const fd = openSocket(family === 4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  raiseReceiveBuffer(fd, 64 << 20);
  bindInet(fd, addressBytes(VIPS[family]), PORT);
  const ring = new ReceiveRing(32, 65_536);
  watchReadable(
    fd,
    () => {
      for (let count = ring.receive(fd, MSG_DONTWAIT); count > 0; count = ring.receive(fd, MSG_DONTWAIT))
        for (let i = 0; i < count; i++) take(ring.u8, ring.dataOffset + i * ring.slotBytes, ring.length(i));
    },
    (error) => console.error(error),
  );
}

function take(bytes: Uint8Array, at: number, length: number): void {
  const id = ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
  let isRight = id < received.length;
  for (let i = 4; i < length; i++) isRight &&= bytes[at + i] === ((id * 31 + i * 7) & 255);
  total++;
  if (!isRight) wrong++;
  else if (received[id]! < 255) received[id]!++;
}

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const command = JSON.parse(line) as { cmd: "dump"; path: string } | { cmd: "total" };
    if (command.cmd === "dump") writeFileSync(command.path, received);
    console.log(JSON.stringify({ total, wrong }));
  })
  .on("close", () => process.exit(0));
console.log(JSON.stringify({ ready: true }));
