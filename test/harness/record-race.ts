// One thread writes records of many packets into one set of places while another looks them up; run bundled. What is
// found must be the fwmark of the packet that was asked for. Argument: look-ups. Prints one JSON object.
import { isMainThread, Worker, workerData } from "node:worker_threads";
import { Packet } from "#packet";
import { FragmentKey } from "../../src/dataplane/fragment-key.js";
import { createRecordMemory, FragmentRecords } from "../../src/dataplane/fragment-records.js";

const OPTIONS = { size: 8, buckets: 0, lifetimeMs: 1_000, isForgetful: true };
const PACKETS = 24;
type Shared = { readonly memory: SharedArrayBuffer; readonly stop: Int32Array };

const keys = Array.from({ length: PACKETS }, (_, n) => {
  const packet = new Packet();
  packet.key.fill(n, 0, 32);
  const key = new FragmentKey(1);
  key.load(packet);
  return key;
});

if (isMainThread) read();
else write(workerData as Shared);

function write({ memory, stop }: Shared): void {
  const records = new FragmentRecords(memory, OPTIONS, 2);
  for (let turn = 0; Atomics.load(stop, 0) === 0; turn++) records.record(keys[turn % PACKETS]!, turn % PACKETS, 1_000);
}

function read(): void {
  const memory = createRecordMemory(OPTIONS);
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const records = new FragmentRecords(memory, OPTIONS, 1);
  new Worker(process.argv[1]!, { workerData: { memory, stop } }).once("online", () => {
    let found = 0;
    let wrong = 0;
    for (let turn = 0; turn < Number(process.argv[2] ?? 1_000_000); turn++) {
      const fwmark = records.find(keys[turn % PACKETS]!, 1_000);
      if (fwmark < 0) continue;
      found++;
      if (fwmark !== turn % PACKETS) wrong++;
    }
    Atomics.store(stop, 0, 1);
    process.stdout.write(JSON.stringify({ found, wrong }));
  });
}
