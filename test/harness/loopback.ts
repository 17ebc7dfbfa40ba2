// Queues without hosts: raw packets from many source addresses to a VIP on the loopback device of this namespace. What
// comes out of the queues is counted by nftables, by fwmark.
import { writeFileSync } from "node:fs";
import { diff, NOTHING_DESIRED, Steering } from "#steering";
import { AF_INET, bindInet, closeDescriptor, connectInet, openSocket, raiseSendBuffer, SendRing, SOCK_RAW } from "#sys";
import { addressBytes, FLOWS, udpPacket, VIPS } from "./flows.js";
import { ip, run } from "./namespace.js";

const IPPROTO_RAW = 255;
const BURST = 32;

/** Packets to the VIP of this namespace go to queues first…last; afterwards they are counted and swallowed. */
export class Loopback implements Disposable {
  readonly #steering = new Steering();
  readonly #fd = openSocket(AF_INET, SOCK_RAW, IPPROTO_RAW);
  readonly #ring = new SendRing(BURST, 72);

  constructor(first: number, last: number) {
    ip(`addr add ${VIPS[4]}/32 dev lo`, "route add local 10.200.0.0/16 dev lo");
    for (const name of ["all", "lo"]) writeFileSync(`/proc/sys/net/ipv4/conf/${name}/rp_filter`, "0");
    run(
      "nft",
      "add table ip counted; add chain ip counted in { type filter hook input priority 0; }; " +
        "add rule ip counted in udp dport 5000-5001 meta mark 0 counter drop; " +
        "add rule ip counted in udp dport 5000-5001 counter drop; " +
        "add rule ip counted in udp dport 666 drop",
    );
    this.queueTo(first, last);
    raiseSendBuffer(this.#fd, 8 << 20);
    bindInet(this.#fd, new Uint8Array(4), 0);
    connectInet(this.#fd, addressBytes(VIPS[4]), 0);
  }

  /** Packets go to these queues from now on; with `isBypass` they pass where nobody serves the queue. */
  queueTo(first: number, last: number, { isBypass = false } = {}): void {
    const queue = { first, last, isFanout: false, isBypass };
    const plan = diff({ ...NOTHING_DESIRED, vips: [`${VIPS[4]}/32`], queue }, this.#steering.read());
    const failures = [...this.#steering.apply(plan.additions), ...this.#steering.apply(plan.vips)];
    if (failures.length > 0) throw new Error(failures.map(({ message }) => message).join());
  }

  /** Sends `count` UDP packets, each flow in its turn; all of them are on their way when it returns. */
  send(count: number, { port = 5000, firstFlow = 0 } = {}): void {
    for (let sent = 0; sent < count; ) {
      const burst = Math.min(BURST, count - sent);
      for (let slot = 0; slot < burst; slot++) {
        const packet = udpPacket((firstFlow + sent + slot) % FLOWS, 4);
        new DataView(packet.buffer).setUint16(22, port);
        new DataView(packet.buffer).setUint16(26, 0); // no checksum: the port was changed
        this.#ring.u8.set(packet, this.#ring.dataOffset + slot * this.#ring.slotBytes);
        this.#ring.setSlotLength(slot, packet.length);
      }
      const result = this.#ring.send(this.#fd, burst);
      if (result !== burst) throw new Error(`${result} of ${burst} packets sent`);
      sent += burst;
    }
  }

  /** Packets that have come out since the start: without a mark, and with one. */
  received(): { readonly unmarked: number; readonly marked: number } {
    const text = run("nft", "list", "table", "ip", "counted");
    const [unmarked = 0, marked = 0] = [...text.matchAll(/counter packets (\d+)/g)].map((match) => Number(match[1]));
    return { unmarked, marked };
  }

  [Symbol.dispose](): void {
    this.#steering[Symbol.dispose]();
    closeDescriptor(this.#fd);
  }
}
