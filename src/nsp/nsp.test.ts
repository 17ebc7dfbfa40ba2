import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, expect, test } from "vitest";
import type { Configuration } from "#model";
import { RpcClient, RpcError } from "#rpc";
import { TargetRegistry } from "./gen/nsp/v1/target_registry_pb.js";
import {
  loadConfigurationFile,
  NspStore,
  parseConfiguration,
  startNspServer,
  watchConfiguration,
  watchConfigurationFile,
} from "./index.js";

const folder = mkdtempSync(join(tmpdir(), "nsp-"));
const example = readFileSync(new URL("../../examples/stateless-lb.yaml", import.meta.url), "utf8");
const cleanups: (() => unknown)[] = [];
let sockets = 0;
const socketPath = () => `unix:${join(folder, `s${sockets++}`)}`;
afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean();
});
afterAll(() => rmSync(folder, { recursive: true }));

type Seen = { configurations: Configuration[]; refused: (readonly string[])[]; states: string[] };

function watchAt(address: string, emptyGraceMs = 5_000): Seen {
  const seen: Seen = { configurations: [], refused: [], states: [] };
  const controller = new AbortController();
  cleanups.push(() => controller.abort());
  watchConfiguration({
    server: { address, security: "plain-text", maxBackoffMs: 100 },
    trench: "trench-a",
    conduit: "load-balancer",
    emptyGraceMs,
    onConfiguration: (configuration) => seen.configurations.push(configuration),
    onRefused: (reasons) => seen.refused.push(reasons),
    onState: (state) => seen.states.push(state),
    signal: controller.signal,
  });
  return seen;
}

async function serve(store: NspStore, address: string): Promise<() => Promise<void>> {
  const server = await startNspServer(store, [address]);
  cleanups.push(() => server.close());
  return () => server.close();
}

function storeOf(text: string): NspStore {
  const store = new NspStore({ nowMs: () => performance.now() });
  store.configure(parseConfiguration("test.yaml", text).configuration);
  return store;
}

test("a file comes out of the watch as the configuration it says", async () => {
  const address = socketPath();
  await serve(storeOf(example), address);
  const seen = watchAt(address);
  await expect.poll(() => seen.configurations.length).toBe(1);
  expect(seen.configurations[0]).toEqual({
    conduit: { name: "load-balancer", trench: "trench-a", portNats: [] },
    vips: [
      { name: "web-v4", prefix: "10.0.0.1/32" },
      { name: "web-v6", prefix: "2001:db8::1/128" },
    ],
    streams: [{ name: "web", conduit: "load-balancer", maxTargets: 100 }],
    flows: [
      {
        name: "http",
        stream: "web",
        priority: 10,
        protocols: ["tcp"],
        vips: [
          { name: "web-v4", prefix: "10.0.0.1/32" },
          { name: "web-v6", prefix: "2001:db8::1/128" },
        ],
        sourcePrefixes: [],
        destinationPorts: ["80", "443"],
        sourcePorts: [],
        byteMatches: [],
      },
    ],
    targets: [
      { stream: "web", identifier: 1, addresses: ["172.16.0.11", "fd00::11"] },
      { stream: "web", identifier: 2, addresses: ["172.16.0.12", "fd00::12"] },
    ],
  });
  expect(seen.states).toEqual(["connected"]);
});

test("a target registers, is enabled by its second registration, and goes when it unregisters", async () => {
  const address = socketPath();
  const store = storeOf(example);
  await serve(store, address);
  const seen = watchAt(address);
  using client = new RpcClient({ address, security: "plain-text" });
  const stream = { name: "web", conduit: { name: "load-balancer", trench: { name: "trench-a" } } };
  const target = { ips: ["172.16.0.13/24"], context: { identifier: "3" }, stream };
  await expect.poll(() => seen.configurations.length).toBe(1);
  await client.unary(TargetRegistry.method.register, target);
  expect(store.targets().map(({ status }) => status)).toEqual([0, 0, 1]);
  await client.unary(TargetRegistry.method.register, target);
  await expect.poll(() => seen.configurations.at(-1)?.targets.length).toBe(3);
  expect(seen.configurations.at(-1)?.targets[2]).toEqual({ stream: "web", identifier: 3, addresses: ["172.16.0.13"] });
  await client.unary(TargetRegistry.method.unregister, target);
  await expect.poll(() => seen.configurations.at(-1)?.targets.length).toBe(2);
  await expect(client.unary(TargetRegistry.method.register, { ips: [] })).rejects.toMatchObject({
    code: "ERR_RPC",
    status: "INVALID_ARGUMENT",
  });
});

test("a registration that is not repeated ends after its time-out", () => {
  let nowMs = 0;
  const store = new NspStore({ entryTimeoutMs: 60_000, nowMs: () => nowMs });
  const [target] = storeOf(example).targets();
  store.register(target!);
  nowMs = 60_000;
  store.expire();
  expect(store.targets()).toHaveLength(1);
  store.register(target!);
  nowMs = 120_001;
  store.expire();
  expect(store.targets()).toHaveLength(0);
});

test("bad targets are refused one by one, with name and reason; the others go on", async () => {
  const address = socketPath();
  const store = storeOf(example);
  const [good] = store.configuration.targets;
  const variant = (identifier: string, ips: string[]) => ({ ...good!, ips, context: { identifier } });
  const targets = [
    good!,
    variant("0", ["172.16.0.3"]),
    variant("101", ["172.16.0.4"]),
    variant("x", ["172.16.0.5"]),
    variant("1", ["172.16.0.6"]),
    variant("7", ["172.16.0.7", "172.16.0.8"]),
    variant("8", ["nonsense"]),
  ];
  store.configure({ ...store.configuration, targets });
  await serve(store, address);
  const seen = watchAt(address);
  await expect.poll(() => seen.configurations.length).toBe(1);
  expect(seen.configurations[0]!.targets).toEqual([
    { stream: "web", identifier: 1, addresses: ["172.16.0.11", "fd00::11"] },
  ]);
  expect(seen.refused[0]).toEqual([
    'target 172.16.0.3 of stream web: identifier "0": a whole number 1..100 is allowed',
    'target 172.16.0.4 of stream web: identifier "101": a whole number 1..100 is allowed',
    'target 172.16.0.5 of stream web: identifier "x": a whole number 1..100 is allowed',
    "target 172.16.0.6 of stream web: identifier 1 is used twice",
    "target 172.16.0.7,172.16.0.8 of stream web: one address per family is allowed",
    'target nonsense of stream web: address: "nonsense": not an IPv4 or IPv6 address',
  ]);
});

test("state is kept while the server is away, and its empty first answer after a restart is not believed", async () => {
  const address = socketPath();
  const close = await serve(storeOf(example), address);
  const seen = watchAt(address, 400);
  await expect.poll(() => seen.configurations.length).toBe(1);
  await close();
  await expect.poll(() => seen.states.at(-1)).toBe("disconnected");
  const empty = new NspStore({ nowMs: () => performance.now() });
  await serve(empty, address);
  await expect.poll(() => seen.states.at(-1), { timeout: 5_000 }).toBe("connected");
  expect(seen.configurations).toHaveLength(1);
  await expect.poll(() => seen.configurations.at(-1)?.streams.length, { timeout: 5_000 }).toBe(0); // the grace period ran out
});

test("any bytes from the server end nothing", { timeout: 30_000 }, async () => {
  const address = socketPath();
  let connections = 0;
  const hostile: Server = createServer((socket) => {
    connections++;
    socket.on("error", () => {});
    const bytes = Buffer.from(Array.from({ length: 400 }, (_, i) => (i * 131 + connections * 17) & 255));
    socket.write(connections % 2 === 0 ? bytes : Buffer.concat([Buffer.from("000000040000000000", "hex"), bytes]));
    if (connections % 3 === 0) socket.destroy();
  });
  await new Promise<void>((resolve) => hostile.listen(address.slice(5), resolve));
  const seen = watchAt(address);
  await expect.poll(() => connections, { timeout: 20_000 }).toBeGreaterThan(8);
  await new Promise((resolve) => {
    hostile.close(resolve);
    hostile.unref();
    resolve(null);
  });
  expect(seen.configurations).toEqual([]);
});

const faulty: readonly (readonly [string, string, RegExp])[] = [
  ["no YAML", "trench: [", /f\.yaml:1: /],
  [
    "an unknown key",
    example.replace("vips: [web-v4, web-v6]", "vip: [web-v4]"),
    /f\.yaml:24: flows\[0\]\.vip: unknown key; allowed: name, stream,/,
  ],
  [
    "a dangling VIP",
    example.replace("[web-v4, web-v6]", "[web-v4, nope]"),
    /f\.yaml:24: flows\[0\]\.vips\[1\]: "nope": there is no such VIP; there are: web-v4, web-v6/,
  ],
  [
    "a dangling stream",
    example.replace("stream: web\n    priority", "stream: wob\n    priority"),
    /f\.yaml:21: flows\[0\]\.stream: "wob": there is no such stream/,
  ],
  [
    "a prefix without length",
    example.replace("10.0.0.1/32", "10.0.0.1"),
    /f\.yaml:10: vips\[0\]\.address: "10\.0\.0\.1": not valid; address\/length/,
  ],
  [
    "an octal address",
    example.replace("10.0.0.1/32", "010.0.0.1/32"),
    /vips\[0\]\.address: "010\.0\.0\.1\/32": not valid/,
  ],
  [
    "a port out of range",
    example.replace('"443"', '"70000"'),
    /f\.yaml:25: flows\[0\]\.destination-port-ranges\[1\]: "70000": not valid; a port 1\.\.65535/,
  ],
  [
    "a protocol nobody knows",
    example.replace("[tcp]", "[tipc]"),
    /flows\[0\]\.protocols\[0\]: "tipc": not valid; tcp, udp, sctp/,
  ],
  [
    "too many targets",
    example.replace("max-targets: 100", "max-targets: 10001"),
    /f\.yaml:17: streams\[0\]\.max-targets: "10001": a whole number 1\.\.10000 is needed/,
  ],
  [
    "an identifier beyond max-targets",
    example.replace("identifier: 2", "identifier: 101"),
    /f\.yaml:32: targets\[1\]\.identifier: "101": a whole number 1\.\.100 is needed/,
  ],
  [
    "an identifier used twice",
    example.replace("identifier: 2", "identifier: 1"),
    /f\.yaml:32: targets\[1\]\.identifier: "1": this identifier is used twice in stream web/,
  ],
  [
    "two addresses of a family",
    example.replace("172.16.0.12/24, ", "172.16.0.12/24, 172.16.0.13/24, "),
    /targets\[1\]\.ips:.*one address per family/,
  ],
  [
    "a name used twice",
    example.replace("name: web-v6", "name: web-v4"),
    /f\.yaml:11: vips\[1\]: "web-v4": this name is used twice/,
  ],
  ["a missing name", example.replace("  - name: http\n    stream", "  - stream"), /flows\[0\]\.name: is missing/],
  [
    "an alias bomb",
    `a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n`,
    /alias/i,
  ],
  ["nothing", "", /the file is empty/],
];

test.each(faulty)("a file with %s is refused with file, line, key and reason", (_what, text, message) => {
  expect(() => parseConfiguration("f.yaml", text)).toThrow(message);
});

test("all faults of a file are told at once", () => {
  const text = example
    .replace("10.0.0.1/32", "x")
    .replace("max-targets: 100", "max-targets: 0")
    .replace("[tcp]", "[tipc]");
  expect(() => parseConfiguration("f.yaml", text)).toThrowError(
    expect.objectContaining({ faults: expect.objectContaining({ length: 3 }) }),
  );
});

test("a changed file is read again, a faulty one is told once and leaves the last good one in force", async () => {
  const path = join(folder, "watched.yaml");
  writeFileSync(path, example);
  expect(loadConfigurationFile(path).configuration.flows).toHaveLength(1);
  const loads: number[] = [];
  const errors: string[] = [];
  const { stop } = watchConfigurationFile(
    path,
    ({ configuration }) => loads.push(configuration.targets.length),
    (error) => errors.push(error.message),
  );
  cleanups.push(stop);
  writeFileSync(`${path}.new`, example.slice(0, example.lastIndexOf("  - stream: web")));
  renameSync(`${path}.new`, path);
  await expect.poll(() => loads, { timeout: 5_000 }).toEqual([1]);
  writeFileSync(path, example.replace("10.0.0.1/32", "x"));
  await expect.poll(() => errors.length, { timeout: 5_000 }).toBe(1);
  expect(errors[0]).toContain(`${path}:10: vips[0].address: "x"`);
  writeFileSync(path, example);
  await expect.poll(() => loads, { timeout: 5_000 }).toEqual([1, 2]);
});

test("a call to nobody fails with method and status", async () => {
  using client = new RpcClient({ address: socketPath(), security: "plain-text" });
  const call = client.unary(TargetRegistry.method.register, { ips: ["x"] }, { deadlineMs: 100 });
  await expect(call).rejects.toBeInstanceOf(RpcError);
  await expect(call).rejects.toMatchObject({ status: "DEADLINE_EXCEEDED", method: "/nsp.v1.TargetRegistry/Register" });
});
