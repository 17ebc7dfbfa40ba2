import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { COUNTER_OUTCOMES, readDataPlane } from "#tables";
import { until } from "../harness/balancer.js";
import { run } from "../harness/namespace.js";
import { ipv4, PROTOCOL } from "../harness/raw-packets.js";
import {
  CLIENT4,
  counted,
  env,
  folder,
  type Line,
  mask,
  nfqlb,
  PROGRAM,
  running,
  startAll,
  startDataPlane,
  stopAll,
  Trace,
  udp4,
  VIP4,
} from "../harness/traced.js";

const UNUSABLE = 5;
const unusable = ipv4(CLIENT4, VIP4, PROTOCOL.tcp, new Uint8Array(2));

beforeAll(startAll);
afterAll(stopAll);

/** Scheduling policies of a process's threads, from /proc/PID/task/TID/stat: 0 is SCHED_OTHER, 5 SCHED_IDLE. */
function policies(pid: number): readonly number[] {
  const stat = (tid: string) => readFileSync(`/proc/${pid}/task/${tid}/stat`, "utf8");
  return readdirSync(`/proc/${pid}/task`).map((tid) => Number(stat(tid).split(") ")[1]!.split(" ")[41 - 3]));
}

test("a watcher gets the time that nobody else wants, from its first moment on, and the data plane gets its own", async () => {
  const { NFQLB_WATCHERS: _, ...plain } = env;
  const trace = new Trace(["--selection=packet"], plain);
  const { pid } = trace.child;
  await until("node", () => (readFileSync(`/proc/${pid}/comm`, "utf8").startsWith("node") ? true : null));
  expect(new Set(policies(pid!))).toEqual(new Set([5]));
  await until("the trace", () => (/Trace active/.test(trace.stdout) ? true : null), 60_000);
  expect(new Set(policies(pid!))).toEqual(new Set([5])); // all threads
  await trace.stop();
  expect(new Set(policies(readDataPlane(folder, "nfqlb-counters")!.pid))).toEqual(new Set([0]));
  const normal = await Trace.start("--selection=packet"); // who has no idle time asks for it
  expect(policies(normal.child.pid!)).not.toContain(5);
  await normal.stop();
});

test("when watchers leave, or are killed, nothing is selected any more", async () => {
  const watchers = await Promise.all([Trace.start("--selection=frag"), Trace.start("--selection=sctp,flows")]);
  expect(mask()).toBe(4 | 16 | 64);
  await watchers[0]!.stop();
  expect(mask()).toBe(16 | 64);
  await watchers[1]!.stop("SIGKILL");
  await until("the mask to go back", () => (mask() === 0 ? true : null));
});

test("a reader that has seen enough ends the trace without a word", async () => {
  const script = `set -o pipefail; "${PROGRAM}" trace --selection=packet --json | head -n 1; echo "\${PIPESTATUS[*]}"`;
  const pipe = spawn("bash", ["-c", script], { env });
  const ended = new Promise((resolve) => pipe.once("close", resolve));
  const text = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    pipe[name].on("data", (chunk) => {
      text[name] += chunk;
    });
  }
  await until("the trace", () => (/Trace active/.test(text.stderr) ? true : null));
  const timer = setInterval(() => running.sender.send(udp4(1_000, 5_000)), 10);
  await ended;
  clearInterval(timer);
  expect(text.stdout).toMatch(/^\{.*\}\n0 0\n$/);
  expect(text.stderr).toBe("Mask=0x00000002\nTrace active, mask=0x00000002\n");
});

test("the log follows loglevel at once; unusable packets are summed up, never told one by one", async () => {
  expect(nfqlb("loglevel").stdout).toBe("loglevel=5\n");
  expect(nfqlb("loglevel", "8")).toMatchObject({ status: 1, stderr: expect.stringMatching(/0\.\.7/) });
  const watcher = await Trace.start("--selection=log,flow-conf", "--json");
  const before = running.log;
  const unusableBefore = counted(COUNTER_OUTCOMES + UNUSABLE);
  for (let i = 0; i < 10; i++) running.sender.send(unusable);
  await until("them decided", () => (counted(COUNTER_OUTCOMES + UNUSABLE) - unusableBefore === 10 ? true : null));
  nfqlb("flow-set", "--name=udp", "--target=web", "--protocols=udp,sctp");
  await until("a message", () => (watcher.json().length > 0 ? true : null));
  expect(running.log).toBe(before); // level notice: nothing is printed, whoever watches sees the change all the same
  expect(watcher.json()[0]).toMatchObject({
    selection: ["flow-conf"],
    level: 6,
    message: "action=set name=udp target=web protocols=udp,sctp",
  });
  expect(nfqlb("loglevel", "6").stdout).toBe("loglevel=6\n");
  for (let i = 0; i < 500; i++) running.sender.send(unusable);
  const sum = () =>
    [...running.log.slice(before.length).matchAll(/^(\d+) unusable packets/gm)].map((match) => Number(match[1]));
  await until("the sum in the log", () => (sum().reduce((all, n) => all + n, 0) >= 500 ? true : null));
  expect(sum().length).toBeLessThanOrEqual(3);
  const isSum = (line: Line) => String(line["message"]).includes("unusable packets");
  await until("the sum in the trace", () => (watcher.json().some(isSum) ? true : null));
  nfqlb("loglevel", "5");
  await watcher.stop();
});

test("without room for the trace a data plane does not start, and says why", () => {
  const small = join(folder, "small");
  mkdirSync(small);
  run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small);
  const { status, stderr } = spawnSync(PROGRAM, ["flowlb", "--queue=9"], {
    encoding: "utf8",
    env: { ...env, NFQLB_SHM_DIR: small, NFQLB_FLOW_ADDRESS: `unix:${folder}/flow` },
  });
  expect({ status, stderr }).toEqual({
    status: 1,
    stderr: expect.stringMatching(/nfqlb-trace-rings: no room for \d+ bytes/),
  });
  run("umount", small);
});

test("a trace goes on when its data plane is killed and another one takes its place", { retry: 2 }, async () => {
  const trace = await Trace.start("--selection=packet", "--json", "--count=2");
  running.sender.send(udp4(1, 5_000));
  await until("the first packet", () => (trace.json().length === 1 ? true : null));
  const exited = new Promise((resolve) => running.flowlb.once("exit", resolve));
  running.flowlb.kill("SIGKILL");
  await exited;
  await startDataPlane();
  expect(mask()).toBe(2);
  running.sender.send(udp4(2, 5_000));
  expect(await trace.ended()).toBe(0);
  expect(trace.json().map((line) => line["sport"])).toEqual([1, 2]);
});

test("a trace ends with its data plane; without one there is none", async () => {
  const trace = await Trace.start("--selection=packet");
  const exited = new Promise((resolve) => running.flowlb.once("exit", resolve));
  running.flowlb.kill("SIGTERM");
  await exited;
  expect(await trace.ended()).toBe(0);
  expect(nfqlb("trace", "--selection=packet")).toEqual({
    stdout: "Mask=0x00000002\n",
    stderr: "Trace client connect to unix:nfqlb-trace: Connection refused\n",
    status: 1,
  });
  expect(nfqlb("loglevel").stdout).toBe("loglevel=5\n");
});
