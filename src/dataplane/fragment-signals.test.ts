import { expect, test } from "vitest";
import { createSignalMemory, FragmentSignals } from "./fragment-signals.js";

const WORKERS = 70;

test("exactly the threads that wait are woken, whatever their number, and not twice before they look", () => {
  const memory = createSignalMemory(WORKERS);
  const woken: number[] = [];
  const threads = Array.from({ length: WORKERS }, (_, worker) => {
    const signals = new FragmentSignals(memory, worker, WORKERS, (port) => woken.push(port));
    signals.setPort(1_000 + worker);
    return signals;
  });
  const waiting = [0, 31, 32, 63, 69];
  for (const worker of waiting) threads[worker]!.wait(17);
  threads[1]!.wait(18);
  threads[31]!.tellOthers(17); // not itself
  expect(woken).toEqual([1_000, 1_032, 1_063, 1_069]);
  threads[2]!.tellOthers(17);
  expect(woken).toEqual([1_000, 1_032, 1_063, 1_069, 1_031]); // the others have not looked yet
  expect(threads.filter((thread) => thread.takeWoken())).toEqual(waiting.map((worker) => threads[worker]));
  expect(threads.filter((thread) => thread.takeReady(17))).toEqual(waiting.map((worker) => threads[worker]));
  expect(threads.some((thread) => thread.takeWoken() || thread.takeReady(17) || thread.takeReady(18))).toBe(false);
  for (const worker of waiting) threads[worker]!.stopWaiting(17);
  threads[31]!.tellOthers(17);
  expect(woken).toHaveLength(5);
});

test("a thread that is started again waits for nothing", () => {
  const memory = createSignalMemory(WORKERS);
  const woken: number[] = [];
  const start = (worker: number) => new FragmentSignals(memory, worker, WORKERS, (port) => woken.push(port));
  const other = start(1);
  start(40).wait(5);
  other.tellOthers(5); // it dies before it looks
  const again = start(40);
  other.tellOthers(5);
  expect(woken).toHaveLength(1);
  again.wait(5);
  other.tellOthers(5);
  expect(woken).toHaveLength(2);
});
