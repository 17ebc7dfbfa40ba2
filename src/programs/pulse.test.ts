import { spawn } from "node:child_process";
import { once } from "node:events";
import { expect, test } from "vitest";
import { isTraced, Pulse } from "./stateless-lb/pulse.js";

const running = { pid: 7, sampledMs: 100, batches: 5 };

test("what neither samples nor receives is counted, look by look, until it does either or is another one", () => {
  const pulse = new Pulse();
  expect([running, running, running].map((one) => pulse.look(one))).toEqual([0, 1, 2]);
  expect(pulse.look({ ...running, batches: 6 })).toBe(0); // busy, and serves
  expect(pulse.look({ ...running, batches: 6 })).toBe(1);
  expect(pulse.look({ ...running, batches: 6, sampledMs: 300 })).toBe(0);
  expect(pulse.look({ ...running, batches: 6, sampledMs: 300, pid: 8 })).toBe(0);
  expect([null, null, running].map((one) => pulse.look(one))).toEqual([0, 0, 0]); // none is none that hangs
});

test("a stopped process is not one that a debugger holds, and neither is one that is gone", async () => {
  const child = spawn("sleep", ["60"]);
  child.kill("SIGSTOP");
  expect(isTraced(child.pid!)).toBe(false);
  child.kill("SIGKILL");
  await once(child, "exit");
  expect(isTraced(child.pid!)).toBe(false);
});
