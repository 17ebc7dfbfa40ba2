import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { copyFileSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { createFragmentMemory } from "#dataplane";
import { parseFlowRule } from "#flow";
import { QueueSocket, QueueStateReader, readQueueStates } from "#netlink/queue";
import { SO_RCVBUF, SOL_SOCKET, setSocketOption } from "#sys";
import {
  COUNTER_BATCH_SIZES,
  COUNTER_BATCHES,
  COUNTER_LAST_PACKET_ID,
  COUNTER_PACKETS,
  COUNTER_STARTS,
  CounterFile,
  createStreamTable,
  ensureFlows,
  readDataPlane,
  readTargetHits,
  SAMPLE_QUEUE_DROPPED,
  SAMPLE_USER_DROPPED,
  SAMPLE_WAITING,
  TraceFile,
  updateFlows,
  updateStreamTable,
} from "#tables";
import { QueueThreads } from "../../src/programs/nfqlb/queue-threads.js";
import { until } from "../harness/balancer.js";
import { bundle, ROOT } from "../harness/bundled.js";
import { Loopback } from "../harness/loopback.js";
import { enterFreshNamespaces } from "../harness/namespace.js";

const COUNTERS = "nfqlb-counters";
const folder = mkdtempSync(join(tmpdir(), "queues-"));
const bundleFolder = mkdtempSync(join(ROOT, "node_modules", ".queues-"));
const env = { ...process.env, NFQLB_SHM_DIR: folder };
let loopback: Loopback;
let child: ChildProcess | null = null;
let errors = "";

beforeAll(() => {
  enterFreshNamespaces();
  loopback = new Loopback(4, 5);
  createStreamTable(folder, "t", { size: 997, targets: 10, ownFwmark: 0 });
  updateStreamTable(folder, "t", (active) => {
    for (let i = 0; i < 4; i++) active[i] = 5001 + i;
  });
  ensureFlows(folder, "nfqlb-flows");
  updateFlows(
    folder,
    "nfqlb-flows",
    () => [parseFlowRule({ name: "all", target: "t" })],
    () => 0,
  );
});
afterEach(async () => {
  if (child !== null) await end("SIGKILL");
});
afterAll(() => {
  loopback[Symbol.dispose]();
  rmSync(folder, { recursive: true });
  rmSync(bundleFolder, { recursive: true });
});

async function serve(...args: string[]): Promise<number> {
  return await serveWith(join(ROOT, "bin"), ...args);
}

/** @param programs folder of the program and of the file of its threads */
async function serveWith(programs: string, ...args: string[]): Promise<number> {
  errors = "";
  child = spawn(join(programs, "nfqlb"), ["flowlb", ...args], { env });
  child.stdout!.resume();
  child.stderr!.on("data", (chunk) => {
    errors += chunk;
  });
  await until("the data plane", () => (readDataPlane(folder, COUNTERS)?.isReady === true ? true : null));
  return child.pid!;
}

async function end(signal: NodeJS.Signals): Promise<number | null> {
  const exited = new Promise<number | null>((resolve) => child!.once("exit", resolve));
  child!.kill(signal);
  const code = await exited;
  child = null;
  return code;
}

/** Stops the process; resolves when each of its threads has stopped. */
async function stop(pid: number): Promise<void> {
  process.kill(pid, "SIGSTOP");
  const isStopped = (thread: string) => readFileSync(`/proc/${pid}/task/${thread}/stat`, "utf8").includes(") T ");
  await until("the process to stop", () => (readdirSync(`/proc/${pid}/task`).every(isStopped) ? true : null));
}

/** Packets by what became of them since `before`. */
function since(before: { unmarked: number; marked: number }) {
  const { unmarked, marked } = loopback.received();
  return { unmarked: unmarked - before.unmarked, marked: marked - before.marked };
}
const waiting = () => [...readQueueStates()!.values()].reduce((sum, state) => sum + state.waiting, 0);

test("each queue has a thread with a socket of its own, and everything is counted where it happened", async () => {
  await serve("--queue=4:5");
  const states = readQueueStates()!;
  expect([...states.keys()]).toEqual([4, 5]);
  expect(states.get(4)!.portId).not.toBe(states.get(5)!.portId);
  expect([...states.values()].map(({ copyBytes }) => copyBytes)).toEqual([256, 256]);
  const before = loopback.received();
  const hits = readTargetHits(folder, "t");
  for (let i = 0; i < 8; i++) {
    loopback.send(500, { firstFlow: i * 100 });
    await expect.poll(waiting).toBe(0); // no queue runs over, however slow this machine is
  }
  await expect.poll(() => since(before)).toEqual({ unmarked: 0, marked: 4_000 });
  using counters = CounterFile.open(folder, COUNTERS);
  await expect.poll(() => counters.sum(COUNTER_PACKETS)).toBe(4_000);
  const perQueue = [0, 1].map((worker) => counters.block(worker).counters[COUNTER_PACKETS]!);
  for (const packets of perQueue) expect(packets).toBeGreaterThan(1_000);
  const perTarget = readTargetHits(folder, "t").map((count, target) => count - hits[target]!);
  expect(perTarget.reduce((sum, count) => sum + count)).toBe(4_000);
  expect(Array.from(perTarget.subarray(4))).toEqual([0, 0, 0, 0, 0, 0]);
  const batches = Array.from({ length: 7 }, (_, size) => counters.sum(COUNTER_BATCH_SIZES + size));
  expect(batches.reduce((sum, count) => sum + count)).toBe(counters.sum(COUNTER_BATCHES));
});

test("a data plane with another number of queues counts a rule's packets from 0, also where the rule began at more", async () => {
  await serve("--queue=4:5");
  const rules = ["--name=counted", "--target=t", "--protocols=udp"];
  const nfqlb = (...args: string[]) => spawnSync(join(ROOT, "bin", "nfqlb"), args, { env, encoding: "utf8" }).stdout;
  const matches = () => (JSON.parse(nfqlb("flow-list", "--name=counted")) as { matches_count: number }).matches_count;
  expect(nfqlb("flow-set", ...rules, "--prio=1")).toBe("OK\n");
  const before = loopback.received();
  loopback.send(100);
  await expect.poll(() => since(before).marked).toBe(100);
  await expect.poll(matches).toBe(100);
  nfqlb("flow-set", ...rules, "--prio=2");
  nfqlb("flow-set", ...rules, "--prio=1"); // in its first slot again, which has counted 100
  expect(matches()).toBe(0);
  await end("SIGTERM");
  await serve("--queue=4:6");
  expect(matches()).toBe(0);
  loopback.send(30);
  await expect.poll(() => since(before).marked).toBe(130);
  await expect.poll(matches).toBe(30);
  expect(nfqlb("flow-delete", "--name=counted")).toBe("OK\n");
});

test("D8: a queue that runs over: each packet is answered or counted as lost, and the loss is told", async () => {
  const pid = await serve("--queue=4:5", "--qlength=100");
  expect(JSON.parse(readDataPlane(folder, COUNTERS)!.settings)).toMatchObject({
    queues: { first: 4, last: 5 },
    queueLength: 100,
  });
  const before = loopback.received();
  await stop(pid);
  for (let i = 0; i < 4; i++) loopback.send(500, { firstFlow: i * 200 });
  expect(waiting()).toBe(200);
  process.kill(pid, "SIGCONT");
  await expect.poll(waiting).toBe(0);
  const states = [...readQueueStates()!.values()];
  const lost = states.reduce((sum, { queueDropped, userDropped }) => sum + queueDropped + userDropped, 0);
  expect(since(before)).toEqual({ unmarked: 0, marked: 2_000 - lost });
  expect(lost).toBeGreaterThan(0);
  using counters = CounterFile.open(folder, COUNTERS);
  await expect
    .poll(() => counters.sumSample(SAMPLE_QUEUE_DROPPED) + counters.sumSample(SAMPLE_USER_DROPPED))
    .toBe(lost);
  await expect.poll(() => counters.sumSample(SAMPLE_WAITING)).toBe(0); // the next sample, if that one was of before
  const stats = spawnSync(join(ROOT, "bin", "nfqlb"), ["stats", "--all"], { env, encoding: "utf8" }).stdout;
  expect(JSON.parse(stats)).toMatchObject({ lost: { queueFull: lost, bufferFull: 0 }, waiting: 0, threadStarts: 2 });
  await expect.poll(() => errors).toMatch(/^queue 4: packets lost: \d+ as the queue was full, 0 as its buffer was$/m);
});

test("a socket whose buffer runs over: the kernel's count of such packets is read, and no packet is missing", () => {
  using reader = new QueueStateReader();
  expect(reader.read()!.size).toBe(0);
  using _five = new QueueSocket({ queueNumber: 5, maxPackets: 10_000, copyBytes: 256, isFailOpen: false });
  using four = new QueueSocket({ queueNumber: 4, maxPackets: 10_000, copyBytes: 256, isFailOpen: false });
  setSocketOption(four.fd, SOL_SOCKET, SO_RCVBUF, 4_096);
  const before = loopback.received();
  expect(reader.read()).toEqual(readQueueStates());
  expect(reader.read()).toBe(reader.read());
  loopback.send(800);
  const states = readQueueStates()!;
  expect(reader.read()).toEqual(states);
  expect(states.get(4)!.userDropped).toBeGreaterThan(100);
  expect(states.get(4)!.waiting + states.get(4)!.userDropped + states.get(5)!.waiting).toBe(800);
  expect(since(before)).toEqual({ unmarked: 0, marked: 0 });
});

test("a queue of any length has a buffer for it, up to the largest that the kernel gives", () => {
  const bufferOf = (maxPackets: number) => {
    using queue = new QueueSocket({ queueNumber: 4, maxPackets, copyBytes: 256, isFailOpen: false });
    return [queue.receiveBufferAsked, queue.receiveBufferBytes];
  };
  expect(bufferOf(10_000)).toEqual([20_480_000, 40_960_000]); // the kernel doubles what it is asked for
  for (const maxPackets of [2 ** 20, 2 ** 21, 2 ** 32 - 1])
    expect(bufferOf(maxPackets), `${maxPackets}`).toEqual([2 ** 30 - 1, 2 ** 31 - 2]);
});

test("--fail_open: what finds a queue full passes without a mark", async () => {
  const pid = await serve("--queue=4:5", "--qlength=100", "--fail_open");
  const before = loopback.received();
  await stop(pid);
  loopback.send(1_000);
  expect(since(before)).toEqual({ unmarked: 800, marked: 0 });
  process.kill(pid, "SIGCONT");
  await expect.poll(() => since(before)).toEqual({ unmarked: 800, marked: 200 });
});

test("bypass: without a data plane packets pass; without bypass they are dropped", () => {
  const before = loopback.received();
  loopback.send(100);
  expect(since(before)).toEqual({ unmarked: 0, marked: 0 });
  loopback.queueTo(4, 5, { isBypass: true });
  loopback.send(100);
  expect(since(before)).toEqual({ unmarked: 100, marked: 0 });
  loopback.queueTo(4, 5);
});

test("SIGTERM answers all that is queued, and ends in less than a second", async () => {
  const pid = await serve("--queue=4:5", "--qlength=2000");
  const before = loopback.received();
  await stop(pid);
  loopback.send(1_500);
  expect(waiting()).toBe(1_500);
  const ended = end("SIGTERM"); // waits while the process is stopped
  const startMs = performance.now();
  process.kill(pid, "SIGCONT");
  expect(await ended).toBe(0);
  expect(performance.now() - startMs).toBeLessThan(1_000);
  expect(since(before)).toEqual({ unmarked: 0, marked: 1_500 });
});

test("SIGTERM under full load, with fail-open queues and bypass: every packet comes out", async () => {
  loopback.queueTo(4, 5, { isBypass: true });
  await serve("--queue=4:5", "--qlength=500", "--fail_open");
  const before = loopback.received();
  let sent = 0;
  let isOver = false;
  const load = async () => {
    while (!isOver) {
      loopback.send(320, { firstFlow: sent });
      sent += 320;
      await nextTurn();
    }
  };
  const loading = load();
  await expect.poll(() => since(before).marked).toBeGreaterThan(2_000);
  const startMs = performance.now();
  expect(await end("SIGTERM")).toBe(0);
  expect(performance.now() - startMs).toBeLessThan(1_000);
  isOver = true;
  await loading;
  const { unmarked, marked } = since(before);
  expect(unmarked + marked).toBe(sent);
  loopback.queueTo(4, 5);
});

test("a thread that fails is reported and started again, at the cost of the batch it had; the other queue goes on", async () => {
  const file = await bundle("test/harness/poison-worker.ts", bundleFolder);
  using counters = CounterFile.create(folder, COUNTERS, 2, "{}");
  ensureFlows(folder, "trace-flows");
  using _trace = TraceFile.own(folder, "trace", 3, 1_024);
  const sockets = [4, 5].map(
    (queueNumber) => new QueueSocket({ queueNumber, maxPackets: 4_096, copyBytes: 256, isFailOpen: false }),
  );
  const fragments = createFragmentMemory({ size: 500, buckets: 500, lifetimeMs: 200, isForgetful: false }, 2, 1);
  const restarts: [number, string][] = [];
  const threads = new QueueThreads(
    file,
    sockets.map((socket, worker) => ({
      socket,
      settings: {
        folder,
        countersName: COUNTERS,
        worker,
        queue: { fd: socket.fd, portId: socket.portId, queueNumber: socket.queueNumber, copyBytes: 256 },
        flowsName: "nfqlb-flows",
        streamName: null,
        tierName: null,
        udpEncapPort: 0,
        decider: { hashMode: 1, noFlowFwmark: -1, noTargetFwmark: -1, isPromiscuousPing: false },
        tierInterfaces: [],
        fragments,
        hold: null,
        trace: { name: "trace", rulesName: "trace-flows", packetsPerSecond: 100 },
      },
    })),
    {
      onRestart: (queueNumber, error) => restarts.push([queueNumber, (error as Error).message]),
      onFatal: (queueNumber, error) => restarts.push([queueNumber, `fatal: ${(error as Error).message}`]),
    },
  );
  await threads.ready;
  const before = loopback.received();
  const starts = () => [0, 1].map((worker) => counters.block(worker).counters[COUNTER_STARTS]);
  loopback.send(800);
  await expect.poll(() => since(before).marked).toBe(800);
  loopback.send(1, { port: 666, firstFlow: 3 });
  await expect.poll(() => restarts.length).toBe(1);
  loopback.send(800); // those for the queue that has no thread at the moment wait
  await expect.poll(() => since(before).marked, { timeout: 5_000 }).toBe(1_600);
  expect(restarts[0]![1]).toBe("poisoned packet");
  expect(starts()).toEqual(restarts[0]![0] === 4 ? [2, 1] : [1, 2]);
  expect(waiting()).toBe(0); // the poisoned one is dropped, not left in the queue
  loopback.send(1, { port: 666, firstFlow: 3 });
  await expect.poll(() => restarts.length).toBe(2); // soon again: after a pause, not for good
  loopback.send(800);
  await expect.poll(() => since(before).marked, { timeout: 5_000 }).toBe(2_400);
  expect(await threads.stop()).toBe(true);
  for (const socket of sockets) socket[Symbol.dispose]();
});

/** The programs with threads that can be poisoned, in a folder of their own. */
async function poisonedPrograms(): Promise<string> {
  const programs = mkdtempSync(join(bundleFolder, "bin-"));
  for (const file of ["nfqlb", "koffi.node", "package.json"])
    copyFileSync(join(ROOT, "bin", file), join(programs, file));
  renameSync(await bundle("test/harness/poison-worker.ts", programs), join(programs, "queue-worker.cjs"));
  return programs;
}

test("a thread that hangs is replaced in some seconds, at the cost of the batch it had; the other queue goes on", async () => {
  await serveWith(await poisonedPrograms(), "--queue=4:5");
  using counters = CounterFile.open(folder, COUNTERS);
  const of = (counter: number) => [0, 1].map((worker) => counters.block(worker).counters[counter]!);
  const before = loopback.received();
  const packetIds = of(COUNTER_LAST_PACKET_ID);
  loopback.send(1, { port: 667, firstFlow: 3 });
  await expect.poll(() => of(COUNTER_LAST_PACKET_ID)).not.toEqual(packetIds); // it is in a thread's hands
  loopback.send(800);
  await expect.poll(() => since(before).marked).toBeGreaterThan(100);
  expect(waiting()).toBeGreaterThan(100); // those for the queue whose thread hangs
  await expect.poll(() => since(before).marked, { timeout: 10_000 }).toBe(800);
  expect(of(COUNTER_STARTS).reduce((sum, starts) => sum + starts)).toBe(3);
  expect(errors).toMatch(/queue [45]: thread failed, started again in 0 ms: it hung, and was ended/);
  expect(waiting()).toBe(0); // the poisoned one is dropped, not left in the queue
  const startMs = performance.now();
  updateStreamTable(folder, "t", (active) => active.copyWithin(0, 0)); // the ended thread reads no table any more
  expect(performance.now() - startMs).toBeLessThan(900);
  loopback.send(800);
  await expect.poll(() => since(before).marked).toBe(1_600);
  expect(await end("SIGTERM")).toBe(0);
});

test("a thread that hangs outside of JavaScript cannot be replaced: the data plane ends, for another one to start", async () => {
  await serveWith(await poisonedPrograms(), "--queue=4:5");
  const exited = new Promise((resolve) => child!.once("exit", resolve));
  loopback.send(1, { port: 668 });
  expect(await exited).toBe(1);
  child = null;
  expect(errors).toMatch(/queue [45]: its thread hangs and cannot be ended/);
  expect(readDataPlane(folder, COUNTERS)).toBeNull();
});
