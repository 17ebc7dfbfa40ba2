// A queue worker that fails: a packet to UDP port 666 makes its decision throw. Everything else is the real worker's.
import { parentPort, workerData } from "node:worker_threads";
import { Decider, serveQueue, type WorkerSettings } from "#dataplane";

const POISON_PORT = 666;
type Decide = (this: Decider, ...packet: Parameters<Decider["decide"]>) => number;
const decide = Object.getOwnPropertyDescriptor(Decider.prototype, "decide")!.value as Decide;
Decider.prototype.decide = function decideUnlessPoisoned(this: Decider, ...packet) {
  const fwmark = decide.call(this, ...packet);
  if (this.packet.destinationPort === POISON_PORT) throw new Error("poisoned packet");
  return fwmark;
};

const { settings, stop } = workerData as { settings: WorkerSettings; stop: Int32Array };
serveQueue(settings, stop, () => parentPort?.postMessage(null));
