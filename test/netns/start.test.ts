// How the built programs come up: who keeps a control plane from starting, and which data planes it takes over.
import { type ChildProcess, fork, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeAll, expect, test } from "vitest";
import { closeDescriptor, listenAbstract, listenerOf } from "#sys";
import { readDataPlane } from "#tables";
import { readStatus } from "../../src/programs/stateless-lb/status-document.js";
import { SHM, until } from "../harness/balancer.js";
import { bundle, ROOT } from "../harness/bundled.js";
import { enterFreshNamespaces } from "../harness/namespace.js";

const PROGRAM = join(ROOT, "bin", "stateless-lb");
const NFQLB = join(ROOT, "bin", "nfqlb");
const CONFIG = join(SHM, "config.yaml");
/** Stands in for nfqlb, and becomes it once the file GO is there: so another data plane is always faster. */
const SLOW_NFQLB = join(SHM, "slow-nfqlb");
const GO = join(SHM, "go");
/** What the control plane starts a data plane with. */
const AS_OURS = ["flowlb", "--promiscuous_ping", "--queue=0:0", "--qlength=1024", "--hash_mode=0"];
const DEADLINE_MS = 15_000;
const children: ChildProcess[] = [];
let printed = "";

beforeAll(() => {
  enterFreshNamespaces();
  writeFileSync(CONFIG, "trench: { name: demo }\nconduits: [ { name: load-balancer } ]\n");
  writeFileSync(SLOW_NFQLB, `#!/bin/sh\nwhile [ ! -e ${GO} ]; do sleep 0.01; done\nexec ${NFQLB} "$@"\n`);
  chmodSync(SLOW_NFQLB, 0o755);
});
afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  const running = readDataPlane(SHM, "nfqlb-counters");
  if (running !== null) process.kill(running.pid, "SIGKILL");
  rmSync(GO, { force: true });
});

/** A program of ours, until the test is over. */
function start(program: string, args: readonly string[], env: Record<string, string> = {}): ChildProcess {
  const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "ignore"] });
  children.push(child);
  return child;
}

/** A control plane whose data planes take until GO to start. */
function startControl(): ChildProcess {
  printed = "";
  const control = start(PROGRAM, ["--config", CONFIG], { NSM_NFQUEUE: "0", NFQLB_PROGRAM: SLOW_NFQLB });
  control.stdout!.on("data", (chunk) => {
    printed += String(chunk);
  });
  return control;
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<number | null> {
  const exited = new Promise<number | null>((resolve) => child.once("exit", resolve));
  child.kill(signal);
  return await exited;
}

/** Waits until the log has so many lines with that message, and returns what the last one carries. */
async function logged(message: string, times = 1): Promise<Record<string, unknown>> {
  const lines = () => printed.split("\n").filter((line) => line.includes(`"message":"${message}"`));
  const found = await until(message, () => (lines().length >= times ? lines() : null), DEADLINE_MS);
  return (JSON.parse(found.at(-1)!) as { extra_data: Record<string, unknown> }).extra_data;
}

const served = () => {
  const plane = readDataPlane(SHM, "nfqlb-counters");
  return plane?.isReady === true ? plane.pid : null;
};

function invoke(...args: string[]): { readonly code: number | null; readonly out: string; readonly error: string } {
  const { status, stdout, stderr } = spawnSync(PROGRAM, args, { encoding: "utf8" });
  return { code: status, out: stdout, error: stderr };
}

test("whoever holds the name of the network namespace's lock is told by pid and command, also when it does not answer", () => {
  const fd = listenAbstract("stateless-lb");
  const told = `@stateless-lb, the lock of this network namespace, is held by pid ${process.pid}: ${process.execPath}`;
  for (const connections of [0, 2_000]) {
    for (let i = 0; i < connections; i++) listenerOf("stateless-lb"); // nobody takes them off the queue
    const { code, error } = invoke("--config", CONFIG);
    expect(code).toBe(1);
    expect(error).toContain(`stateless-lb: ${told}`);
    expect(invoke("doctor").out).toMatch(new RegExp(`^FAULT   control plane: dead since [^;]*; ${told}`, "m"));
  }
  closeDescriptor(fd);
  expect(invoke("doctor").out).toMatch(/^FAULT {3}control plane: dead since [^;]*$/m);
});

test("a data plane that somebody starts at the same time is adopted when it is as ours, and replaced when it is not", async () => {
  const control = startControl();
  await logged("data plane started");
  const same = start(NFQLB, AS_OURS);
  await until("the data plane that was faster", served, DEADLINE_MS);
  writeFileSync(GO, ""); // ours finds the folder taken
  expect(await logged("data plane adopted")).toEqual({ pid: same.pid });
  expect(served()).toBe(same.pid);
  // It dies, and before ours has started again somebody starts one that is otherwise.
  rmSync(GO);
  await end(same, "SIGKILL");
  await logged("data plane started", 2);
  const other = start(NFQLB, AS_OURS.with(-1, "--hash_mode=1"));
  const otherEnd = new Promise((resolve) => other.once("exit", resolve));
  await until("the other data plane", served, DEADLINE_MS);
  writeFileSync(GO, "");
  const { pid, differences } = await logged("data plane replaced, it was started otherwise");
  expect({ pid, differences }).toEqual({ pid: other.pid, differences: ["hashMode 1 instead of 0"] });
  expect(await otherEnd).toBe(0);
  await until("ours", () => (served() ?? other.pid) !== other.pid || null, DEADLINE_MS);
  expect(await end(control, "SIGTERM")).toBe(0);
});

test("a data plane that is found starting is waited for until it tells its settings, and is not judged before", async () => {
  writeFileSync(GO, "");
  const folder = mkdtempSync(join(ROOT, "node_modules", ".start-"));
  const file = await bundle("test/harness/table-child.ts", folder);
  const beginning = fork(file, ["begin", SHM, "nfqlb-counters"]);
  children.push(beginning);
  await once(beginning, "message");
  const control = startControl();
  await logged("start");
  expect(invoke("status").out).toMatch(/data plane +WAIT .*not all queues are served yet/);
  const exited = once(beginning, "exit");
  beginning.disconnect();
  expect(await exited).toEqual([0, null]); // of itself, by no signal
  await logged("data plane started");
  expect(printed).not.toContain("data plane replaced");
  expect(await end(control, "SIGTERM")).toBe(0);
  rmSync(folder, { recursive: true });
});

test("a data plane of ours that is found starting is adopted; none is started beside it", async () => {
  const plane = start(NFQLB, AS_OURS);
  await until("its lock", () => readDataPlane(SHM, "nfqlb-counters"), DEADLINE_MS);
  const control = startControl();
  expect(await logged("data plane adopted")).toEqual({ pid: plane.pid });
  expect(printed).not.toContain("data plane started");
  expect(await end(control, "SIGTERM")).toBe(0);
  await until("its end", () => (plane.exitCode === null ? null : plane), DEADLINE_MS);
});

test("a data plane that the folder has lost is replaced: nobody would see it any more", async () => {
  writeFileSync(GO, "");
  const control = startControl();
  const isServed = () => {
    const document = readStatus(SHM);
    return (document?.pid === control.pid && document?.isServed) || null;
  };
  await until("the control plane's word", isServed, DEADLINE_MS);
  const first = served();
  rmSync(join(SHM, "nfqlb-counters"));
  expect(await logged("data plane is replaced, the folder has lost it")).toEqual({ pid: first, found: null });
  expect(await until("another one", served, DEADLINE_MS)).not.toBe(first);
  expect(await end(control, "SIGTERM")).toBe(0);
});
