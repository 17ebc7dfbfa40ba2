// Real servers and clients on unix sockets.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { connect } from "node:http2";
import { createConnection, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, onTestFinished, test } from "vitest";
import { checkHealth, Health, RpcClient, type Service, startServer } from "#rpc";
import { assess, type ServiceState } from "./assess.js";
import { StreamAvailabilityService } from "./gen/loadbalancer/v1/stream_pb.js";
import { HealthTree } from "./health-tree.js";
import { SelfProbe } from "./self-probe.js";
import { StreamAvailability } from "./stream-availability.js";

const folder = mkdtempSync(join(tmpdir(), "availability-"));
afterAll(() => rmSync(folder, { recursive: true }));
let sockets = 0;
const freshPath = () => join(folder, `s${sockets++}`);

async function serve(services: readonly Service[], path = freshPath(), socketMode?: number) {
  const address = `unix:${path}`;
  const mode = socketMode === undefined ? {} : { socketMode };
  const server = await startServer({ services, listen: [address], security: "plain-text", ...mode });
  onTestFinished(server.close);
  return { address, path, close: server.close };
}

/** The bytes of a frontend's answers, as they come, and its end. */
function frontend(address: string): { readonly answers: string[]; readonly ended: Promise<unknown> } {
  const client = new RpcClient({ address, security: "plain-text", maxBackoffMs: 100 });
  const ending = new AbortController();
  onTestFinished(() => {
    ending.abort();
    client[Symbol.dispose]();
  });
  const answers: string[] = [];
  const follow = async () => {
    const { watch } = StreamAvailabilityService.method;
    for await (const bytes of client.serverStreamBytes(watch, {}, ending.signal))
      answers.push(Buffer.from(bytes).toString("hex"));
  };
  return { answers, ended: follow().catch((error: unknown) => error) };
}

/** Response { targets: [Target { context: { identifier: "lb-1" } }] }: lengths 20, 18, 10 and 4. */
const AVAILABLE = `0a140a120a0a${Buffer.from("identifier").toString("hex")}1204${Buffer.from("lb-1").toString("hex")}`;
/** Response { targets: [Target {}] } */
const UNAVAILABLE = "0a00";

test("O7: a frontend gets the state at once and each change once, and hears `unavailable` before the end", async () => {
  const availability = new StreamAvailability("lb-1");
  const { address, close } = await serve([availability.service]);
  const first = frontend(address);
  await expect.poll(() => first.answers).toEqual([UNAVAILABLE]);
  availability.set(false);
  availability.set(true);
  await expect.poll(() => first.answers).toEqual([UNAVAILABLE, AVAILABLE]);
  const second = frontend(address);
  await expect.poll(() => second.answers).toEqual([AVAILABLE]);
  availability.set(true);
  availability.set(false);
  await close();
  expect(await first.ended).toMatchObject({ status: "UNAVAILABLE" });
  expect(await second.ended).toMatchObject({ status: "UNAVAILABLE" });
  expect(first.answers).toEqual([UNAVAILABLE, AVAILABLE, UNAVAILABLE]);
  expect(second.answers).toEqual([AVAILABLE, UNAVAILABLE]);
});

test("R18: a frontend that stopped reading holds up nobody, and hears the newest state when it reads on", async () => {
  const availability = new StreamAvailability("lb-1");
  const { address, path } = await serve([availability.service]);
  const session = connect("http://localhost", {
    createConnection: () => createConnection(path),
    settings: { initialWindowSize: 0 }, // not one byte of an answer may be sent
  });
  onTestFinished(() => session.destroy());
  const { service, watch } = { service: StreamAvailabilityService.typeName, watch: "Watch" };
  const headers = {
    ":method": "POST",
    ":path": `/${service}/${watch}`,
    "content-type": "application/grpc",
    te: "trailers",
  };
  const stalled = session.request(headers);
  const bytes: Buffer[] = [];
  stalled.on("data", (chunk: Buffer) => bytes.push(chunk));
  stalled.on("error", () => {});
  stalled.end(Buffer.alloc(5)); // an empty message
  const reading = frontend(address);
  await expect.poll(() => reading.answers).toEqual([UNAVAILABLE]);
  for (let change = 1; change <= 201; change++) {
    availability.set(change % 2 === 1);
    const wanted = change % 2 === 1 ? AVAILABLE : UNAVAILABLE;
    await expect.poll(() => reading.answers.at(-1), { interval: 1 }).toBe(wanted);
  }
  expect(reading.answers).toHaveLength(202);
  expect(bytes).toEqual([]);
  session.settings({ initialWindowSize: 65_535 });
  const heard = () => Buffer.concat(bytes).toString("hex");
  await expect.poll(heard).toMatch(new RegExp(`00000000..${AVAILABLE}$`));
  expect(heard().length).toBeLessThan(3 * (10 + AVAILABLE.length)); // what was on its way, and the newest
});

const serving: ServiceState = {
  isNspConnected: true,
  isDataPlaneReady: true,
  isFrontendAnnounced: true,
  areSocketsAnswering: true,
  streams: [{ flows: 1, targets: 1 }],
};

test("health: parts and aggregates follow the state, both ways; a failing aggregate tells its parts", async () => {
  const probed: string[] = [];
  const health = new Health((name) => probed.push(name + tree.describeParts(name)));
  const tree = new HealthTree(health);
  const { address } = await serve([health.service]);
  const ask = (service: string) => checkHealth({ address, security: "plain-text" }, service, { deadlineMs: 5_000 });
  const all = async () => {
    const names = ["", "Readiness", "Liveness", "NSPCli", "NSMEndpoint", "Egress", "Stream", "Flow"];
    const statuses = await Promise.all(names.map(async (name) => [name, await ask(name)] as const));
    return statuses.filter(([, status]) => status !== "SERVING").map(([name]) => name);
  };
  expect(await all()).toEqual(["Readiness", "Liveness", "NSPCli", "NSMEndpoint", "Egress", "Stream", "Flow"]);
  expect(probed).toContain("Liveness, subservices:[NSMEndpoint:NOT_SERVING,]");
  tree.set(assess(serving));
  expect(await all()).toEqual([]);
  tree.set(assess({ ...serving, streams: [{ flows: 0, targets: 1 }] }));
  expect(await all()).toEqual(["Readiness", "Flow"]);
  tree.set(assess({ ...serving, streams: [] }));
  expect(await all()).toEqual(["Readiness", "Stream", "Flow"]);
  expect(probed.at(-3)).toBe(
    "Readiness, subservices:[NSPCli:SERVING,NSMEndpoint:SERVING,Egress:SERVING,Stream:NOT_SERVING,Flow:NOT_SERVING,]",
  );
  tree.set(assess(serving));
  expect(await all()).toEqual([]);
  await expect(ask("nobody")).rejects.toMatchObject({
    status: "NOT_FOUND",
    message: expect.stringContaining("nobody check failed: "),
  });
});

test("a socket's path: mode as asked, a dead socket is replaced, nothing else ever is", async () => {
  const { service } = new Health();
  const { path, close } = await serve([service], freshPath(), 0o777);
  expect(statSync(path).mode & 0o777).toBe(0o777);
  await expect(serve([service], path)).rejects.toThrow(`${path}: another process listens there`);
  await close();

  const dead = freshPath();
  const script = `require("net").createServer().listen(${JSON.stringify(dead)}, () => process.kill(process.pid, "SIGKILL"))`;
  spawnSync(process.execPath, ["-e", script]);
  expect(statSync(dead).isSocket()).toBe(true);
  await serve([service], dead);

  const file = freshPath();
  writeFileSync(file, "kept");
  await expect(serve([service], file)).rejects.toThrow(`${file}: is there and is no socket`);
  expect(statSync(file).size).toBe(4);
});

test("the self-probe tells within a round when a socket stops answering, and when it answers again", async () => {
  const { service } = new Health();
  const health = new Health();
  health.set("", "SERVING");
  const { address, close, path } = await serve([health.service]);
  const faults: (string | null)[] = [];
  using _probe = new SelfProbe([{ address, security: "plain-text" }], 300, (fault) => faults.push(fault), 20);
  await expect.poll(() => faults.at(-1)).toBe(null);
  await close();
  await expect.poll(() => faults.at(-1), { timeout: 5_000 }).toContain(`${address}: /grpc.health.v1.Health/Check`);
  const other = await serve([service], path); // answers, but does not know itself to be serving
  await expect.poll(() => faults.at(-1), { timeout: 5_000 }).toContain("NOT_FOUND");
  await other.close();
  await serve([health.service], path);
  await expect.poll(() => faults.at(-1), { timeout: 5_000 }).toBe(null);
});

test("a probe that is not answered yet is not joined by another one", async () => {
  let connections = 0;
  const path = freshPath();
  const silent = createServer(() => connections++).listen(path);
  onTestFinished(() => void silent.close());
  const connectionsAtFault: number[] = [];
  const servers = [{ address: `unix:${path}`, security: "plain-text" } as const];
  using _probe = new SelfProbe(servers, 500, () => connectionsAtFault.push(connections), 20);
  await expect.poll(() => connectionsAtFault[0]).toBe(1); // the next one may have begun by now
});
