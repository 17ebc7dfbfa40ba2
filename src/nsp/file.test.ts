import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, onTestFinished, test } from "vitest";
import { example } from "../../test/harness/nsp.js";
import { loadConfigurationFile, parseConfiguration } from "./file.js";
import { configurationOf } from "./from-file.js";
import { fileSignature, watchConfigurationFile } from "./watch-file.js";

const folder = mkdtempSync(join(tmpdir(), "nsp-file-"));
afterAll(() => rmSync(folder, { recursive: true }));

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
  [
    "two flows that would have one rule",
    `${example}  - { stream: web-http, identifier: 1, ips: [172.16.0.13] }\n`
      .replace("streams:", "streams:\n  - { name: web-http, conduit: load-balancer }")
      .replace("flows:", "flows:\n  - { name: tls, stream: web-http, protocols: [tcp], vips: [web-v4] }")
      .replace("- name: http\n", "- name: http-tls\n"),
    /f\.yaml:\d+: flows\[1\]: "http-tls": its rule would be called tshm-web-http-tls as that of flow tls of stream web-http; rename one$/,
  ],
  ["nothing", "", /the file is empty/],
  ["two documents", `${example}---\n${example}`, /^f\.yaml:\d+: a second document begins here; a file holds one$/],
  ...["127.0.0.1:99999", "127.0.0.1:0", "localhost", "unix:relative"].map(
    (address) =>
      [
        `nothing to listen on, ${address}`,
        `${example}nsp: { listen: ["${address}"] }\n`,
        /nsp\.listen\[0\]: "[^"]+": not valid; unix:\/path or host:port, port 1\.\.65535$/,
      ] as const,
  ),
];

test.each(faulty)("a file with %s is refused with file, line, key and reason", (_what, text, message) => {
  expect(() => parseConfiguration("f.yaml", text)).toThrow(message);
});

test("a file that cannot be read is told without a line", () => {
  const path = join(folder, "nope.yaml");
  expect(() => loadConfigurationFile(path)).toThrow(`${path}: ENOENT: no such file`);
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
  const { stop, check } = watchConfigurationFile(
    path,
    fileSignature(path),
    ({ configuration }) => loads.push(configuration.targets.length),
    (error) => errors.push(error.message),
  );
  onTestFinished(stop);
  writeFileSync(`${path}.new`, example.slice(0, example.lastIndexOf("  - stream: web")));
  renameSync(`${path}.new`, path);
  await expect.poll(() => loads, { timeout: 5_000 }).toEqual([1]);
  writeFileSync(path, example.replace("10.0.0.1/32", "x"));
  await expect.poll(() => errors.length, { timeout: 5_000 }).toBe(1);
  expect(errors[0]).toContain(`${path}:10: vips[0].address: "x"`);
  check(); // somebody asks: the same fault is an answer
  check();
  expect(errors).toEqual([errors[0], errors[0], errors[0]]);
  writeFileSync(path, example);
  await expect.poll(() => loads, { timeout: 5_000 }).toEqual([1, 2]);
});

test("without inotify the limit is named once and changes are found all the same", async () => {
  const path = join(folder, "unwatched.yaml");
  writeFileSync(path, example);
  const loads: number[] = [];
  const reasons: string[] = [];
  const { stop } = watchConfigurationFile(
    path,
    fileSignature(path),
    ({ configuration }) => loads.push(configuration.targets.length),
    () => {},
    {
      onUnwatched: (reason) => reasons.push(reason),
      watch: () => {
        throw Object.assign(new Error("EMFILE: too many open files, watch"), { code: "EMFILE" });
      },
    },
  );
  onTestFinished(stop);
  expect(reasons).toEqual(["fs.inotify.max_user_instances is used up"]);
  writeFileSync(path, example.slice(0, example.lastIndexOf("  - stream: web")));
  await expect.poll(() => loads, { timeout: 10_000 }).toEqual([1]);
  expect(reasons).toHaveLength(1);
});

test("what a load balancer learns from a file needs no server", () => {
  const { configuration, refusals } = configurationOf(parseConfiguration("f.yaml", example), "load-balancer");
  expect(configuration).toMatchObject({
    conduit: { name: "load-balancer" },
    vips: [{ name: "web-v4", prefix: "10.0.0.1/32" }, { name: "web-v6" }],
    streams: [{ name: "web", maxTargets: 100 }],
    flows: [{ name: "http", stream: "web", destinationPorts: ["80", "443"] }],
    targets: [
      { identifier: 1, addresses: ["172.16.0.11", "fd00::11"] },
      { identifier: 2, addresses: ["172.16.0.12", "fd00::12"] },
    ],
  });
  expect(refusals).toEqual([]);
});

test("a change between the loading of a file and the begin of its watch is not missed", async () => {
  const path = join(folder, "early.yaml");
  writeFileSync(path, example);
  const loaded = fileSignature(path);
  loadConfigurationFile(path);
  writeFileSync(path, `${example}# changed\n`);
  const loads: number[] = [];
  const { stop } = watchConfigurationFile(
    path,
    loaded,
    ({ configuration }) => loads.push(configuration.flows.length),
    () => {},
  );
  onTestFinished(stop);
  await expect.poll(() => loads, { timeout: 5_000 }).toEqual([1]);
});
