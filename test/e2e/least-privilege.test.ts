// The whole path as an ordinary user with CAP_NET_ADMIN alone, on a read-only root, without new privileges.
import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Balancer, SHM } from "../harness/balancer.js";
import { ROOT } from "../harness/bundled.js";
import { enterFreshNamespaces } from "../harness/namespace.js";
import { makePod, POD_USER } from "../harness/pod.js";
import { Topology } from "../harness/topology.js";

const TARGETS = [0, 1];
/** The map of a user namespace has one line with few users; only real root can become any user. */
const isRealRoot =
  process.geteuid?.() === 0 && /^\s*0\s+0\s+4294967295\s*$/.test(readFileSync("/proc/self/uid_map", "utf8"));
const CAP_NET_ADMIN = "0000000000001000";

let folder: string;
let topology: Topology;
let balancer: Balancer;
let pod: string;

/** A field of /proc/PID/status. */
const fieldOf = (pid: number, name: string) =>
  new RegExp(`^${name}:[ \\t]*(.*?)[ \\t]*$`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];

/** The pod's program as a second process of the same pod. */
const invoke = (launcher: string, ...args: readonly string[]) => {
  const env = { ...process.env, NSM_NFQUEUE: "7", NSM_LOG_LEVEL: "" };
  const { status, stdout, stderr } = spawnSync(join(launcher, "stateless-lb"), args, { encoding: "utf8", env });
  return { code: status, out: stdout, error: stderr };
};

beforeAll(async () => {
  if (!isRealRoot) return;
  enterFreshNamespaces();
  folder = mkdtempSync("/tmp/stateless-lb-pod-");
  pod = makePod(folder, "ambient");
  topology = await Topology.create(join(ROOT, "build"), TARGETS.length);
  chmodSync(topology.folder, 0o755);
  balancer = new Balancer(pod, topology, { NSM_NFQUEUE: "7" });
  balancer.configure(TARGETS);
  await balancer.start(TARGETS.length);
});

afterAll(() => {
  if (!isRealRoot) return;
  balancer[Symbol.dispose]();
  topology.close();
  rmSync(folder, { recursive: true, force: true });
});

test.skipIf(!isRealRoot)("packets of both families are balanced and none is lost", async () => {
  for (const family of [4, 6] as const) {
    const { firstId, sent } = await topology.sendUdp(family, 5_000, 10_000);
    const { lost, duplicates, perTarget } = await topology.account(firstId, sent);
    expect({ lost, duplicates }).toEqual({ lost: 0, duplicates: 0 });
    expect(Math.min(...perTarget)).toBeGreaterThan(sent / 4);
  }
  const { connections, answered, failures } = await topology.sendTcp(4, 20);
  expect({ answered, failures }).toEqual({ answered: connections, failures: [] });
});

test.skipIf(!isRealRoot)(
  "both programs have CAP_NET_ADMIN and nothing else, and what they made is theirs alone",
  () => {
    const { controlPlane } = JSON.parse(invoke(pod, "status", "--json").out) as {
      controlPlane: { document: { pid: number } };
    };
    for (const pid of [controlPlane.document.pid, balancer.dataPlane()!.pid]) {
      for (const set of ["CapEff", "CapPrm", "CapBnd"]) expect(fieldOf(pid, set), set).toBe(CAP_NET_ADMIN);
      expect(fieldOf(pid, "NoNewPrivs")).toBe("1");
      expect(fieldOf(pid, "Uid")).toBe(Array(4).fill(POD_USER).join("\t"));
      expect(fieldOf(pid, "Groups")).toBe("");
    }
    for (const name of ["tshm-web", "stateless-lb-status.json", "stateless-lb.lock"]) {
      const { uid, mode } = statSync(join(SHM, name));
      expect({ name, uid, mode: mode & 0o777 }).toEqual({ name, uid: POD_USER, mode: 0o600 });
    }
  },
);

test.skipIf(!isRealRoot)("status, doctor and --debug work in there; sysctl says where it has to run", () => {
  expect(invoke(pod, "status")).toMatchObject({ code: 0, out: expect.stringContaining("Everything works.") });
  const doctor = invoke(pod, "doctor");
  expect(doctor.out).toContain(`user ${POD_USER}, capabilities ${CAP_NET_ADMIN}, no new privileges`);
  expect(doctor.out).not.toMatch(/FAULT {3}(?!net\.)/); // the network's sysctls are this test's, not the pod's
  const debug = JSON.parse(invoke(pod, "--debug").out) as Record<string, unknown>;
  for (const key of ["network-interfaces", "rules", "route", "neighbors", "nftables", "streams"])
    expect(debug[key], key).not.toBeNull();
  expect(invoke(pod, "sysctl").error).toMatch(/(EROFS|EACCES); run this in a privileged init container\n/);
});

test.skipIf(!isRealRoot)("a data plane that dies is restarted, with no more rights", async () => {
  await balancer.killDataPlane();
  const { firstId, sent } = await topology.sendUdp(4, 5_000, 5_000);
  expect((await topology.account(firstId, sent)).lost).toBe(0);
  expect(fieldOf(balancer.dataPlane()!.pid, "CapEff")).toBe(CAP_NET_ADMIN);
});

test.skipIf(!isRealRoot)("without CAP_NET_ADMIN the start fails with one clear line", () => {
  const { code, error } = invoke(makePod(folder, "none"), "--config", join(topology.folder, "stateless-lb.yaml"));
  expect(code).toBe(1);
  expect(error).toMatch(/^stateless-lb: [^\n]*EPERM[^\n]*: CAP_NET_ADMIN is needed: [^\n]*\n$/);
});

test.skipIf(!isRealRoot)("a capability on the file of node does as well", () => {
  const { code, out } = invoke(
    makePod(folder, "file"),
    "--config",
    join(topology.folder, "stateless-lb.yaml"),
    "--dry-run",
  );
  expect(code).toBe(0);
  expect(out).toContain("# table tshm-web: 2 targets\n");
});

test.skipIf(!isRealRoot)("an orderly end cleans up and leaves with 0", async () => {
  expect(await balancer.stop()).toBe(0);
  expect(existsSync(join(SHM, "tshm-web"))).toBe(false);
});
