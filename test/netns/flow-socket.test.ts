import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createConnection, Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { parseFlowRule } from "#flow";
import { connectAbstract } from "#sys";
import { flowsGeneration, readDataPlane, readFlows, updateFlows } from "#tables";
import { flowInput, inPieces } from "../fuzz/flow-input.js";
import { until } from "../harness/balancer.js";
import { ROOT } from "../harness/bundled.js";
import { enterFreshNamespaces } from "../harness/namespace.js";
import { randomNumbers } from "../harness/random.js";

const PROGRAM = join(ROOT, "bin", "nfqlb");
const folder = mkdtempSync(join(tmpdir(), "flow-socket-"));
const path = join(folder, "flow.sock");
const running: ChildProcess[] = [];
let data = "";
let count = 0;

function environment(address: string) {
  return { ...process.env, NFQLB_SHM_DIR: data, NFQLB_FLOW_ADDRESS: address };
}

/** Starts a data plane that listens there, with tables of its own. */
async function serve(address: string): Promise<ChildProcess> {
  data = mkdtempSync(join(folder, "shm-"));
  const child = spawn(PROGRAM, ["flowlb", `--queue=${count++}`], { env: environment(address), stdio: "ignore" });
  running.push(child);
  await until("the data plane", () => (readDataPlane(data, "nfqlb-counters")?.isReady === true ? true : null));
  return child;
}

function nfqlb(address: string, ...args: string[]) {
  const { stdout, stderr, status } = spawnSync(PROGRAM, args, {
    encoding: "utf8",
    env: environment(address),
    timeout: 10_000,
  });
  return { stdout, stderr, status };
}

/** Everything that comes until the other side closes; null when it does not within the deadline. */
function reply(socket: Socket, deadlineMs = 4_000): Promise<string | null> {
  return new Promise((resolve) => {
    let text = "";
    const timer = setTimeout(() => resolve(null), deadlineMs);
    const finish = () => {
      clearTimeout(timer);
      resolve(text);
    };
    socket.on("error", () => {});
    socket.on("data", (chunk) => {
      text += chunk.toString("latin1");
    });
    socket.on("end", finish);
    socket.on("close", finish);
  });
}

const abstractClient = () => new Socket({ fd: connectAbstract("nfqlb"), allowHalfOpen: true });
async function ask(socket: Socket, request: string | Uint8Array): Promise<string | null> {
  const answer = reply(socket);
  socket.write(request);
  const text = await answer;
  socket.destroy();
  return text;
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  const exited = new Promise((resolve) => child.once("exit", resolve));
  child.kill(signal);
  await exited;
}

beforeAll(enterFreshNamespaces);
afterEach(async () => {
  for (const child of running.splice(0))
    if (child.exitCode === null && child.signalCode === null) await end(child, "SIGKILL");
});
afterAll(() => rmSync(folder, { recursive: true }));

test("a path: mode 0600, removed at the end, left behind by a kill and taken over, never taken from a live one", async () => {
  const address = `unix:${path}`;
  const first = await serve(address);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  nfqlb(address, "init", "--shm=t");
  expect(nfqlb(address, "flow-set", "--name=a", "--target=t")).toMatchObject({ stdout: "OK\n", status: 0 });
  const inode = statSync(path).ino;
  const others = mkdtempSync(join(folder, "shm-"));
  const second = spawnSync(PROGRAM, ["flowlb", "--queue=99"], {
    encoding: "utf8",
    env: { ...environment(address), NFQLB_SHM_DIR: others },
    timeout: 10_000,
  });
  expect(second).toMatchObject({ status: 1, stderr: `Flow server bind: ${path}: Address already in use\n` });
  expect(statSync(path).ino).toBe(inode);
  expect(nfqlb(address, "flow-list-names").stdout).toContain('"a"');
  await end(first, "SIGKILL");
  expect(existsSync(path)).toBe(true);
  const third = await serve(address);
  expect(nfqlb(address, "flow-list-names").stdout).toBe("[]\n");
  await end(third, "SIGTERM");
  expect(existsSync(path)).toBe(false);
});

test("a path that is no socket is left alone", () => {
  writeFileSync(path, "precious");
  data = mkdtempSync(join(folder, "shm-"));
  const { status, stderr } = nfqlb(`unix:${path}`, "flowlb", "--queue=98");
  expect({ status, stderr }).toEqual({ status: 1, stderr: `Flow server bind: ${path}: Address already in use\n` });
  expect(statSync(path).size).toBe(8);
  rmSync(path);
});

test("TCP, both families", async () => {
  for (const address of ["tcp:127.0.0.1:7071", "tcp:[::1]:7072"]) {
    await serve(address);
    nfqlb(address, "init", "--shm=t");
    expect(nfqlb(address, "flow-set", "--name=a", "--target=t"), address).toMatchObject({ stdout: "OK\n", status: 0 });
    expect(nfqlb(address, "flow-list-names").stdout).toBe('[\n  "a"\n]\n');
  }
});

test("replies: texts end with a zero byte, lists do not, and a reply comes whole whatever its length", async () => {
  await serve("unix:nfqlb");
  nfqlb("unix:nfqlb", "init", "--shm=t");
  const dialogue: [string, string][] = [
    ["eoc:\n", "FAIL: no action\0"],
    ["action:nonsense\neoc:\n", "FAIL: action unknown\0"],
    ["action:delete\neoc:\n", "FAIL: no name\0"],
    ["action:set\ntarget:t\neoc:\n", "No name\0"],
    ["action:set\nname:x\neoc:\n", "No target\0"],
    ["action:set\nname:#x\ntarget:t\neoc:\n", "FAIL: names of helper flows (#...) are reserved\0"],
    [`action:set\nname:${"n".repeat(1_024)}\ntarget:t\neoc:\n`, "Name too long\0"],
    [`action:set\nname:${"n".repeat(9_000)}\ntarget:t\neoc:\n`, "FAIL: line too long; at most 8192 bytes\0"],
    ["a:b\n".repeat(50_000), "FAIL: request too long; at most 65536 bytes\0"],
    ["action:set\nname:\xff\n", "FAIL: line is not UTF-8\0"],
    ["action:set\nname:x\ntarget:t\npriority:x\neoc:\n", "Invalid priority\0"],
    ["action:list\neoc:\n", "[]\n"],
    [`action:set\nname:${"n".repeat(1_023)}\ntarget:t\neoc:`, "OK\0"],
    ["action:list-names\neoc:\n", `[\n  "${"n".repeat(1_023)}"\n]\n`],
    ["action:set\nname:x\ntarget:t\nprotocols:sctp\nudpencap:9899\neoc:\n", "OK\0"],
    ["action:delete\nname:#x\neoc:\n", 'FAIL: name "#x": a helper flow (#...) goes with the flow "x"\0'],
    ["action:list-names\neoc:\n", `[\n  "${"n".repeat(1_023)}",\n  "#x",\n  "x"\n]\n`],
    ["action:delete\nname:x\neoc:\n", "OK\0"],
    ["action:list-names\neoc:\n", `[\n  "${"n".repeat(1_023)}"\n]\n`],
    ["action:list\nname:none\neoc:\n", ""],
    ["no colon\neoc:\n", ""],
  ];
  for (const [request, expected] of dialogue) {
    const answer = (await ask(abstractClient(), Buffer.from(request, "latin1"))) ?? "";
    if (/^(FAIL|No|Name|Invalid)/.test(expected)) {
      // Upstream's words first, then ours, on one line, and one zero byte at the end.
      expect(answer, request.slice(0, 60)).toMatch(/^[^\0\n]+\0$/);
      expect(answer.startsWith(expected.slice(0, -1)), `${request.slice(0, 60)}: ${answer}`).toBe(true);
    } else {
      expect(answer, request.slice(0, 60)).toBe(expected);
    }
  }
  const long = `tcp[0:2]=${"1".repeat(300)}`;
  const told = nfqlb("unix:nfqlb", "flow-set", "--name=x", "--target=t", `--match=${long}`);
  expect(told).toMatchObject({ status: 255, stdout: expect.stringContaining(long) });
});

test("a byte at a time, and half-closed: such clients are answered", async () => {
  await serve("unix:nfqlb");
  const slow = abstractClient();
  const answer = reply(slow);
  for (const byte of "action:list-names\neoc:\n") {
    slow.write(byte);
    await delay(1);
  }
  expect(await answer).toBe("[]\n");
  const half = abstractClient();
  const halfAnswer = reply(half);
  half.end("action:list\neoc:\n");
  expect(await halfAnswer).toBe("[]\n");
  const early = abstractClient();
  const earlyAnswer = reply(early);
  early.end("action:list\n");
  expect(await earlyAnswer).toBe("");
});

test("silent clients are cut off after the time limit, and hold up nobody meanwhile", async () => {
  await serve("unix:nfqlb");
  const startMs = performance.now();
  const silent = Array.from({ length: 3 }, () => abstractClient());
  for (const socket of silent) socket.write("action:list\nna");
  const cut = Promise.all(silent.map((socket) => reply(socket, 15_000)));
  const askedMs = performance.now();
  expect(await ask(abstractClient(), "action:list\neoc:\n")).toBe("[]\n");
  expect(performance.now() - askedMs).toBeLessThan(1_000);
  expect(await cut).toEqual(["", "", ""]);
  expect(performance.now() - startMs).toBeGreaterThan(4_000);
});

test("floods of connections, garbage and clients that go away: an honest client is served, memory stays bounded", async () => {
  const child = await serve("unix:nfqlb");
  nfqlb("unix:nfqlb", "init", "--shm=t");
  const descriptors = () =>
    Number(spawnSync("sh", ["-c", `ls /proc/${child.pid}/fd | wc -l`], { encoding: "utf8" }).stdout);
  const before = descriptors();
  const memory = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))![1]) / 1024; // MiB
  const memoryBefore = memory();
  const random = randomNumbers(99);
  const flood: Socket[] = [];
  for (let i = 0; i < 1_500; i++) {
    const socket = abstractClient();
    socket.on("error", () => {});
    if (i % 3 > 0) for (const piece of inPieces(random, flowInput(random)).slice(0, 5)) socket.write(piece);
    if (i % 5 === 0) socket.destroy();
    flood.push(socket);
    if (i % 100 === 0) await delay(0);
  }
  const startMs = performance.now();
  const honest = nfqlb("unix:nfqlb", "flow-set", "--name=honest", "--target=t");
  expect(honest).toMatchObject({ stdout: "OK\n", status: 0 });
  expect(performance.now() - startMs).toBeLessThan(2_000);
  expect(descriptors() - before).toBeLessThan(300);
  expect(memory() - memoryBefore).toBeLessThan(64);
  for (const socket of flood) socket.destroy();
  await expect.poll(descriptors, { timeout: 10_000 }).toBeLessThanOrEqual(before);
  expect(child.exitCode).toBeNull();
  expect(readDataPlane(data, "nfqlb-counters")?.isReady).toBe(true);
  expect(JSON.parse(nfqlb("unix:nfqlb", "flow-list-names").stdout)).toContain("honest");
});

test("TCP clients that break off with a reset harm nobody", async () => {
  const child = await serve("tcp:127.0.0.1:7073");
  for (let i = 0; i < 50; i++) {
    const socket = createConnection(7073, "127.0.0.1");
    await new Promise((resolve) => socket.once("connect", resolve));
    socket.write("action:list\neoc:\n");
    socket.resetAndDestroy();
  }
  expect(nfqlb("tcp:127.0.0.1:7073", "flow-list").stdout).toBe("[]\n");
  expect(child.exitCode).toBeNull();
});

test("a flow that is too much beside the others is refused by name, and the others stay", async () => {
  const address = "unix:nfqlb-many";
  await serve(address);
  nfqlb(address, "init", "--shm=t");
  const rule = parseFlowRule({ name: "r", target: "t", protocols: "tcp", dports: "80" });
  const rules = Array.from({ length: 32_768 }, (_, i) => ({ ...rule, name: `r${i}` }));
  updateFlows(
    data,
    "nfqlb-flows",
    () => rules,
    () => 0,
  );
  const { generation } = readFlows(data, "nfqlb-flows");
  const set = (name: string) =>
    nfqlb(address, "flow-set", `--name=${name}`, "--target=t", "--protocols=tcp", "--dports=81");
  expect(set("more")).toMatchObject({ stdout: 'FAIL: flow "more": 32769 rules; at most 32768\n', status: 255 });
  expect(flowsGeneration(data, "nfqlb-flows")).toBe(generation);
  expect(set("r7")).toMatchObject({ stdout: "OK\n", status: 0 });
});
