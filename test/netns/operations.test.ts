// What an operator asks the built programs: status, doctor, --debug, sysctl, signals, exit codes; in a network of its own.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmdirSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readDataPlane } from "#tables";
import { SHM, until } from "../harness/balancer.js";
import { ROOT } from "../harness/bundled.js";
import { enterFreshNamespaces, type Host, ip, makeHost, run } from "../harness/namespace.js";

const PROGRAM = join(ROOT, "bin", "stateless-lb");
const CONFIG = join(SHM, "config.yaml");
const DEADLINE_MS = 20_000;
let target: Host;
let control: ChildProcess | null = null;
let printed = "";

/** Target 1 is reachable in both families; target 2 lives in a network that is not here. */
const CONFIGURATION = `trench: { name: demo }
conduits: [ { name: load-balancer } ]
vips: [ { name: v4, address: 10.0.0.1/32 }, { name: v6, address: "fd00::1/128" } ]
streams: [ { name: web, conduit: load-balancer, max-targets: 10 } ]
flows: [ { name: tcp, stream: web, priority: 1, protocols: [tcp], vips: [v4, v6], destination-port-ranges: ["80"] } ]
targets:
  - { stream: web, identifier: 1, ips: ["172.16.1.2/24", "fd16::2/64"] }
  - { stream: web, identifier: 2, ips: ["172.16.9.2/24"] }
`;

type Outcome = { readonly code: number | null; readonly out: string; readonly error: string };

function invoke(args: readonly string[], env: Record<string, string> = {}): Outcome {
  const { status, stdout, stderr } = spawnSync(PROGRAM, args, { encoding: "utf8", env: { ...process.env, ...env } });
  return { code: status, out: stdout, error: stderr };
}

function start(): void {
  printed = "";
  const env = { ...process.env, NSM_NFQUEUE: "0" };
  control = spawn(PROGRAM, ["--config", CONFIG], { env, stdio: ["ignore", "pipe", "pipe"] });
  for (const stream of [control.stdout!, control.stderr!]) stream.on("data", (chunk) => (printed += String(chunk)));
}

/** Sends a signal and resolves with the exit code. */
async function end(signal: NodeJS.Signals): Promise<number | null> {
  const exited = new Promise<number | null>((resolve) => control!.once("exit", resolve));
  control!.kill(signal);
  return exited;
}

/** Lines of the log with that message. */
const logged = (message: string) => printed.split("\n").filter((line) => line.includes(`"message":"${message}`));

/** Asks `status` until it says so. */
const untilStatus = (expected: RegExp) =>
  until(
    String(expected),
    () => {
      const { out } = invoke(["status"]);
      return expected.test(out) ? out : null;
    },
    DEADLINE_MS,
  ).catch((error: Error) => {
    throw new Error(`${error.message}; it says:\n${invoke(["status"]).out}\nand printed:\n${printed}`);
  });

beforeAll(async () => {
  enterFreshNamespaces();
  target = await makeHost();
  ip(
    `link add t1 type veth peer name eth0 netns ${target.pid}`,
    "addr add 172.16.1.1/24 dev t1",
    "addr add fd16::1/64 dev t1 nodad",
    "link set t1 up",
  );
  target.ip("addr add 172.16.1.2/24 dev eth0", "addr add fd16::2/64 dev eth0 nodad", "link set eth0 up");
  writeFileSync(CONFIG, CONFIGURATION);
});

afterAll(() => {
  control?.kill("SIGKILL");
  const running = readDataPlane(SHM, "nfqlb-counters");
  if (running !== null) process.kill(running.pid, "SIGKILL");
  target.close();
});

test("O2: exit codes of what cannot be read, and of starts that fail", () => {
  expect(invoke(["--version"])).toMatchObject({ code: 0, out: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) });
  expect(invoke(["-h"])).toMatchObject({ code: 0, out: "", error: expect.stringMatching(/^Usage of stateless-lb:\n/) });
  expect(invoke(["--help"])).toMatchObject({ code: 0, out: expect.stringMatching(/^\nstateless-lb --\n/) });
  const unknown = invoke(["-x"]);
  expect(unknown).toMatchObject({ code: 2, out: "" });
  expect(unknown.error).toMatch(/^flag provided but not defined: -x\nUsage of stateless-lb:\n/);
  expect(invoke(["statsu"])).toMatchObject({ code: 2, error: expect.stringContaining("no command statsu") });
  const unreadable = invoke([], { NSM_DIAL_TIMEOUT: "", NSM_NFQUEUE: "9:1" });
  expect(unreadable).toMatchObject({ code: 2, out: "" });
  expect(unreadable.error).toMatch(/^stateless-lb: NSM_DIAL_TIMEOUT="": .*\nNSM_NFQUEUE="9:1": .*\n$/);
  const senseless = invoke([], { NSM_NFQUEUE: "9:1" });
  expect(senseless.code).toBe(1);
  expect(JSON.parse(senseless.out)).toMatchObject({ severity: "critical", message: "invalid config" });
  const noMesh = invoke([], { NSM_LOG_LEVEL: "", NSM_CONNECT_TO: "tcp://me:geheim@host:1" });
  expect(noMesh.code).toBe(1);
  expect(noMesh.error).toMatch(/^stateless-lb: .*NSM_MESH_ENABLED=false.*\n$/);
  const [read, failed] = noMesh.out
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as object);
  const config = expect.objectContaining({ NSM_NFQUEUE: "0:3", NSM_CONNECT_TO: "tcp://***@host:1" });
  expect(read).toMatchObject({ severity: "info", message: "Configuration read", extra_data: { config } });
  expect(failed).toMatchObject({ severity: "critical" });
});

test("sysctl sets what doctor misses, and only that; --dry-run changes nothing", () => {
  writeFileSync("/proc/sys/net/ipv4/conf/t1/rp_filter", "1");
  const forwarding = "/proc/sys/net/ipv4/conf/all/forwarding";
  const planned = invoke(["sysctl", "--dry-run"]);
  expect(planned.out).toContain("sysctl -w net.ipv4.conf.all.forwarding='1'\n");
  expect(planned.out).toContain("sysctl -w net.ipv4.conf.t1.rp_filter='0'\n");
  expect(readFileSync(forwarding, "utf8")).toBe("0\n");
  expect(invoke(["doctor"]).out).toMatch(/FAULT {3}net\.ipv4\.conf\.all\.forwarding: 0, but .*\n +mend: sysctl -w/);
  const done = invoke(["sysctl"]);
  expect(done).toMatchObject({ code: 0, error: "" });
  expect(done.out).toContain("net.ipv4.conf.t1.rp_filter = 0 (was 1)\n");
  expect(readFileSync(forwarding, "utf8")).toBe("1\n");
  expect(invoke(["sysctl"])).toEqual({ code: 0, out: "", error: "" });
  expect(invoke(["doctor"]).out).toContain("ok      sysctls: as they have to be\n");
  writeFileSync("/proc/sys/net/ipv4/conf/t1/forwarding", "0"); // alone it keeps what comes in there from going on
  expect(invoke(["doctor"]).out).toMatch(/FAULT {3}net\.ipv4\.conf\.t1\.forwarding: 0, but .* come in here/);
  expect(invoke(["sysctl"])).toEqual({ code: 0, out: "net.ipv4.conf.t1.forwarding = 1 (was 0)\n", error: "" });
});

test("doctor tells scarce shared memory, and packets that are put together too large", () => {
  mkdirSync("/dev/shm/small");
  run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", "/dev/shm/small");
  ip("link set t1 gro_max_size 131072");
  const { out } = invoke(["doctor"], { NFQLB_SHM_DIR: "/dev/shm/small" });
  ip("link set t1 gro_max_size 65536");
  run("umount", "/dev/shm/small");
  rmdirSync("/dev/shm/small");
  expect(out).toMatch(
    /FAULT {3}shared memory, \/dev\/shm\/small: \d of 4 MiB free: new streams will be refused\n +mend:/,
  );
  expect(out).toMatch(
    /advice {2}offloads of t1: BIG TCP: .* 131072 bytes .*\n +mend: ip link set t1 gro_max_size 65536\n/,
  );
});

test("--dry-run reads the file and nothing else: no address is listened on, no database opened", () => {
  const file = join(SHM, "public.yaml");
  const database = join(SHM, "nsp.db");
  const taken = join(SHM, "taken.sock"); // as if another process had it; what is no socket is never taken away
  writeFileSync(taken, "");
  writeFileSync(database, "damaged");
  writeFileSync(file, `${CONFIGURATION}nsp: { listen: ["unix:${taken}"], database: ${database} }\n`);
  const { code, out } = invoke(["--config", file, "--dry-run"]);
  expect(out).toContain("# table tshm-web: 2 targets\n");
  expect(out).toMatch(/^ip -4 route replace default via 172\.16\.1\.2 table 5001/m);
  expect(code).toBe(0);
  expect(readFileSync(database, "utf8")).toBe("damaged");
  for (const path of [file, database, taken]) rmSync(path);
});

test("a start that fails has its reason in the status too, and a folder that cannot be made ends it", () => {
  expect(invoke(["status"])).toMatchObject({ code: 1, out: expect.stringContaining("none has ever worked") });
  const failed = invoke(["--config", CONFIG], { NSM_LOG_LEVEL: "", NSM_HEALTH_SOCKET: "unix:///proc/x/health.sock" });
  expect(failed).toMatchObject({
    code: 1,
    error: expect.stringMatching(/^stateless-lb: NSM_HEALTH_SOCKET: ENOENT.*\n$/),
  });
  expect(invoke(["status"]).out).toMatch(/control plane +FAULT +gave up \(NSM_HEALTH_SOCKET: ENOENT/);
});

test("status says what works, what does not, and why", async () => {
  start();
  const screen = await untilStatus(/stream web +FAULT +1 of 2 targets ready/);
  expect(screen).toMatch(/control plane +ok +pid/);
  expect(screen).toMatch(/NSP +ok +embedded, from/);
  expect(screen).toMatch(/- target 2 of web \(mark 5002, 172\.16\.9\.2\) is pending: .*ENETUNREACH/);
  const { isWell, targets } = JSON.parse(invoke(["status", "--json"]).out) as {
    isWell: boolean;
    targets: { state: string; reason: string }[];
  };
  expect(isWell).toBe(false);
  expect(targets.map(({ state }) => state)).toEqual(["ready", "pending"]);
});

test("O4: doctor proves the way to each target by its own mark, and says what to mend", async () => {
  const healthy = invoke(["doctor"]);
  expect(healthy.code).toBe(1); // target 2
  expect(healthy.out).toMatch(/ok {6}target 1 of web, 172\.16\.1\.2, mark 5001: t1, neighbor reachable\n/);
  expect(healthy.out).toMatch(/ok {6}target 1 of web, fd16::2, mark 5001: t1, neighbor reachable\n/);
  expect(healthy.out).toMatch(
    /FAULT {3}target 2 of web, 172\.16\.9\.2, mark 5002: no route for mark 5002 \(ENETUNREACH\)\n/,
  );
  expect(healthy.out).toMatch(/ok {6}data plane: pid \d+, 1 queues\n/);
  ip("rule add priority 1 fwmark 5001 lookup 77", "route add default via 172.16.1.9 table 77");
  const misled = invoke(["doctor", "--json"]);
  ip("rule del priority 1 fwmark 5001 lookup 77", "route flush table 77");
  const checks = JSON.parse(misled.out) as { what: string; found: string; mend: string }[];
  const found = checks.find(({ what }) => what.includes("172.16.1.2"));
  expect(found).toMatchObject({ verdict: "fault", found: "mark 5001 leads to table 77, to 172.16.1.9" });
  // The host goes silent: its neighbor entry fails when doctor asks.
  target.ip("link set eth0 arp off", "addr del 172.16.1.2/24 dev eth0");
  ip("neigh flush dev t1");
  expect(invoke(["doctor"]).out).toMatch(
    /FAULT {3}target 1 of web, 172\.16\.1\.2, mark 5001: neighbor failed on t1\n +mend:/,
  );
  await untilStatus(/target 1 of web .* is unreachable: 172\.16\.1\.2 does not answer on t1/);
  target.ip("addr add 172.16.1.2/24 dev eth0", "link set eth0 arp on");
  ip("neigh flush dev t1");
  await untilStatus(/1 of 2 targets ready/);
});

test("O1: --debug has the reference's keys in its order, ours behind them, and no credentials", () => {
  invoke(["doctor"]); // so that the neighbor is known
  const { code, out } = invoke(["--debug"], { APP_PASSWORD: "geheim", NSM_CONNECT_TO: "tcp://me:geheim@host:1" });
  expect(code).toBe(0);
  expect(out.indexOf("\n")).toBe(out.length - 1);
  expect(out).not.toContain("geheim");
  // biome-ignore lint/suspicious/noExplicitAny: a document to look into
  const debug = JSON.parse(out) as any;
  expect(Object.keys(debug).slice(0, 9)).toEqual([
    "version",
    "meridio-version",
    "unix-time",
    "network-interfaces",
    "rules",
    "route",
    "neighbors",
    "system",
    "environment-variables",
  ]);
  expect(debug.version).toBe("v0.0.1");
  expect(debug["environment-variables"]).toContain("APP_PASSWORD=***");
  const t1 = debug["network-interfaces"].find(({ name }: { name: string }) => name === "t1");
  const keys = ["index", "name", "mac", "ips", "mtu", "up", "master-index", "statistics"];
  expect(Object.keys(t1).slice(0, 8)).toEqual(keys);
  expect(t1.ips).toEqual(expect.arrayContaining(["172.16.1.1/24", "fd16::1/64"]));
  const counted = readFileSync("/proc/net/dev", "utf8")
    .split("\n")
    .find((line) => line.includes("t1:"))!;
  const [, rxBytes] = counted
    .trim()
    .split(/[:\s]+/)
    .map(Number);
  expect(t1.statistics["rx-bytes"]).toBeGreaterThan(0);
  expect(t1.statistics["rx-bytes"]).toBeLessThanOrEqual(rxBytes!);
  const rule = debug.rules.find(({ mark }: { mark: number }) => mark === 5001);
  expect(rule).toMatchObject({ table: 5001, priority: 90, source: "", destination: "" });
  expect(debug["policy-tables"]["5001"]).toEqual(
    expect.arrayContaining([expect.objectContaining({ gateway: "172.16.1.2" })]),
  );
  expect(debug.neighbors).toEqual(
    expect.arrayContaining([expect.objectContaining({ ip: "172.16.1.2", "interface-name": "t1" })]),
  );
  expect(debug.system["cpu-info"].length).toBeGreaterThan(0);
  const nfqlb = debug.nftables.find(({ name }: { name: string }) => name === "meridio-nfqlb");
  expect(nfqlb.sets).toEqual(
    expect.arrayContaining([{ name: "ipv4-vips", elements: expect.arrayContaining(["10.0.0.1"]) }]),
  );
  const chain = nfqlb.chains.find(({ name }: { name: string }) => name === "nfqlb");
  expect(chain).toMatchObject({ hook: { type: "filter", hook: "prerouting", priority: 0 }, policy: "accept" });
  expect(chain.rules[0].expressions).toEqual(
    expect.arrayContaining([
      expect.objectContaining({ name: "lookup", set: "ipv4-vips" }),
      expect.objectContaining({ name: "counter", packets: expect.any(Number), bytes: expect.any(Number) }),
    ]),
  );
  expect(debug.targets[1]).toMatchObject({
    identifier: 2,
    state: "pending",
    reason: expect.stringContaining("ENETUNREACH"),
  });
  expect(debug["control-plane"]).toMatchObject({ state: "running", document: { phase: "serving" } });
});

test("a document larger than a pipe comes out whole, and a reader that goes away does no harm", () => {
  const env = { ...process.env, LARGE: "x".repeat(100_000) };
  const piped = spawnSync("sh", ["-c", `"${PROGRAM}" --debug | cat`], { encoding: "utf8", env });
  expect(JSON.parse(piped.stdout)).toMatchObject({ version: "v0.0.1" });
  expect(piped.stdout.length).toBeGreaterThan(100_000);
  const cut = spawnSync("sh", ["-c", `"${PROGRAM}" --debug | head -c 10`], { encoding: "utf8", env });
  expect(cut).toMatchObject({ status: 0, stderr: "" });
});

test("--debug shows the source of a rule without destination", () => {
  ip("rule add priority 100 from 10.0.0.1/32 lookup 4096");
  const { rules } = JSON.parse(invoke(["--debug"]).out) as { rules: { priority: number }[] };
  ip("rule del priority 100 from 10.0.0.1/32 lookup 4096");
  expect(rules.find(({ priority }) => priority === 100)).toMatchObject({ source: "10.0.0.1/32", destination: "" });
});

test("SIGUSR2 logs at TRACE, SIGUSR1 as configured; no debugger opens", async () => {
  control!.kill("SIGUSR2");
  await until("TRACE", () => logged("Changing log level to 'TRACE' from 'DEBUG'")[0] ?? null);
  expect(logged("kernel tells")).toEqual([]); // DEBUG says less
  ip("addr add 192.0.2.77/32 dev lo", "addr del 192.0.2.77/32 dev lo");
  await until("the kernel's word", () => logged("kernel tells").find((line) => line.includes("192.0.2.77/32")) ?? null);
  control!.kill("SIGUSR1");
  await until("DEBUG", () => logged("Changing log level to 'DEBUG' from 'TRACE'")[0] ?? null);
  expect(printed).not.toContain("Debugger");
});

test("a second control plane on the same folder is refused, the first one serves on", () => {
  const second = invoke(["--config", CONFIG], { NSM_LOG_LEVEL: "" });
  expect(second.code).toBe(1);
  expect(second.error).toMatch(/^stateless-lb: another stateless-lb \(pid \d+\) works on \/dev\/shm: [^\n]*\n$/);
  expect(invoke(["status"]).out).toMatch(/control plane +ok/);
});

test("a second control plane in the same network namespace is refused, whatever its folder", () => {
  mkdirSync("/dev/shm/other");
  const second = invoke(["--config", CONFIG], { NSM_LOG_LEVEL: "", NFQLB_SHM_DIR: "/dev/shm/other" });
  expect(second.code).toBe(1);
  expect(second.error).toContain(
    `stateless-lb: @stateless-lb, the lock of this network namespace, is held by pid ${control!.pid}: node `,
  );
  expect(second.error).toContain(
    `: is it another stateless-lb? End it, or run this one in a network namespace of its own`,
  );
  expect(invoke(["status"]).out).toMatch(/control plane +ok/);
});

test("a file that renames what is served needs a restart: the last good one stays in force, and status says so", async () => {
  for (const [from, to, reason] of [
    ["name: demo", "name: other", "needs a restart: trench demo is served, the file has trench other"],
    ["load-balancer", "lb", "needs a restart: conduit load-balancer is served, the file has lb"],
  ] as const) {
    writeFileSync(CONFIG, CONFIGURATION.replaceAll(from, to));
    const screen = await untilStatus(/the configuration file is not in force/);
    expect(screen).toContain(`not in force: ${CONFIG}: ${reason}\n`);
    expect(screen).toMatch(/stream web +FAULT +1 of 2 targets ready/);
    const lines = () => logged("configuration file refused").filter((line) => line.includes(reason));
    await until("the log's word", () => lines()[0] ?? null);
    expect(lines()).toHaveLength(1);
    writeFileSync(CONFIG, CONFIGURATION);
    await until("the file's reading", () => (invoke(["status"]).out.includes("not in force") ? null : true));
  }
  expect(logged("Evict streams").concat(logged("LB stream terminated"))).toEqual([]);
});

test("status and doctor call old what the control plane cannot write anew, until there is room again", async () => {
  const { blocks, bfree, bsize } = statfsSync(SHM);
  run("mount", "-o", `remount,size=${(blocks - bfree) * bsize}`, SHM);
  ip("addr add 192.0.2.77/32 dev lo"); // something to tell
  const screen = await untilStatus(/control plane +FAULT +pid \d+ runs, and cannot write its status/);
  expect(screen).toMatch(/NSP +OLD +embedded/);
  expect(screen).toMatch(/- the control plane's status is old, it cannot be written: ENOSPC/);
  const { out } = invoke(["doctor"]);
  expect(out).toMatch(/FAULT {3}control plane: it cannot write its status \(ENOSPC.*; what it told is of 20/);
  expect(out).toMatch(/unknown NSP: nothing was told of it since 20/);
  run("mount", "-o", `remount,size=${blocks * bsize}`, SHM);
  await untilStatus(/control plane +ok/); // though there is nothing new to tell
  ip("addr del 192.0.2.77/32 dev lo");
});

test("SIGHUP tells the outcome each time, also the same fault twice in a row", async () => {
  const refusals = () => logged("configuration file refused").length;
  const before = refusals();
  const told = (times: number) => until("the outcome", () => (refusals() === before + times ? true : null));
  writeFileSync(CONFIG, "nonsense");
  await told(1);
  for (const times of [2, 3]) {
    control!.kill("SIGHUP");
    await told(times);
  }
  writeFileSync(CONFIG, CONFIGURATION);
  await until("the file's reading", () => (invoke(["status"]).out.includes("not in force") ? null : true));
});

test("status and doctor tell a control plane that hangs", async () => {
  control!.kill("SIGSTOP");
  const screen = await untilStatus(/control plane +FAULT +hangs, last sign of life, \d+ s ago/);
  expect(screen).toMatch(/- the control plane hangs \(pid \d+\)/);
  expect(invoke(["doctor"]).out).toMatch(/FAULT {3}control plane: pid \d+, hangs, last sign of life/);
  control!.kill("SIGCONT");
  await untilStatus(/control plane +ok/);
});

test("status tells a control plane that died from one that ended, and since when", async () => {
  await end("SIGKILL");
  const dead = invoke(["status"]);
  expect(dead.code).toBe(1);
  expect(dead.out).toMatch(/control plane +FAULT +dead without a word, \d s ago/);
  expect(dead.out).toMatch(/data plane +ok/);
  expect(dead.out).toMatch(/VIPs +ok +2: /);
  ip("neigh replace 172.16.1.2 dev t1 nud failed"); // it was away, and nobody has asked since
  expect(invoke(["status"]).out).toMatch(/target 1 of web .* is unreachable: neighbor failed on t1/);
  expect(invoke(["doctor"]).out).toMatch(/ok {6}target 1 of web, 172\.16\.1\.2, mark 5001: t1, neighbor reachable\n/);
  run("nft", "delete table inet meridio-nfqlb");
  expect(invoke(["status"]).out).toMatch(/VIPs +FAULT +2, not queued: /);
  start();
  await untilStatus(/control plane +ok.*1 of 2 targets ready/s);
  expect(await end("SIGTERM")).toBe(0);
  expect(invoke(["status"]).out).toMatch(/control plane +FAULT +ended in order, \d s ago/);
  expect(logged("end")).not.toHaveLength(0);
});

test("a data plane that was started otherwise is replaced, and the differences are told; one of ours is adopted", async () => {
  run(join(ROOT, "bin", "nfqlb"), "init", "--shm=foreign");
  const args = ["lb", "--tshm=foreign", "--queue=0", "--hash_mode=1"];
  const foreign = spawn(join(ROOT, "bin", "nfqlb"), args, { stdio: "ignore" });
  const foreignEnd = new Promise<number | null>((resolve) => foreign.once("exit", resolve));
  const served = () => {
    const plane = readDataPlane(SHM, "nfqlb-counters");
    return plane?.isReady === true ? plane.pid : null;
  };
  expect(await until("the foreign data plane", served)).toBe(foreign.pid);
  start();
  await untilStatus(/control plane +ok.*1 of 2 targets ready/s);
  expect(await foreignEnd).toBe(0);
  const [line = "{}"] = logged("data plane replaced");
  const differences = [
    'flowsName null instead of "nfqlb-flows"',
    'streamName "foreign" instead of null',
    "hashMode 1 instead of 0",
    "isPromiscuousPing false instead of true",
  ];
  for (const difference of differences) expect(line).toContain(difference.replaceAll('"', '\\"'));
  const ours = await until("our data plane", served);
  expect(ours).not.toBe(foreign.pid);
  await end("SIGKILL");
  start();
  await until("the adoption", () => logged("data plane adopted")[0] ?? null);
  expect(served()).toBe(ours);
  expect(await end("SIGTERM")).toBe(0);
  run(join(ROOT, "bin", "nfqlb"), "delete", "--shm=foreign");
});

test("R17: SIGTERM while the program still starts ends it with 0; SIGHUP reads the file again", async () => {
  start();
  await until("the first line", () => (printed.includes("Configuration read") ? true : null));
  expect(await end("SIGTERM")).toBe(0);
  start();
  await untilStatus(/control plane +ok.*1 of 2 targets ready/s);
  control!.kill("SIGHUP");
  await until("the file's reading", () => logged("configuration file read")[0] ?? null);
  expect(await end("SIGQUIT")).toBe(0);
});

test("R17: SIGTERM while the data plane still starts ends that too", async () => {
  start();
  const line = await until("the data plane's start", () => logged("data plane started")[0] ?? null, DEADLINE_MS);
  const { pid } = (JSON.parse(line) as { extra_data: { pid: number } }).extra_data;
  expect(await end("SIGTERM")).toBe(0);
  expect(existsSync(`/proc/${pid}`)).toBe(false);
});
