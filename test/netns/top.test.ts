import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parseFlowRule } from "#flow";
import { readQueueStates } from "#netlink/queue";
import {
  createStreamTable,
  ensureFlows,
  readDataPlane,
  readStreamTable,
  updateFlows,
  updateStreamTable,
} from "#tables";
import type { Report } from "../../src/programs/nfqlb/top-report.js";
import { readSnapshot } from "../../src/programs/nfqlb/top-snapshot.js";
import { queueSource } from "../../src/programs/stateless-lb/metrics/queue-metrics.js";
import { until } from "../harness/balancer.js";
import { ROOT } from "../harness/bundled.js";
import { textOf } from "../harness/instance-metrics.js";
import { Loopback } from "../harness/loopback.js";
import { enterFreshNamespaces } from "../harness/namespace.js";

const PROGRAM = join(ROOT, "bin", "nfqlb");
const folder = mkdtempSync(join(tmpdir(), "top-"));
const env = { ...process.env, NFQLB_SHM_DIR: folder, TERM: "xterm", NFQLB_WATCHERS: "normal" };
let loopback: Loopback;
let flowlb: ChildProcess;

beforeAll(async () => {
  enterFreshNamespaces();
  loopback = new Loopback(4, 5);
  createStreamTable(folder, "web", { size: 997, targets: 10, ownFwmark: 0 });
  updateStreamTable(folder, "web", (active) => {
    for (let i = 0; i < 4; i++) active[i] = 5001 + i;
  });
  ensureFlows(folder, "nfqlb-flows");
  const rules = [
    parseFlowRule({ name: "5000", target: "web", protocols: "udp", dports: "5000" }),
    parseFlowRule({ name: "5001", target: "web", protocols: "udp", dports: "5001" }),
  ];
  updateFlows(
    folder,
    "nfqlb-flows",
    () => rules,
    () => 0,
  );
  flowlb = spawn(PROGRAM, ["flowlb", "--queue=4:5"], { env, stdio: "ignore" });
  await until("the data plane", () => (readDataPlane(folder, "nfqlb-counters")?.isReady === true ? true : null));
});

afterAll(() => {
  flowlb.kill("SIGKILL");
  loopback[Symbol.dispose]();
  rmSync(folder, { recursive: true });
});

async function top(...args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(PROGRAM, ["top", ...args], { env });
  return stdout;
}

async function send(packets: number, port: number): Promise<void> {
  for (let sent = 0; sent < packets; sent += 400) {
    loopback.send(400, { port, firstFlow: sent });
    await until("the queues", () =>
      [...readQueueStates()!.values()].every(({ waiting }) => waiting === 0) ? true : null,
    );
  }
}

test("--once --json: the figures are those of the packets sent", async () => {
  await send(6_000, 5000);
  await send(2_000, 5001);
  await send(400, 666); // no flow takes it
  const report = JSON.parse(await top("--once", "--json", "--interval=0.3")) as Report;
  expect(report.dataPlane).toEqual({ pid: flowlb.pid, isReady: true });
  expect(report.total.packets).toBe(8_400);
  expect(report.queues.map(({ queue }) => queue)).toEqual([4, 5]);
  expect(report.queues.reduce((sum, { packets }) => sum + packets, 0)).toBe(8_400);
  expect(report.queues.reduce((sum, { dropped }) => sum + dropped, 0)).toBe(400);
  expect(report.queues.map(({ lost }) => lost)).toEqual(Array(2).fill({ queueFull: 0, bufferFull: 0 }));
  expect(report.flows.map(({ flow, matches }) => [flow, matches])).toEqual([
    ["5000", 6_000],
    ["5001", 2_000],
  ]);
  expect(report.targets.map(({ index, fwmark }) => [index, fwmark])).toEqual([0, 1, 2, 3].map((i) => [i, 5001 + i]));
  expect(report.targets.reduce((sum, { packets }) => sum + packets, 0)).toBe(8_000);
  const { lookup, size } = readStreamTable(folder, "web");
  for (const { index, ideal, packets, totalShare } of report.targets) {
    expect(ideal).toBeCloseTo(lookup.filter((target) => target === index).length / size, 5);
    expect(totalShare).toBeCloseTo(packets / 8_000, 5);
    expect(totalShare!).toBeGreaterThan(0.1); // 1,600 flows over four targets
  }
});

test("--once --json under traffic: rates, shares and CPU of the interval", async () => {
  let isOver = false;
  const load = async () => {
    while (!isOver) {
      await send(800, 5000);
      await delay(1);
    }
  };
  const loading = load();
  const report = JSON.parse(await top("--once", "--json", "--interval=1.5")) as Report;
  isOver = true;
  await loading;
  expect(report.total.packetsPerSecond).toBeGreaterThan(1_000);
  expect(report.targets.reduce((sum, { share }) => sum + share!, 0)).toBeCloseTo(1, 4);
  expect(report.total.cpuPercent).toBeGreaterThan(0);
  const matches = report.flows[0]!.matchesPerSecond / report.total.packetsPerSecond;
  expect(matches).toBeCloseTo(1, 1); // the counters are read one after the other, not at one moment
});

test("without a terminal it prints once; without a data plane it says so", async () => {
  const text = await top("--interval=0.2");
  expect(text).toMatch(/^packets\/s \d/);
  expect(text).toMatch(/^TARGET +FWMARK PACKETS\/S/m);
  expect(text).not.toContain("\u001b");
  const other = promisify(execFile)(PROGRAM, ["top", "--once"], { env: { ...env, NFQLB_SHM_DIR: "/dev/shm" } });
  await expect(other).rejects.toMatchObject({ code: 1, stderr: "no data plane runs in /dev/shm\n" });
  await expect(top("--interval=0")).rejects.toMatchObject({ stderr: "Invalid --interval [0]; seconds 0.1..3600\n" });
});

/** `nfqlb top` on a terminal of its own. */
function onTerminal() {
  const child = spawn("script", ["-qfec", `stty rows 24 cols 80; exec ${PROGRAM} top --interval=0.2`, "/dev/null"], {
    env,
  });
  const state = { output: "" };
  child.stdout.on("data", (chunk) => {
    state.output += chunk;
  });
  const exited = new Promise<number | null>((resolve) => child.once("exit", resolve));
  return { child, state, exited };
}

test("live: another screen, keys, and the old screen at the end", async () => {
  const { child, state, exited } = onTerminal();
  await expect.poll(() => state.output, { timeout: 5_000 }).toContain("[s]ort: rate");
  expect(state.output).toContain("\u001b[?1049h\u001b[?25l");
  expect(state.output).toContain("\u001b[7mQUEUE  ");
  child.stdin.write("s");
  await expect.poll(() => state.output, { timeout: 5_000 }).toContain("[s]ort: name");
  child.stdin.write("q");
  expect(await exited).toBe(0);
  expect(state.output.endsWith("\u001b[?25h\u001b[?1049l")).toBe(true);
});

test("live: SIGTERM gives the old screen back, too", async () => {
  const { child, state, exited } = onTerminal();
  await expect.poll(() => state.output, { timeout: 5_000 }).toContain("[s]ort: rate");
  const pid = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, "utf8").trim();
  process.kill(Number(pid), "SIGTERM");
  expect(await exited).toBe(0);
  expect(state.output.endsWith("\u001b[?25h\u001b[?1049l")).toBe(true);
});

test("a data plane that is stopped hangs for whoever looks, and what waits is the kernel's word", async () => {
  const look = () => {
    const { isHanging, queues } = readSnapshot(folder)!;
    const lines = textOf(queueSource(folder, "nfqlb-counters")).split("\n");
    const metric = (name: string) =>
      lines
        .filter((line) => line.startsWith(`stateless_lb_${name}`))
        .reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
    const waiting = queues.reduce((sum, queue) => sum + queue.waiting, 0);
    return [isHanging, waiting, metric("data_plane_up"), metric("queue_waiting_packets")];
  };
  await expect.poll(look).toEqual([false, 0, 1, 0]);
  flowlb.kill("SIGSTOP");
  const threads = `/proc/${flowlb.pid}/task`;
  const isStopped = (id: string) => / T /.test(readFileSync(join(threads, id, "stat"), "utf8"));
  await until("the stop", () => (readdirSync(threads).every(isStopped) ? true : null));
  loopback.send(100, { port: 5000, firstFlow: 0 });
  await expect.poll(look, { timeout: 10_000 }).toEqual([true, 100, 0, 100]);
  flowlb.kill("SIGCONT");
  await expect.poll(look, { timeout: 10_000 }).toEqual([false, 0, 1, 0]);
});
