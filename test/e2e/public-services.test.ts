// What others see of a running instance: metrics that account for every packet, health, availability.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { NspQuery, NspStore, startNspServer } from "#nsp";
import { parseConfiguration } from "../../src/nsp/file.js";
import { Balancer } from "../harness/balancer.js";
import { ROOT } from "../harness/bundled.js";
import { Frontend, notServing } from "../harness/frontend.js";
import { request } from "../harness/instance-metrics.js";
import { enterFreshNamespaces, ip } from "../harness/namespace.js";
import { configurationFile, Topology } from "../harness/topology.js";

const TARGETS = [0, 1];
const PACKETS = 20_000;
const SOON = { timeout: 15_000, interval: 20 };
let topology: Topology;
let folder = "";
let sockets: { readonly health: string; readonly availability: string };

beforeAll(async () => {
  enterFreshNamespaces();
  ip("link set lo up");
  folder = mkdtempSync(join(tmpdir(), "public-"));
  sockets = { health: `unix:${folder}/probes/health.sock`, availability: `unix:${folder}/lb.sock` };
  topology = await Topology.create(join(ROOT, "build"), TARGETS.length);
});

afterAll(() => {
  topology.close();
  rmSync(folder, { recursive: true });
});

const environment = (): Record<string, string> => ({
  NSM_NFQUEUE: "7",
  NSM_NFQUEUE_LENGTH: "8192",
  NSM_METRICS_ENABLED: "true",
  NSM_SERVICE_NAME: "uplink",
  NSM_HEALTH_SOCKET: sockets.health.replace("unix:", "unix://"),
  NSM_SOCKET: sockets.availability.replace("unix:", "unix://"),
  NSM_SOCKET_INSECURE: "true",
});

/** Sum of a metric's series whose labels have all of these. */
async function sumOf(name: string, ...labels: readonly string[]): Promise<number> {
  const { text } = await request(2_223);
  const lines = text.split("\n").filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
  return lines
    .filter((line) => labels.every((label) => line.includes(label)))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
}

const frontendOf = () => {
  const frontend = new Frontend(sockets.availability);
  onTestFinished(() => frontend[Symbol.dispose]());
  return frontend;
};

test("O5: alone: metrics account for every packet, repairs are counted, a dead data plane is told at once", async () => {
  const balancer = new Balancer(join(ROOT, "bin"), topology, environment());
  onTestFinished(() => balancer[Symbol.dispose]());
  balancer.configure(TARGETS);
  await balancer.start(TARGETS.length);
  const frontend = frontendOf();
  await expect.poll(() => frontend.heard.at(-1), SOON).toBe(hostname());
  await expect.poll(() => notServing(sockets.health), SOON).toEqual([]);
  expect(statSync(`${folder}/lb.sock`).mode & 0o777).toBe(0o777);

  const { firstId, sent } = await topology.sendUdp(4, 10_000, PACKETS);
  const account = await topology.account(firstId, sent);
  const received = account.sent - account.lost;
  expect(await sumOf("stateless_lb_packets_total", 'outcome="forwarded"')).toBe(received);
  expect(await sumOf("stateless_lb_queue_lost_packets_total")).toBe(account.lost);
  expect(await sumOf("meridio_conduit_stream_flow_matches_total", 'flow="udp"')).toBe(received);
  for (const [target, packets] of account.perTarget.entries()) {
    expect(await sumOf("meridio_conduit_stream_target_hit_packets_total", `identifier="${5_001 + target}"`)).toBe(
      packets,
    );
    expect(await sumOf("meridio_conduit_stream_target_hit_bytes_total", `identifier="${5_001 + target}"`)).toBe(
      packets * 46,
    );
    expect(await sumOf("stateless_lb_target_packets_total", `identifier="${target + 1}"`)).toBe(packets);
  }
  expect(await sumOf("stateless_lb_queue_batch_packets_sum")).toBe(received);
  const batches = await sumOf("stateless_lb_queue_batch_packets_count");
  const timed = await sumOf("stateless_lb_verdict_latency_seconds_count");
  expect(timed).toBeGreaterThanOrEqual(Math.ceil(batches / 16)); // each has a packet at least
  expect(timed).toBeLessThanOrEqual(Math.ceil(batches / 16) * 64);
  const meanSeconds = (await sumOf("stateless_lb_verdict_latency_seconds_sum")) / timed;
  expect(meanSeconds).toBeGreaterThan(1e-6);
  expect(meanSeconds).toBeLessThan(0.1);
  expect(await sumOf("meridio_interface_rx_packets_total", 'interface_name="uplink"')).toBeGreaterThanOrEqual(received);
  expect(await sumOf("stateless_lb_targets", 'state="ready"')).toBe(TARGETS.length);

  expect(await sumOf("stateless_lb_stream_in_force", 'stream="web"')).toBe(1);

  expect(await sumOf("stateless_lb_repairs_total")).toBe(0);
  ip("route flush table 5001");
  await expect.poll(() => sumOf("stateless_lb_repairs_total"), SOON).toBeGreaterThan(0);
  expect(frontend.heard.filter((name) => name === null).length).toBeLessThanOrEqual(1); // only before the start was over

  const before = frontend.heard.length;
  await balancer.killDataPlane();
  await expect.poll(() => frontend.heard.slice(before), SOON).toEqual([null, hostname()]);
  expect(await sumOf("stateless_lb_data_plane_deaths_total")).toBe(1);
  expect(await sumOf("stateless_lb_data_plane_up")).toBe(1);

  // One that hangs: the frontend is told, and it is replaced.
  const beforeHang = frontend.heard.length;
  const hanging = balancer.dataPlane()!.pid;
  process.kill(hanging, "SIGSTOP");
  await expect.poll(() => frontend.heard.slice(beforeHang), SOON).toEqual([null, hostname()]);
  expect(balancer.dataPlane()!.pid).not.toBe(hanging);
  expect(balancer.output).toMatch(/data plane hangs.*data plane is killed, it hangs/s);
  expect(await sumOf("stateless_lb_data_plane_up")).toBe(1);

  expect(await balancer.stop()).toBe(0);
  await expect.poll(() => frontend.end, SOON).toBe("UNAVAILABLE");
  expect(frontend.heard.at(-1)).toBe(null);
});

test("with an NSP and the mesh off: every part of health goes and comes back", async () => {
  const store = new NspStore({ nowMs: () => performance.now() });
  const configure = (text: string) => {
    const { configuration } = parseConfiguration("test.yaml", text);
    store.configure(configuration);
  };
  const whole = configurationFile(TARGETS);
  configure(whole);
  const address = `unix:${folder}/nsp.sock`;
  const serve = () => startNspServer(store, { listen: [address], security: "plain-text" });
  let server = await serve();
  onTestFinished(() => server.close());
  const env = {
    ...process.env,
    ...environment(),
    NSM_MESH_ENABLED: "false",
    NSM_NSP_INSECURE: "true",
    NSM_NSP_SERVICE: address,
    NSM_NSP_EMPTY_GRACE: "0",
    NSM_STATE_DIR: "off",
    NSM_TRENCH_NAME: "demo",
  };
  const child = spawn(join(ROOT, "bin", "stateless-lb"), [], { env, stdio: ["ignore", "pipe", "inherit"] });
  let output = "";
  child.stdout.on("data", (chunk) => {
    output += String(chunk);
  });
  const exited = once(child, "exit");
  onTestFinished(async () => {
    child.kill("SIGTERM");
    expect(await exited).toEqual([0, null]);
  });
  const failing = () => notServing(sockets.health);
  const blocked = ["Readiness", "Egress", "Stream", "Flow"]; // nothing is in force without a frontend, R16
  await expect.poll(failing, SOON).toEqual(blocked);
  // The answer may overtake the line about it.
  const parts =
    "subservices:[NSPCli:SERVING,NSMEndpoint:SERVING,Egress:NOT_SERVING,Stream:NOT_SERVING,Flow:NOT_SERVING,]";
  await expect.poll(() => output, SOON).toContain(parts);
  const frontend = frontendOf();
  await expect.poll(() => frontend.heard, SOON).toEqual([null]);
  const status = () => spawnSync(join(ROOT, "bin", "stateless-lb"), ["status"], { encoding: "utf8" }).stdout;
  await expect.poll(status, SOON).toMatch(/VIPs +WAIT +\d+, queued and dropped, for want of a frontend: /);

  using query = new NspQuery({ address, security: "plain-text", maxBackoffMs: 100 });
  const announced = {
    trench: "demo",
    conduit: "",
    stream: "",
    type: "frontend" as const,
    ips: [hostname()],
    context: { identifier: hostname() },
    isEnabled: true,
  };
  await query.register(announced);
  await expect.poll(failing, SOON).toEqual([]);
  await expect.poll(() => frontend.heard, SOON).toEqual([null, hostname()]);

  configure(whole.replace(/^flows:\n(?: {2}- .*\n)*/m, "flows: []\n"));
  await expect.poll(failing, SOON).toEqual(["Readiness", "Flow"]); // R16
  configure(whole);
  await expect.poll(failing, SOON).toEqual([]);
  configure(configurationFile([]));
  await expect.poll(() => frontend.heard, SOON).toEqual([null, hostname(), null]);
  expect(await failing()).toEqual([]); // no target: unavailable, but ready, as in the reference
  configure(whole.replace(/^(?:streams|flows|targets):\n(?: {2}- .*\n)*/gm, (list) => `${list.split(":")[0]}: []\n`));
  await expect.poll(failing, SOON).toEqual(["Readiness", "Stream", "Flow"]); // R16
  configure(whole);
  await expect.poll(failing, SOON).toEqual([]);
  await expect.poll(() => frontend.heard, SOON).toEqual([null, hostname(), null, hostname()]);

  await query.unregister(announced);
  await expect.poll(failing, SOON).toEqual(blocked);
  await query.register(announced);
  await expect.poll(failing, SOON).toEqual([]);
  await server.close();
  await expect.poll(failing, SOON).toEqual(["Readiness", "NSPCli"]);
  server = await serve();
  await expect.poll(failing, SOON).toEqual([]);
  expect(frontend.heard).toEqual([null, hostname(), null, hostname(), null, hostname()]);
});

test("what cannot be served ends the start with one line that says why", async () => {
  const run = (more: Record<string, string>) =>
    new Promise<string>((resolve) => {
      const mesh = { NSM_MESH_ENABLED: "false", NSM_NSP_INSECURE: "true", NSM_NSP_SERVICE: `unix:${folder}/nobody` };
      const env = { ...process.env, ...environment(), ...mesh, ...more };
      const child = spawn(join(ROOT, "bin", "stateless-lb"), [], { env, stdio: ["ignore", "ignore", "pipe"] });
      let line = "";
      child.stderr.on("data", (chunk) => {
        line += String(chunk);
      });
      child.on("exit", (code) => resolve(`${code} ${line.trim()}`));
    });
  const file = join(folder, "kept");
  writeFileSync(file, "kept");
  expect(await run({ NSM_SOCKET_INSECURE: "false" })).toMatch(
    /^1 stateless-lb: mTLS on NSM_SOCKET is not in this version: set/,
  );
  expect(await run({ NSM_SOCKET: `unix://${file}` })).toBe(
    `1 stateless-lb: NSM_SOCKET: ${file}: is there and is no socket`,
  );
  expect(await run({ NSM_SOCKET: "http://x" })).toMatch(
    /^1 stateless-lb: NSM_SOCKET="http:\/\/x": unix:\/\/\/path or tcp:/,
  );
  expect(statSync(file).size).toBe(4);
});
