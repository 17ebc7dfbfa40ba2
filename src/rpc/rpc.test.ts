import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { logVerbosity, setLogVerbosity } from "@grpc/grpc-js";
import { afterAll, expect, onTestFinished, test, vi } from "vitest";
import { RpcClient } from "./client.js";
import { RpcError } from "./error.js";
import {
  Health as HealthDesc,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from "./gen/grpc/health/v1/health_pb.js";
import { Health } from "./health.js";
import { type Handlers, type ServerOptions, startServer } from "./server.js";

const folder = mkdtempSync(join(tmpdir(), "rpc-"));
afterAll(() => rmSync(folder, { recursive: true }));
let sockets = 0;
const { check, watch } = HealthDesc.method;

async function serve(
  service: Health["service"],
  address = `unix:${join(folder, `s${sockets++}`)}`,
  more: Partial<ServerOptions> = {},
) {
  const server = await startServer({ services: [service], listen: [address], security: "plain-text", ...more });
  onTestFinished(server.close);
  return { ...server, address: server.addresses[0]! };
}

function clientOf(address: string): RpcClient {
  const client = new RpcClient({ address, security: "plain-text", maxBackoffMs: 100 });
  onTestFinished(() => client[Symbol.dispose]());
  return client;
}

/** Statuses that a watch tells, as they come. */
function watchStatuses(client: RpcClient, service: string): string[] {
  const seen: string[] = [];
  const ending = new AbortController();
  onTestFinished(() => ending.abort());
  void (async () => {
    try {
      for await (const { status } of client.serverStream(watch, { service }, ending.signal))
        seen.push(ServingStatus[status]);
    } catch (error) {
      seen.push((error as RpcError).status);
    }
  })();
  return seen;
}

test("health: Check answers with the status, and NOT_FOUND for a name nobody set", async () => {
  const health = new Health();
  health.set("", "SERVING");
  health.set("a", "NOT_SERVING");
  const { address } = await serve(health.service, "127.0.0.1:0");
  const client = clientOf(address);
  expect(await client.unary(check, {})).toMatchObject({ status: ServingStatus.SERVING });
  expect(await client.unary(check, { service: "a" })).toMatchObject({ status: ServingStatus.NOT_SERVING });
  await expect(client.unary(check, { service: "b" })).rejects.toMatchObject({ code: "ERR_RPC", status: "NOT_FOUND" });
});

test("health: Watch tells changes of its name only, SERVICE_UNKNOWN until the name is set, UNAVAILABLE at the end", async () => {
  const health = new Health();
  const { address, close } = await serve(health.service);
  const seen = watchStatuses(clientOf(address), "a");
  await expect.poll(() => seen).toEqual(["SERVICE_UNKNOWN"]);
  health.set("b", "SERVING");
  health.set("a", "NOT_SERVING");
  await expect.poll(() => seen.length).toBe(2);
  health.set("a", "NOT_SERVING");
  health.set("a", "SERVING");
  await expect.poll(() => seen).toEqual(["SERVICE_UNKNOWN", "NOT_SERVING", "SERVING"]);
  await close();
  await expect.poll(() => seen.at(-1)).toBe("UNAVAILABLE");
});

test("a client that does not read holds up nobody and gets the newest state when it reads again", async () => {
  const senders: ((answer: object) => void)[] = [];
  let serialized = 0;
  /** A message of 1 MiB, more than sockets and flow control take; field 99 is none of the client's. */
  const large = (status: number) => {
    serialized++;
    const filler = 1 << 20;
    const head = Buffer.from([
      0x08,
      status,
      0x9a,
      0x06,
      (filler & 0x7f) | 0x80,
      ((filler >> 7) & 0x7f) | 0x80,
      filler >> 14,
    ]);
    return Buffer.concat([head, Buffer.alloc(filler)]);
  };
  const handlers: Handlers = {
    watch: { kind: "stream", handle: (_request, send) => void senders.push(send) },
    check: { kind: "unary", handle: () => ({ $typeName: "grpc.health.v1.HealthCheckResponse", status: 1 }) },
  };
  const { address } = await serve({ desc: HealthDesc, handlers });
  const ending = new AbortController();
  onTestFinished(() => ending.abort());
  const answers = clientOf(address).serverStream(watch, {}, ending.signal);
  const first = answers.next();
  await expect.poll(() => senders.length).toBe(1);
  senders[0]!(large(1));
  expect((await first).value).toMatchObject({ status: 1 });
  for (let i = 0; i < 100; i++) {
    senders[0]!(large(i === 99 ? 2 : 1));
    if (i % 25 === 0) await clientOf(address).unary(check, {}); // others are served meanwhile
  }
  expect(serialized).toBe(101);
  let read = 0;
  for await (const { status } of answers) {
    read++;
    if (status === ServingStatus.NOT_SERVING) break;
  }
  expect(read).toBeLessThan(40); // what was under way, and the newest
});

test("connections beyond the limit: those without a call go, who watches stays and new ones are served; told once", async () => {
  const health = new Health();
  health.set("", "SERVING");
  const onFull = vi.fn();
  const { address } = await serve(health.service, undefined, { maxConnections: 3, onFull });
  const seen = [watchStatuses(clientOf(address), ""), watchStatuses(clientOf(address), "")];
  await expect.poll(() => seen).toEqual([["SERVING"], ["SERVING"]]);
  let open = 0;
  for (let i = 0; i < 50; i++) {
    const stranger = connect(address.slice("unix:".length), () => open++);
    stranger
      .on("error", () => {})
      .on("close", () => open--)
      .resume();
    onTestFinished(() => void stranger.destroy());
  }
  await expect.poll(() => onFull.mock.calls.length).toBe(1);
  await expect.poll(() => open).toBe(1);
  expect(await clientOf(address).unary(check, {})).toMatchObject({ status: ServingStatus.SERVING });
  health.set("", "NOT_SERVING");
  await expect.poll(() => seen.map((statuses) => statuses.at(-1))).toEqual(["NOT_SERVING", "NOT_SERVING"]);
  expect(onFull.mock.calls).toEqual([[{ address, maxConnections: 3 }]]);
});

test("a server asks its clients whether they live", async () => {
  const { address } = await serve(new Health().service, undefined, { keepaliveMs: 50 });
  const client = connect(address.slice("unix:".length));
  onTestFinished(() => void client.destroy());
  let received = Buffer.alloc(0);
  client.on("data", (bytes: Buffer) => {
    received = Buffer.concat([received, bytes]);
  });
  client.write(`PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0`); // and no settings
  await expect.poll(() => frameTypes(received)).toContain(6); // PING
});

/** Types of HTTP/2 frames (RFC 9113, 4.1): length u24, type u8, flags u8, stream u32. */
function frameTypes(bytes: Buffer): readonly number[] {
  const types: number[] = [];
  for (let at = 0; at + 9 <= bytes.length; at += 9 + bytes.readUIntBE(at, 3)) types.push(bytes[at + 3]!);
  return types;
}

test("a request of more than 64 KiB is refused with its size", async () => {
  const { address } = await serve(new Health().service);
  const call = clientOf(address).unary(check, { service: "x".repeat(70_000) });
  await expect(call).rejects.toMatchObject({
    status: "RESOURCE_EXHAUSTED",
    details: expect.stringMatching(/vs\.? 65536/),
  });
});

test("a call to nobody fails with method and status", async () => {
  const call = clientOf(`unix:${join(folder, "nobody")}`).unary(check, {}, { deadlineMs: 100 });
  await expect(call).rejects.toBeInstanceOf(RpcError);
  await expect(call).rejects.toMatchObject({ status: "DEADLINE_EXCEEDED", method: "/grpc.health.v1.Health/Check" });
});

test("an address that cannot be listened on is an error that says why, and the library says nothing beside it", async () => {
  setLogVerbosity(logVerbosity.ERROR); // as it is in a program that has called nobody yet
  const printed = vi.spyOn(console, "error").mockReturnValue();
  onTestFinished(() => printed.mockRestore());
  const { service } = new Health();
  const busy = createServer().listen(0, "127.0.0.1");
  onTestFinished(() => void busy.close());
  await once(busy, "listening");
  const taken = `127.0.0.1:${(busy.address() as AddressInfo).port}`;
  const cases = [
    ["unix:/nowhere/at/all", "/nowhere/at/all: there is no folder /nowhere/at"],
    [taken, `listen EADDRINUSE: address already in use ${taken}`],
    ["127.0.0.1:99999", "127.0.0.1:99999: a port is at most 65535"],
  ] as const;
  for (const [address, message] of cases) {
    const start = startServer({ services: [service], listen: [address], security: "plain-text" });
    await expect(start).rejects.toThrowError(expect.objectContaining({ message }));
  }
  expect(printed).not.toHaveBeenCalled();
});
