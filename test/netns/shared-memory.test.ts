// The folder of the tables in bad moments: full, and with files that somebody deletes by hand.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readdirSync, rmdirSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { parseFlowRule } from "#flow";
import { hasRegion, readDataPlane, readFlows, readStreamTable, updateFlows } from "#tables";
import { until } from "../harness/balancer.js";
import { ROOT } from "../harness/bundled.js";
import { enterFreshNamespaces, run } from "../harness/namespace.js";

const PROGRAM = join(ROOT, "bin", "nfqlb");
const FLOWS = "nfqlb-flows";
const folder = mkdtempSync(join(tmpdir(), "shared-memory-"));
const env = { ...process.env, NFQLB_SHM_DIR: folder };
let plane: ChildProcess;
let said = "";

function nfqlb(...args: string[]) {
  const { stdout, stderr, status, signal } = spawnSync(PROGRAM, args, { encoding: "utf8", env });
  return { text: stdout + stderr, status, signal };
}

beforeAll(() => {
  enterFreshNamespaces();
  run("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder);
});

afterAll(() => {
  plane.kill("SIGKILL");
  run("umount", "-l", folder);
  rmdirSync(folder);
});

beforeEach(async () => {
  if (plane?.exitCode === null) return;
  plane = spawn(PROGRAM, ["flowlb", "--queue=4"], { env });
  for (const stream of [plane.stdout!, plane.stderr!])
    stream.on("data", (chunk) => {
      said += chunk;
    });
  await until("the data plane", () => (readDataPlane(folder, "nfqlb-counters")?.isReady === true ? true : null));
});

/** Takes all memory that is left. @returns gives it back */
function fill(): () => void {
  const path = join(folder, "fill");
  const fd = openSync(path, "w");
  for (const piece of [1 << 20, 4_096]) {
    const bytes = new Uint8Array(piece).fill(1);
    try {
      while (writeSync(fd, bytes) === piece);
    } catch (error) {
      expect(error).toMatchObject({ code: "ENOSPC" });
    }
  }
  closeSync(fd);
  return () => rmSync(path);
}

test("R1: in a full folder changes are refused with the reason, the data plane runs on, and takes them when there is room", () => {
  expect(nfqlb("init", "--shm=t").status).toBe(0);
  const rules = Array.from({ length: 2_000 }, (_, i) =>
    parseFlowRule({ name: `f${i}`, target: "t", protocols: "tcp", dports: String(i + 1) }),
  );
  updateFlows(
    folder,
    FLOWS,
    () => rules,
    () => 0,
  );
  const giveBack = fill();
  const set = ["flow-set", "--name=new", "--target=t", "--protocols=udp"]; // the first counter of a page nobody has touched
  const refused = nfqlb(...set);
  expect(refused.text).toMatch(/region .*nfqlb-flows: no room for \d+ bytes.*ENOSPC/);
  expect(nfqlb("activate", "--shm=t", "101")).toEqual({ text: "", status: 0, signal: null }); // has its memory
  expect(nfqlb("init", "--shm=u")).toMatchObject({ status: 1, text: expect.stringMatching(/no room for \d+ bytes/) });
  expect(plane.exitCode ?? plane.signalCode).toBeNull();
  expect(readFlows(folder, FLOWS).rules).toHaveLength(2_000);
  giveBack();
  expect(nfqlb(...set)).toMatchObject({ status: 0 });
  expect(JSON.parse(nfqlb("flow-list", "--name=new").text)).toMatchObject({ name: "new", matches_count: 0 });
});

test("R1: what begins in a full folder says so and ends, without a trace of it", async () => {
  const ended = new Promise((resolve) => plane.once("exit", resolve));
  plane.kill("SIGTERM");
  await ended;
  for (const name of readdirSync(folder)) rmSync(join(folder, name));
  const giveBack = fill();
  for (const args of [["flowlb", "--queue=4"], ["loglevel"], ["init"]])
    expect(nfqlb(...args), args[0]).toMatchObject({
      status: 1,
      text: expect.stringMatching(/^region .*: no room for \d+ bytes/),
    });
  expect(readdirSync(folder)).toEqual(["fill"]);
  giveBack();
});

test("a table and the rules that somebody deletes by hand come back with what is in force, and it is logged", async () => {
  expect(nfqlb("init", "--shm=t").status).toBe(0);
  expect(nfqlb("activate", "--shm=t", "101").status).toBe(0);
  expect(nfqlb("flow-set", "--name=a", "--target=t").status).toBe(0);
  rmSync(join(folder, FLOWS));
  expect(nfqlb("flow-set", "--name=b", "--target=t")).toMatchObject({ status: 0 }); // at once
  expect(
    readFlows(folder, FLOWS)
      .rules.map(({ rule }) => rule.name)
      .sort(),
  ).toEqual(["a", "b"]);
  rmSync(join(folder, FLOWS));
  await until("the rules", () => (hasRegion(folder, FLOWS) ? true : null));
  await until("the log", () => (said.includes(`${FLOWS} was deleted by hand while in use: put back`) ? true : null));
  expect(nfqlb("flow-list-names").text).toBe('[\n  "a",\n  "b"\n]\n');
  expect(readStreamTable(folder, "t").active[0]).toBe(101);
});

test("init and delete leave what is no lookup table alone", () => {
  for (const name of [FLOWS, "nfqlb-counters", "nfqlb-trace-rings"])
    for (const command of ["init", "delete"])
      expect(nfqlb(command, `--shm=${name}`)).toEqual({
        text: `${name} is no lookup table, but a data plane's\n`,
        status: 1,
        signal: null,
      });
});
