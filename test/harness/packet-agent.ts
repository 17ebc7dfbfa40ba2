// Runs inside any host: sends packets as they are, and keeps the IP packets that come in, whatever they are.
import { createInterface } from "node:readline";
import {
  AF_INET,
  AF_INET6,
  AF_PACKET,
  MSG_DONTWAIT,
  openSocket,
  ReceiveRing,
  raiseReceiveBuffer,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOCK_RAW,
  sendInet,
  watchReadable,
} from "#sys";

const IPPROTO_RAW = 255;
/** ETH_P_IP and ETH_P_IPV6 in network order. Sockets for one protocol see what comes in, not what goes out. */
const PROTOCOLS = [0x0008, 0xdd86];
const KEPT_BYTES = 2_048;

type Command = { readonly cmd: "send"; readonly packets: readonly string[] } | { readonly cmd: "captured" };

let captured: string[] = [];
const raw4 = openSocket(AF_INET, SOCK_RAW, IPPROTO_RAW);
const raw6 = openSocket(AF_INET6, SOCK_RAW, IPPROTO_RAW);

for (const protocol of PROTOCOLS) {
  const fd = openSocket(AF_PACKET, SOCK_DGRAM | SOCK_NONBLOCK, protocol);
  raiseReceiveBuffer(fd, 16 << 20);
  const ring = new ReceiveRing(64, KEPT_BYTES);
  watchReadable(
    fd,
    () => {
      for (let count = ring.receive(fd, MSG_DONTWAIT); count > 0; count = ring.receive(fd, MSG_DONTWAIT)) {
        for (let i = 0; i < count; i++) {
          const at = ring.dataOffset + i * ring.slotBytes;
          captured.push(Buffer.from(ring.u8.subarray(at, at + ring.length(i))).toString("hex"));
        }
      }
    },
    (error) => console.error(error),
  );
}

function send(packets: readonly string[]): object {
  for (const hex of packets) {
    const bytes = Buffer.from(hex, "hex");
    const is4 = bytes[0]! >> 4 === 4;
    const destination = Uint8Array.from(is4 ? bytes.subarray(16, 20) : bytes.subarray(24, 40));
    const errno = sendInet(is4 ? raw4 : raw6, Uint8Array.from(bytes), destination, 0);
    if (errno !== 0) return { error: `send: errno ${errno}` };
  }
  return { sent: packets.length };
}

function run(command: Command): object {
  if (command.cmd === "send") return send(command.packets);
  const packets = captured;
  captured = [];
  return { packets };
}

createInterface({ input: process.stdin })
  .on("line", (line) => console.log(JSON.stringify(run(JSON.parse(line) as Command))))
  .on("close", () => process.exit(0));
console.log(JSON.stringify({ ready: true }));
