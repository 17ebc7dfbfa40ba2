import { type ChildProcess, execFile, execFileSync, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { NspQuery } from "#nsp";
import { readDataPlane, readStreamTable } from "#tables";
import { SHM } from "../harness/balancer.js";
import { ROOT } from "../harness/bundled.js";
import { enterFreshNamespaces } from "../harness/namespace.js";
import { example } from "../harness/nsp.js";

const program = join(ROOT, "bin", "stateless-lb");
let folder = "";
let files = 0;
beforeAll(() => {
  enterFreshNamespaces();
  folder = mkdtempSync(join(tmpdir(), "nsp-e2e-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

type Program = { readonly child: ChildProcess; readonly output: () => string; readonly kill: () => Promise<void> };

function start(args: readonly string[], env: Record<string, string> = {}): Program {
  const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (chunk) => {
      output += String(chunk);
    });
  const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const kill = () => {
    child.kill("SIGKILL");
    return exited;
  };
  onTestFinished(kill);
  return { child, output: () => output, kill };
}

type Result = { readonly code: number; readonly stdout: string; readonly stderr: string };

/** Runs `stateless-lb nsp …` to its end. */
function nsp(...args: string[]): Promise<Result> {
  return new Promise((resolve) => {
    execFile(program, ["nsp", ...args], (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr });
    });
  });
}

/** An NSP server on a socket of its own. */
async function startServer(more: readonly string[] = []): Promise<Program & { readonly address: string }> {
  const path = join(folder, `f${files++}`);
  writeFileSync(`${path}.yaml`, example);
  const address = `unix:${path}.sock`;
  return { ...(await startServerAt(address, `${path}.yaml`, more)), address };
}

async function startServerAt(address: string, config: string, more: readonly string[]): Promise<Program> {
  const server = start(["nsp", "--insecure", "--config", config, "--listen", address, ...more]);
  await expect.poll(server.output, { timeout: 10_000 }).toContain("NSP serves");
  return server;
}

test("the command line shows, registers and unregisters, as a table or as JSON", async () => {
  const { address } = await startServer();
  const at = ["--insecure", "--address", address];
  expect((await nsp("get", "flows", ...at)).stdout).toBe(
    `NAME  STREAM  PRIORITY  PROTOCOLS  VIPS           SOURCES  DESTINATION PORTS  SOURCE PORTS  BYTE MATCHES
http  web     10        tcp        web-v4,web-v6  -        80,443             -             -
`,
  );
  const watch = start(["nsp", "watch", "targets", "--stream", "web", "--json", ...at]);
  const lines = () =>
    watch
      .output()
      .trim()
      .split("\n")
      .map((line) => (line === "" ? -1 : (JSON.parse(line) as unknown[]).length));
  await expect.poll(lines, { timeout: 10_000 }).toEqual([2]);
  const target = [
    "target",
    "--ip",
    "172.16.0.13",
    "--identifier",
    "3",
    "--stream",
    "web",
    "--trench",
    "trench-a",
    ...at,
  ];
  expect(await nsp("register", ...target, "--enable")).toEqual({ code: 0, stdout: "", stderr: "" });
  const { stdout } = await nsp("get", "targets", "--json", ...at);
  expect((JSON.parse(stdout) as object[])[2]).toMatchObject({
    ips: ["172.16.0.13"],
    context: { identifier: "3" },
    status: "ENABLED",
    stream: { name: "web", conduit: { name: "load-balancer", trench: { name: "trench-a" } } },
  });
  expect(await nsp("unregister", ...target)).toMatchObject({ code: 0 });
  await expect.poll(() => lines().at(-1)).toBe(2);
  expect(Math.max(...lines())).toBe(3);
});

test("the database's library is loaded only where there is a database", async () => {
  const maps = (server: Program) => readFileSync(`/proc/${server.child.pid}/maps`, "utf8");
  expect(maps(await startServer())).not.toContain("libsql");
  expect(maps(await startServer(["--database", join(folder, "loaded.db")]))).toContain("libsql");
});

test("what is wrong with a command line, a file or a server is one line and an exit code", async () => {
  const failure = async (...args: string[]) => {
    const { code, stderr } = await nsp(...args);
    return `${code} ${stderr.trim()}`;
  };
  expect(await failure("get", "vips")).toMatch(/^1 stateless-lb: mTLS is not in this version: say --insecure/);
  expect(await failure("get", "pods", "--insecure")).toMatch(/^2 stateless-lb: get pods: one of trenches, conduits,/);
  expect(await failure("drop", "vips", "--insecure")).toMatch(/^2 stateless-lb: unknown command drop/);
  expect(await failure("register", "target", "--insecure", "--ip", "10.0.0.1")).toMatch(/^2 .*--identifier is needed/);
  expect(await failure("--insecure")).toMatch(/^2 stateless-lb: --config FILE is needed/);
  const config = join(folder, "faulty.yaml");
  writeFileSync(config, example.replace("10.0.0.1/32", "x"));
  expect(await failure("--insecure", "--config", config)).toMatch(
    /^1 stateless-lb: .*faulty\.yaml:10: vips\[0\]\.address: "x"/,
  );
  const nobody = `unix:${join(folder, "nobody")}`;
  expect(await failure("get", "vips", "--insecure", "--address", nobody)).toBe(
    `1 stateless-lb: NSP ${nobody}: connect ENOENT ${join(folder, "nobody")}`,
  );
});

test("--keep --enable: enabled again after a restart of a server that forgot it; failures are told", async () => {
  const { address, kill } = await startServer();
  const at = ["--insecure", "--address", address];
  const three = ["--trench", "trench-a", "--stream", "web", "--identifier", "3", "--ip", "172.16.0.13"];
  const keeper = start(["nsp", "register", "target", ...at, ...three, "--enable", "--keep", "--refresh", "0.3"]);
  const isEnabled = async () => /^172\.16\.0\.13 .*ENABLED/m.test((await nsp("get", "targets", ...at)).stdout);
  await expect.poll(isEnabled, { timeout: 10_000 }).toBe(true);
  await kill();
  const path = address.slice("unix:".length);
  await expect.poll(keeper.output, { timeout: 10_000 }).toContain(`not repeated: NSP ${address}: connect ECONNREFUSED`);
  await startServerAt(address, path.replace(/sock$/, "yaml"), []);
  await expect.poll(isEnabled, { timeout: 10_000 }).toBe(true);
  await expect.poll(keeper.output).toContain("registered again\n");
});

test("watch ends with the reader of its output; a server outlives it, and takes SIGUSR1 and SIGUSR2", async () => {
  const { address, child, output } = await startServer();
  const line = `"${program}" nsp watch targets --insecure --address ${address} | head -1`;
  const { status, stdout } = spawnSync("sh", ["-c", line], { encoding: "utf8", timeout: 20_000 });
  expect({ status, stdout }).toEqual({ status: 0, stdout: expect.stringMatching(/^IPS /) });
  child.kill("SIGUSR2");
  await expect.poll(output).toContain("Changing log level to 'TRACE' from 'DEBUG'");
  child.kill("SIGUSR1");
  await expect.poll(output).toContain("Changing log level to 'DEBUG' from 'TRACE'");
  child.stdout!.destroy();
  child.kill("SIGUSR2"); // it writes a line
  expect((await nsp("get", "vips", "--insecure", "--address", address)).code).toBe(0);
  expect(child.exitCode).toBeNull();
});

test("SIGKILL while targets register: every one that was acknowledged is there after the restart", async () => {
  const { address, ...first } = await startServer(["--database", join(folder, "kill.db")]);
  const config = address.replace(/^unix:(.*)\.sock$/, "$1.yaml");
  const names = { trench: "trench-a", conduit: "load-balancer", stream: "web", type: "default" } as const;
  using query = new NspQuery({ address, security: "plain-text", maxBackoffMs: 100 });
  const acknowledged: string[] = [];
  let server: Program = first;
  let next = 0;
  for (let round = 0; round < 4; round++) {
    let isAlive = true;
    const registering = (async () => {
      while (isAlive) {
        const ip = `10.1.${next >> 8}.${next & 255}`;
        next++;
        const registration = { ...names, ips: [ip], context: { identifier: "9" }, isEnabled: true };
        await query.register(registration).then(
          () => acknowledged.push(ip),
          () => {},
        );
      }
    })();
    const wanted = acknowledged.length + 50;
    await expect.poll(() => acknowledged.length, { timeout: 20_000 }).toBeGreaterThan(wanted);
    await server.kill(); // while it registers
    isAlive = false;
    server = await startServerAt(address, config, ["--database", join(folder, "kill.db")]);
    await registering;
    expect(server.output()).not.toContain("damaged");
    const { stdout } = await nsp("get", "targets", "--json", "--insecure", "--address", address);
    const there = new Set((JSON.parse(stdout) as { ips: string[] }[]).map(({ ips }) => ips[0]!));
    expect(acknowledged.filter((ip) => !there.has(ip))).toEqual([]);
  }
});

/** A link on which the example's targets could be, and an NSP where the frontend of this host is announced. */
async function prepareServing() {
  if (!readdirSync("/sys/class/net").includes("t0")) {
    const link = [
      "link add t0 type veth peer name t1",
      "addr add 172.16.0.1/24 dev t0",
      "addr add fd00::1/64 dev t0 nodad",
    ];
    for (const command of [...link, "link set t1 up", "link set t0 up"]) execFileSync("ip", command.split(" "));
  }
  const server = await startServer();
  const frontend = ["target", "--frontend", "--ip", hostname(), "--identifier", hostname(), "--enable"];
  expect(await nsp("register", ...frontend, "--insecure", "--address", server.address)).toMatchObject({ code: 0 });
  onTestFinished(killDataPlane);
  return { ...server, env: { ...ENV, NSM_NSP_SERVICE: server.address } };
}

const ENV = {
  NSM_MESH_ENABLED: "false",
  NSM_NSP_INSECURE: "true",
  NSM_SOCKET: "",
  NSM_HEALTH_SOCKET: "",
  NSM_TRENCH_NAME: "trench-a",
  NSM_NFQUEUE: "9",
};

/** Targets in the table; -1: there is none. */
function active(): number {
  try {
    return readStreamTable(SHM, "tshm-web").active.filter((fwmark) => fwmark >= 0).length;
  } catch {
    return -1;
  }
}

const isServed = () => readDataPlane(SHM, "nfqlb-counters")?.isReady === true;

function killDataPlane(): void {
  const running = readDataPlane(SHM, "nfqlb-counters");
  if (running !== null) process.kill(running.pid, "SIGKILL");
}

test("a load balancer that restarts while the NSP is away serves at once what it knew", async () => {
  const { kill, env } = await prepareServing();
  const before = start([], env);
  await expect.poll(before.output, { timeout: 10_000 }).toContain("configuration from the NSP");
  await expect.poll(active, { timeout: 10_000 }).toBe(2);
  await expect.poll(() => readdirSync(SHM), { timeout: 10_000 }).toContain("stateless-lb-nsp.json");
  const tables = readdirSync(SHM).filter((name) => name.startsWith("tshm-"));
  expect(tables).toEqual(["tshm-web"]);
  await expect.poll(isServed, { timeout: 10_000 }).toBe(true);
  await kill();
  await before.kill();
  killDataPlane();
  rmSync(join(SHM, "tshm-web"));
  const after = start([], env);
  await expect.poll(after.output, { timeout: 10_000 }).toContain("configuration from the saved state");
  await expect.poll(() => readdirSync(SHM), { timeout: 10_000 }).toContain("tshm-web");
  await expect.poll(active, { timeout: 10_000 }).toBe(2);
  await expect.poll(isServed, { timeout: 10_000 }).toBe(true); // so that it is known whom to end
});

test("R9: one that restarts without saved state does not believe an NSP that has just started, too", async () => {
  rmSync(join(SHM, "stateless-lb-nsp.json"), { force: true });
  const { address, kill, env } = await prepareServing();
  const unsaved = { ...env, NSM_STATE_DIR: "off", NSM_NSP_EMPTY_GRACE: "1h" };
  const before = start([], unsaved);
  await expect.poll(active, { timeout: 10_000 }).toBe(2);
  await expect.poll(isServed, { timeout: 10_000 }).toBe(true);
  await before.kill();
  await kill();
  const path = join(folder, "empty.yaml");
  writeFileSync(path, example.slice(0, example.indexOf("vips:"))); // trench and conduit
  await startServerAt(address, path, []);
  const after = start([], unsaved);
  await expect.poll(after.output, { timeout: 10_000 }).toContain("NSP connected");
  await expect.poll(after.output, { timeout: 15_000 }).toContain("the NSP has not told everything yet");
  expect([active(), isServed()]).toEqual([2, true]);
  writeFileSync(path, example);
  const frontend = ["target", "--frontend", "--ip", hostname(), "--identifier", hostname(), "--enable"];
  expect(await nsp("register", ...frontend, "--insecure", "--address", address)).toMatchObject({ code: 0 });
  await expect.poll(after.output, { timeout: 10_000 }).toContain("configuration from the NSP");
  expect(active()).toBe(2);
});
