// A queue worker that fails: a packet to UDP port 666 makes its decision throw, one to 667 never ends, one to 668 blocks
// outside of JavaScript for an hour. Everything else is the real worker's.
import { parentPort, workerData } from "node:worker_threads";
import { Decider, serveQueue, type WorkerSettings } from "#dataplane";
import { sleepMicroseconds } from "#sys";

type Decide = (this: Decider, ...packet: Parameters<Decider["decide"]>) => number;
const decide = Object.getOwnPropertyDescriptor(Decider.prototype, "decide")!.value as Decide;
Decider.prototype.decide = function decideUnlessPoisoned(this: Decider, ...packet) {
  const fwmark = decide.call(this, ...packet);
  const port = this.packet.destinationPort;
  if (port === 666) throw new Error("poisoned packet");
  while (port === 667);
  if (port === 668) sleepMicroseconds(3_600_000_000);
  return fwmark;
};

const { settings, stop } = workerData as { settings: WorkerSettings; stop: Int32Array };
serveQueue(settings, stop, () => parentPort?.postMessage(null));
