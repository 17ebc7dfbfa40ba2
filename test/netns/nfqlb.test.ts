import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { connectAbstract } from "#sys";
import { readDataPlane } from "#tables";
import { until } from "../harness/balancer.js";
import { ROOT } from "../harness/bundled.js";
import { enterFreshNamespaces } from "../harness/namespace.js";

const PROGRAM = join(ROOT, "bin", "nfqlb");
const folder = mkdtempSync(join(tmpdir(), "nfqlb-"));
let flowlb: ChildProcess;
let output = "";

/** Runs a command line; what it printed and its exit code. */
function nfqlb(...args: string[]) {
  const { stdout, stderr, status } = spawnSync(PROGRAM, args, {
    encoding: "utf8",
    env: { ...process.env, NFQLB_SHM_DIR: folder },
  });
  return { stdout, stderr, status };
}
const lines = (...args: string[]) =>
  nfqlb(...args)
    .stdout.trimEnd()
    .split("\n");

beforeAll(async () => {
  enterFreshNamespaces();
  flowlb = spawn(PROGRAM, ["flowlb", "--queue=4:5"], { env: { ...process.env, NFQLB_SHM_DIR: folder } });
  flowlb.stdout!.on("data", (chunk) => {
    output += chunk;
  });
  await until("the data plane", () => (readDataPlane(folder, "nfqlb-counters")?.isReady === true ? true : null));
});

afterAll(() => {
  flowlb.kill("SIGKILL");
  rmSync(folder, { recursive: true });
});

test("the start-up lines are upstream's", async () => {
  await expect.poll(() => output.trim().split("\n").length).toBe(3);
  const [fragments, ...queues] = output.trim().split("\n");
  expect(fragments).toBe("FragTable; size=500, buckets=500, frag=0, mtu=1500, ttl=200");
  for (const line of queues) expect(line).toMatch(/^queue_length=1024, mtu=1500, SO_RCVBUF=\d+ \(\d+\)$/);
});

test("init, activate, deactivate and show give what upstream gives, line by line", () => {
  expect(nfqlb("init")).toEqual({ stdout: "", stderr: "", status: 0 });
  expect(lines("show")).toEqual([
    "Shm: nfqlb",
    "  Fw: own=0",
    "  Maglev: M=997, N=32",
    "   Lookup: -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1...",
    "   Active:",
  ]);
  const steps: [string[], string, string][] = [
    [["activate", "101", "102", "103"], "2 0 0 2 2 1 0 1 0 0 1 2 2 1 2 1 1 0 2 0 2 0 2 1 2", "101(0) 102(1) 103(2)"],
    [["activate", "102", "104"], "2 0 0 2 2 1 0 1 0 0 1 2 3 1 2 1 3 0 2 0 3 0 2 3 2", "101(0) 102(1) 103(2) 104(3)"],
    [["deactivate", "102", "999"], "2 0 0 2 2 0 0 2 0 0 3 2 3 0 2 0 3 0 2 0 3 0 2 3 2", "101(0) 103(2) 104(3)"],
    [["activate", "105"], "", "101(0) 105(1) 103(2) 104(3)"],
    [
      ["activate", "--index=7", "107"],
      "2 7 0 2 2 1 0 1 0 7 1 2 3 7 2 1 3 7 2 0 7 0 2 3 7",
      "101(0) 105(1) 103(2) 104(3) 107(7)",
    ],
    [["deactivate", "--index=0"], "2 2 3 2 2 1 7 1 7 7 1 2 3 7 2 1 3 7 2 1 7 2 2 3 7", "105(1) 103(2) 104(3) 107(7)"],
  ];
  for (const [args, lookup, active] of steps) {
    expect(nfqlb(...args), args.join(" ")).toEqual({ stdout: "", stderr: "", status: 0 });
    const shown = lines("show");
    if (lookup !== "") expect(shown[3]).toBe(`   Lookup: ${lookup}...`);
    expect(shown[4]).toBe(`   Active: ${active}`);
  }
  expect(nfqlb("init", "--M=10", "--N=8")).toEqual({
    stdout: "M adjusted; 10 -> 7\n",
    stderr: "N can't be larger than M\n",
    status: 1,
  });
  expect(nfqlb("activate", "--index=32", "108")).toEqual({ stdout: "", stderr: "Lookup index too large\n", status: 1 });
  expect(nfqlb("show", "--shm=none")).toEqual({ stdout: "", stderr: "FAILED mapSharedData: none\n", status: 1 });
  expect(nfqlb("delete", "--shm=none").status).toBe(0);
  expect(nfqlb("delete")).toEqual({ stdout: "", stderr: "Missing option [--shm]\n", status: 1 });
  const { M, active, lookup } = JSON.parse(nfqlb("show", "--json").stdout) as {
    M: number;
    active: unknown[];
    lookup: number[];
  };
  expect([M, active.length, lookup.length]).toEqual([997, 4, 997]);
});

test("fwmark gives what upstream gives", () => {
  nfqlb("init", "--shm=big", "--M=1000", "--N=4", "--ownfw=201");
  nfqlb("activate", "--shm=big", "201", "202", "203", "204", "205");
  const mark = (...args: string[]) => nfqlb("fwmark", ...args);
  const ends = ["--src=192.0.2.17:40000", "--dst=10.0.0.1:80"];
  expect(mark("--shm=big", "--proto=tcp", ...ends).stdout).toBe(
    '{ "hash": 2212360209, "lookupindex": 260, "activeindex": 1, "fwmark": 202 }\n',
  );
  expect(mark(...ends).stdout).toBe('{ "hash": 4254937503 }\n');
  const sctp = ["--proto=sctp", "--src=192.0.2.17:30000", "--dst=10.0.0.1:6000"];
  expect(mark(...sctp).stdout).toBe('{ "hash": 2090731377 }\n');
  expect(mark("--hash_mode=0", ...sctp).stdout).toBe('{ "hash": 2847034255 }\n');
  expect(mark("--proto=UDP", "--src=[2001:db8:c::17]:5353", "--dst=[2001:db8:a::1]:53").stdout).toBe(
    '{ "hash": 3388825314 }\n',
  );
  expect(mark("--proto=icmp", ...ends)).toMatchObject({ stderr: "Failed to parse protocol [icmp]\n", status: 1 });
  expect(mark("--proto=tcp", "--src=192.0.2.17", "--dst=10.0.0.1:6000")).toMatchObject({
    stderr: "No port in [192.0.2.17]\n",
    status: 1,
  });
  expect(mark("--proto=tcp", "--src=1.2.3:4", "--dst=10.0.0.1:6000")).toMatchObject({
    stderr: "Parse address failed [1.2.3:4]\n",
    status: 1,
  });
});

test("flow commands that fail answer in upstream's words, with upstream's exit codes", () => {
  nfqlb("init", "--shm=lb1");
  expect(nfqlb("flow-set", "--name=f1", "--target=lb1")).toMatchObject({ stdout: "OK\n", status: 0 });
  writeFileSync(join(folder, "junk"), "hello");
  const refused: [string[], string, string][] = [
    ...["nfqlb-counters", "nfqlb-flows", "junk"].map((file): [string[], string, string] => [
      ["--name=bad", `--target=${file}`],
      "FAIL: Couldn't create load-balancer",
      `target "${file}": a table in shared memory`,
    ]),
    [["--name=bad", "--target=nope"], "FAIL: Couldn't create load-balancer", 'target "nope": a table in shared memory'],
    [["--name=f1", "--target=WRONG"], "FAIL: Couldn't create new load-balancer", 'target "WRONG": a table'],
    [
      ["--name=bad", "--target=lb1", "--protocols=tcp,tipc"],
      "Invalid protocols",
      'protocols "tipc": tcp, udp, sctp are',
    ],
    [
      ["--name=bad", "--target=lb1", "--protocols=tcp", "--dports=5,0-10"],
      "Invalid dports",
      'dports "0-10": ports are 1',
    ],
    [
      ["--name=bad", "--target=lb1", "--protocols=tcp", "--sports=0"],
      "Invalid dports",
      'sports "0": ports are 1..65535',
    ],
    [["--name=bad", "--target=lb1", "--dsts=10.0.0.1"], "Invalid dsts", 'dsts "10.0.0.1": not address/length'],
    [
      ["--name=bad", "--target=lb1", "--srcs=2000::/129"],
      "Invalid srcs",
      'srcs "2000::/129": length out of range, 0..128',
    ],
    [
      ["--name=bad", "--target=lb1", "--match=tcp[18:4]=1"],
      "Match [tcp[18:4]=1] Out of bounds",
      'match "tcp[18:4]=1": ',
    ],
    [
      ["--name=bad", "--target=lb1", "--match=icmp[2:2]=1"],
      "Match [icmp[2:2]=1] Doesn't match regexp",
      "tcp|udp|sctp[",
    ],
    [
      ["--name=bad", "--target=lb1", "--protocols=sctp,udp", "--udpencap=9899"],
      "FAIL: only sctp for updencap",
      'udpencap "9899": only with protocols "sctp", here they are "sctp,udp"',
    ],
  ];
  for (const [args, reply, reason] of refused) {
    const { stdout, status } = nfqlb("flow-set", ...args);
    expect(status).toBe(255);
    const flow = args[0]!.slice("--name=".length);
    expect(stdout.startsWith(`${reply}: flow "${flow}", `), stdout).toBe(true); // scripts look at how it begins
    expect(stdout).toContain(reason);
    expect(stdout).toMatch(/^[^\n]+\n$/);
  }
  const early: [string[], string][] = [
    [["--dports=1"], "ports specified without protocols\n"],
    [["--udpencap=9899"], "udpencap specified without protocols\n"],
    [["--protocols=tcp", "--udpencap=9899"], "udpencap specified without sctp\n"],
    [["--protocols=tcp", `--dports=${"1,".repeat(600)}`], "dports too long\n"],
  ];
  for (const [args, text] of early)
    expect(nfqlb("flow-set", "--name=bad", "--target=lb1", ...args)).toMatchObject({ stderr: text, status: 1 });
  expect(nfqlb("flow-list-names").stdout).toBe('[\n  "f1"\n]\n');
  expect(nfqlb("flow-list", "--name=f1").stdout).toBe(
    '{\n  "name": "f1",\n  "priority": 0,\n  "matches_count": 0,\n  "user_ref": "lb1"\n}',
  );
  expect(nfqlb("flow-delete", "--name=unknown")).toMatchObject({ stdout: "OK\n", status: 0 });
  expect(nfqlb("flow-delete", "--name=f1").stdout).toBe("OK\n");
  expect(nfqlb("flow-list").stdout).toBe("[]\n");
});

test("unknown commands, help and version", () => {
  expect(nfqlb("nonsense")).toEqual({ stdout: "", stderr: "Unknown command [nonsense]\n", status: 1 });
  expect(nfqlb("version")).toMatchObject({ stdout: "1.2.0\n", status: 0 });
  for (const args of [[], ["-h"], ["--help"], ["help"]])
    expect(nfqlb(...args)).toMatchObject({ status: 0, stdout: expect.stringContaining("flow-set") });
  expect(nfqlb("init", "--help")).toMatchObject({ status: 0, stdout: expect.stringContaining("--ownfw") });
  expect(nfqlb("init", "--bogus")).toMatchObject({ status: 1, stderr: "init: unrecognized option '--bogus'\n" });
  expect(nfqlb("primebelow", "1000").stdout).toBe("997\n");
});

test("garbage, floods and clients that go away on the flow socket harm nobody", async () => {
  const before = flowlb.pid;
  const bytes = (i: number) => Buffer.from(Array.from({ length: 3_000 }, (_, k) => (k * 31 + i * 7) & 255));
  const inputs = [
    ...Array.from({ length: 30 }, (_, i) => bytes(i)),
    Buffer.from("action:set\neoc:\n"),
    Buffer.from("action:set\nname:x\neoc:\n"),
    Buffer.from("action:set\nname:#x\ntarget:lb1\neoc:\n"),
    Buffer.from(`action:set\nname:${"n".repeat(5_000)}\ntarget:lb1\neoc:\n`),
    Buffer.from("action:set\nname:x\ntarget:../../etc/passwd\neoc:\n"),
    Buffer.from("no colon\neoc:\n"),
    Buffer.alloc(200_000, "a:b\n"),
  ];
  const sockets = inputs.map((input) => {
    const socket = new Socket({ fd: connectAbstract("nfqlb") });
    socket.on("error", () => {});
    socket.write(input);
    return socket;
  });
  for (const [i, socket] of sockets.entries()) if (i % 3 === 0) socket.destroy();
  expect(nfqlb("flow-list-names").stdout).toBe("[]\n"); // served beside all of them
  for (const socket of sockets) socket.destroy();
  expect(flowlb.exitCode).toBeNull();
  expect(readDataPlane(folder, "nfqlb-counters")?.pid).toBe(before);
});

test("a second data plane on the same folder, or the same queue, says so and leaves the first alone", () => {
  expect(nfqlb("flowlb", "--queue=9")).toMatchObject({
    status: 1,
    stderr: expect.stringMatching(/a data plane with pid \d+ is running/),
  });
  const other = mkdtempSync(join(tmpdir(), "nfqlb-"));
  const env = { ...process.env, NFQLB_SHM_DIR: other, NFQLB_FLOW_ADDRESS: `unix:${other}/flow` };
  const { status, stderr } = spawnSync(PROGRAM, ["flowlb", "--queue=4"], { encoding: "utf8", env });
  expect({ status, stderr }).toEqual({
    status: 1,
    stderr: "queue 4: NFQUEUE 4 bind: EPERM (another process serves this queue)\n",
  });
  rmSync(other, { recursive: true });
  expect(nfqlb("flowlb", "--queue=3:1")).toMatchObject({ status: 1, stderr: "queue invalid [3:1]\n" });
});

test("a table that is not there ends the start, in upstream's words; so do too many queues", () => {
  const refused: [string[], string][] = [
    [["lb", "--tshm=typo"], "FAILED mapSharedData: typo\n"],
    [["lb", "--tshm=lb1", "--lbshm=typo"], "FAILED mapSharedData: typo\n"],
    [["flowlb", "--lbshm=typo"], "FAILED mapSharedData: typo\n"],
    [["lb", "--tshm=lb1", "--queue=0:999"], "queue invalid [0:999]: 1000 queues; at most 128\n"],
  ];
  for (const [args, stderr] of refused)
    expect(nfqlb(...args), args.join(" ")).toEqual({ stdout: "", stderr, status: 1 });
});

test("SIGTERM ends the data plane in less than a second, with exit code 0", async () => {
  const exited = new Promise<number | null>((resolve) => flowlb.once("exit", resolve));
  const startMs = performance.now();
  flowlb.kill("SIGTERM");
  expect(await exited).toBe(0);
  expect(performance.now() - startMs).toBeLessThan(1_000);
});
