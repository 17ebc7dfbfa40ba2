// Settings as an operator of the reference writes them, against what Go's parsers and envconfig do with them.
import { expect, test } from "vitest";
import { maskText, maskVariable } from "./stateless-lb/secrets.js";
import { servedBy } from "./stateless-lb/served-by.js";
import { readSettings, readSettingsWithOrigins, SettingsError } from "./stateless-lb/settings.js";
import { describeVariables, printSettings } from "./stateless-lb/settings-text.js";
import {
  formatDuration,
  parseDuration,
  parseInteger,
  parseQueues,
  parseUrl,
  toServerAddress,
} from "./stateless-lb/values.js";

/** The faults of an environment, and whether one is a parse error. */
function faultsOf(env: Record<string, string>): { readonly lines: readonly string[]; readonly isUnreadable: boolean } {
  try {
    readSettings(env);
  } catch (error) {
    if (error instanceof SettingsError) return { lines: error.message.split("\n"), isUnreadable: error.isUnreadable };
    throw error;
  }
  return { lines: [], isUnreadable: false };
}

// Taken one by one from net/url's own table of cases (urltests, TestParseFailure, parseRequestURLTests) and its rules.
test("URLs are taken and refused as net/url does", () => {
  const good = [
    "",
    "unix:///var/lib/meridio/lb.sock",
    "tcp://127.0.0.1:7777",
    "tcp://:5000",
    "nsp-service:7778",
    "localhost:80",
    "http://user:pa%20ss@example.com/a b",
    "http://[::1]:80/",
    "http://[fe80::1%25en0]/",
    "//host/path",
    "/only/path?q=%zz",
    "mailto:x@y",
    "http://a.b.c/%41#f",
    "http://hello.世界.com/foo",
    "http://x:/",
  ];
  for (const text of good) expect(parseUrl(text), text).toBe(text);
  const bad = [
    ":x",
    "1a:2",
    "tcp://host:port",
    "http://a b.com/",
    "http://h%41/",
    "http://x/%",
    "http://x/%zz",
    "http://[::1/",
    "http://x#%1",
    "a\nb",
    "http://x\u007f/",
    "cache_object:foo/bar",
  ];
  for (const text of bad) expect(() => parseUrl(text), text).toThrow(/a URL is needed/);
});

test("durations: Go's range, and Go's way of printing", () => {
  for (const text of ["2540400h10m", "9223372036.8s", "5.s"]) parseDuration(text);
  for (const text of ["2562048h", "9223372036.9s", "+", "-", "1h-2m", "1e3s"])
    expect(() => parseDuration(text), text).toThrow(/a duration is needed/);
  const printed: [string, string][] = [
    ["1h30m", "1h30m0s"],
    ["300ms", "300ms"],
    ["0", "0s"],
    ["90s", "1m30s"],
    ["1.5s", "1.5s"],
    ["-2m", "-2m0s"],
    ["1500us", "1.5ms"],
    ["24h", "24h0m0s"],
    ["5ns", "5ns"],
  ];
  for (const [text, expected] of printed) expect(formatDuration(parseDuration(text)), text).toBe(expected);
});

test("whole numbers: underscores stand behind a prefix and between digits, nowhere else", () => {
  const good: [string, number][] = [
    ["0x_1388", 5000],
    ["0_17", 15],
    ["1_000", 1000],
    ["+5", 5],
    ["0B11", 3],
    ["00", 0],
    ["-0", 0],
  ];
  for (const [text, value] of good) expect(parseInteger(text), text).toBe(value);
  for (const text of ["_1", "1_", "1__0", "0_x1", "0x1_", "+_1", "08", "0b2", "1e3", " 1", "--1"])
    expect(() => parseInteger(text), text).toThrow(/a whole number is needed/);
});

test("queue numbers: leading zeros and further parts as the reference, sizes that make sense", () => {
  expect(parseQueues("000003:4:9")).toEqual({ first: 3, last: 4 });
  expect(parseQueues("0:127")).toEqual({ first: 0, last: 127 });
  for (const text of ["0:128", "0:65535", "3:0", ":3", "+1", "1_0", "0x1"])
    expect(() => parseQueues(text), text).toThrow(/at most 128 queues/);
});

test("every fault is told in one error; only values that cannot be read are parse errors", () => {
  const { lines, isUnreadable } = faultsOf({
    NSM_CONNECT_TO: "",
    NSM_NFQUEUE: "9:1",
    NSM_METRICS_PORT: "70000",
    NSM_GRPC_MAX_BACKOFF: "0",
    NSM_SOCKET: "http://x",
    NFQLB_SHM_DIR: "shm",
  });
  expect(lines.map((line) => line.slice(0, line.indexOf("=")))).toEqual([
    "NSM_CONNECT_TO",
    "NSM_NFQUEUE",
    "NSM_GRPC_MAX_BACKOFF",
    "NSM_METRICS_PORT",
    "NSM_SOCKET",
    "NFQLB_SHM_DIR",
  ]);
  expect(lines[2]).toBe('NSM_GRPC_MAX_BACKOFF="0": out of range, 1ms..596h31m23.647s');
  expect(isUnreadable).toBe(false);
  expect(faultsOf({ NSM_NFQUEUE: "x", NSM_METRICS_ENABLED: "" })).toMatchObject({ isUnreadable: true });
  // The alternative is named when its value is the faulty one.
  expect(faultsOf({ GRPC_KEEPALIVE_TIME: "" }).lines[0]).toMatch(/^GRPC_KEEPALIVE_TIME=""/);
  expect(faultsOf({ NSM_GRPC_KEEPALIVE_TIME: "", GRPC_KEEPALIVE_TIME: "1s" }).isUnreadable).toBe(true);
});

const ADDRESS = "unix:/path or host:port, port 1..65535 is needed, a path of at most 107 bytes";
const LISTEN = "unix:///path or tcp://host:port is needed, a path of at most 107 bytes or a port 1..65535";
const PREFIX = 'the beginning of interface names is needed: 1..15 bytes without blanks, / : * " and \\';
const TIMER = "596h31m23.647s"; // 2^31 - 1 ms; a longer timer would end at once

test.each([
  ["NSM_NSP_EMPTY_GRACE", `out of range, 0s..${TIMER}`, ["1000h", "-1s"], ["0", TIMER]],
  ["NSM_GRPC_KEEPALIVE_TIME", `out of range, 0s..${TIMER}`, ["2000h"], ["0", "1ns", TIMER]],
  ["GRPC_PROBE_RPC_TIMEOUT", `out of range, 1ms..${TIMER}`, ["1000h", "0", "1ns"], [TIMER]],
  ["NSM_GRPC_MAX_BACKOFF", `out of range, 1ms..${TIMER}`, ["1000h", "0.5ms"], [TIMER]],
  ["NSM_DIAL_TIMEOUT", `out of range, 1ms..${TIMER}`, ["1000h"], [TIMER]],
  ["NSM_REQUEST_TIMEOUT", `out of range, 0s..${TIMER}`, ["1000h"], ["0"]],
  ["NSM_TARGET_PROBE_INTERVAL", `out of range, 0s..${TIMER}`, ["1000h"], ["0"]],
  ["NSM_DRAIN_TIME", "out of range, 0s..10s", ["10.1s"], ["10s"]],
  ["NSM_MAX_TOKEN_LIFETIME", "out of range, 1ms or more", ["0"], ["1000h"]],
  [
    "NSM_NSP_SERVICE",
    ADDRESS,
    [
      "foo",
      "foo:0",
      "foo:99999",
      ":7778",
      ":::",
      "fe80::1:7778",
      "[fe80::g]:1",
      "xyz:///foo:12",
      "é:1",
      "unix:rel",
      " ",
    ],
    ["nsp-service:7778", "10.0.0.1:1", "[fd00::1]:65535", "dns:///nsp.red:7778", "unix:/run/nsp", "unix:///run/nsp"],
  ],
  ["NSM_NSP_SERVICE", ADDRESS, [`unix:/${"p".repeat(107)}`, `unix:/${"é".repeat(54)}`], [`unix:/${"p".repeat(106)}`]],
  [
    "NSM_SOCKET",
    LISTEN,
    [
      "tcp://host",
      "tcp://host:99999",
      "tcp://host:0",
      "unix://rel/path",
      "unix:///",
      "unix:///run/",
      "http://x:1",
      " ",
    ],
    ["", "tcp://:2000", "tcp://[::1]:2000", "tcp://0.0.0.0:2000/", "unix:///run/lb.sock", "unix:/run/lb.sock"],
  ],
  ["NSM_HEALTH_SOCKET", LISTEN, ["tcp://host", `unix:///${"p".repeat(107)}`], ["", "unix:///run/h"]],
  [
    "NSM_INTERFACE_PREFIX",
    PREFIX,
    ["sixteen-bytes-lo", "tg*", 'a"b', "a b", "a/b", "éééééééé"],
    ["", "fifteen-bytes-l"],
  ],
  ["NSM_SERVICE_NAME", PREFIX, ["üüüüüüüüüü", "a b", "proxy*"], ["a-service-of-many-letters", "üüüüüü"]],
  ["NSM_SERVICE_NAME", "it must not be empty", [""], []],
  ["NSM_CONDUIT_NAME", "a name without blanks and control characters is needed", ["a b", " ", "a\u0007"], ["é"]],
  ["NSM_TRENCH_NAME", "a name without blanks and control characters is needed", ["a b", "a\u00a0b"], ["t"]],
  ["NSM_STATE_DIR", "an absolute path is needed", ["relative", "OFF", " "], ["", "off", "/state"]],
  ["NFQLB_SHM_DIR", "an absolute path is needed", ["shm", " "], ["/dev/shm"]],
  ["NSM_METRICS_PORT", "out of range, 1..65535", ["0", "-1", "65536"], ["1"]],
] as const)("%s is checked as it is used: %s", (name, allowed, bad, good) => {
  for (const text of bad) {
    const shown = text.replace(/\p{Cc}/gu, "?");
    expect(faultsOf({ [name]: text }).lines, text).toEqual([`${name}="${shown}": ${allowed}`]);
  }
  for (const text of good) expect(faultsOf({ [name]: text }).lines, text).toEqual([]);
});

test("a fault is one line whatever the value is", () => {
  expect(faultsOf({ NSM_TRENCH_NAME: "a\n\u001b[2J" }).lines).toHaveLength(1);
});

test("two servers in one place are a fault, told with all others", () => {
  const place = "unix:///run/lb.sock";
  expect(faultsOf({ NSM_SOCKET: place, NSM_HEALTH_SOCKET: place, NSM_SERVICE_NAME: "" }).lines).toEqual([
    'NSM_SERVICE_NAME="": it must not be empty',
    `NSM_HEALTH_SOCKET="${place}": NSM_SOCKET is served there`,
  ]);
  expect(faultsOf({ NSM_SOCKET: "", NSM_HEALTH_SOCKET: "" }).lines).toEqual([]);
});

test("what is checked is what is used", () => {
  const used = (env: Record<string, string>) =>
    servedBy(readSettings({ NSM_SOCKET_INSECURE: "true", ...env }), env, false);
  expect(used({ NSM_SOCKET: "tcp://:2000/", NSM_HEALTH_SOCKET: "unix:/run/h" })).toEqual({
    availabilityAddress: "[::]:2000",
    healthAddress: "unix:/run/h",
    metricsPort: null,
  });
  expect(toServerAddress("dns:///nsp.red:7778")).toBe("nsp.red:7778");
  expect(toServerAddress("unix:///run/nsp")).toBe("unix:/run/nsp");
});

test("what is in force is printed with its origin, and without credentials", () => {
  const { settings, origins } = readSettingsWithOrigins({
    NSM_CONNECT_TO: "tcp://user:geheim@host:1",
    GRPC_MAX_BACKOFF: "90s",
    NSM_NFQUEUE: "007",
    NSM_LOG_LEVEL: "",
  });
  const lines = printSettings(settings, origins).trim().split("\n");
  const row = (name: string) => lines.find((line) => line.startsWith(`${name} `))!.split(/ {2,}/);
  expect(row("NSM_CONNECT_TO")).toEqual(["NSM_CONNECT_TO", "tcp://***@host:1", "environment"]);
  expect(row("NSM_GRPC_MAX_BACKOFF")).toEqual(["NSM_GRPC_MAX_BACKOFF", "1m30s", "environment (GRPC_MAX_BACKOFF)"]);
  expect(row("NSM_NFQUEUE")).toEqual(["NSM_NFQUEUE", "7", "environment"]);
  expect(row("NSM_LOG_LEVEL")).toEqual(["NSM_LOG_LEVEL", '""', "environment"]);
  expect(row("NSM_MAX_TOKEN_LIFETIME")).toEqual(["NSM_MAX_TOKEN_LIFETIME", "24h0m0s", "default"]);
  expect(lines).toHaveLength(
    describeVariables()
      .split("\n")
      .filter((line) => /^ {2}\S/.test(line)).length,
  );
});

test("credentials are masked by name and by form", () => {
  expect(maskVariable("DB_PASSWORD", "x")).toBe("***");
  expect(maskVariable("GITHUB_TOKEN", "x")).toBe("***");
  for (const name of [
    "PGPASSWORD",
    "DBPASSWORD",
    "dbPasswd",
    "MYSECRET",
    "APITOKEN",
    "SshPassphrase",
    "AWS_CREDENTIALS",
  ])
    expect(maskVariable(name, "x"), name).toBe("***");
  for (const name of [
    "PRIVATE_KEY",
    "TLSPRIVATEKEY",
    "MYAPIKEY",
    "SSH_KEY",
    "SSHKEY",
    "GH_PAT",
    "LDAP_BINDPW",
    "DB_PW",
    "S3CREDS",
    "WPA_PSK",
  ])
    expect(maskVariable(name, "x"), name).toBe("***");
  expect(maskVariable("DATABASE_URL", "postgres://me:geheim@db/x")).toBe("postgres://***@db/x");
  expect(maskVariable("MY_API_KEY", "")).toBe("");
  expect(maskVariable("NSM_MAX_TOKEN_LIFETIME", "24h")).toBe("24h");
  expect(maskVariable("PWD", "/home")).toBe("/home");
  for (const name of ["MONKEY", "COMPAT", "PATH"]) expect(maskVariable(name, "banana"), name).toBe("banana");
  const jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln";
  const line = JSON.stringify({
    a: `Bearer ${jwt}`,
    b: "http://u:p@h/x",
    c: "-----BEGIN PRIVATE KEY-----\nMIIE",
    d: jwt,
  });
  const masked = maskText(line);
  expect(JSON.parse(masked)).toEqual({
    a: "Bearer ***",
    b: "http://***@h/x",
    c: "-----BEGIN PRIVATE KEY-----***",
    d: "***",
  });
});

test.each([
  ["jdbc:postgresql://h/db?user=u&password=hunter2&ssl=1", "jdbc:postgresql://h/db?user=u&password=***&ssl=1"],
  ["AccountName=a;AccountKey=aGk=+/==;EndpointSuffix=x", "AccountName=a;AccountKey=***;EndpointSuffix=x"],
  ["log in: { token: abc.def, user: me }", "log in: { token: ***, user: me }"],
  ['{"api-key": "a", "n": 1, \'secret\':\'b\'}', '{"api-key": "***", "n": 1, \'secret\':\'***\'}'],
  ["postgres://me:ge/he:im@db/x", "postgres://***@db/x"],
  ["amqp://me:a/b?c#d@mq", "amqp://***@mq"],
  ["unexpected token, tokens: 3; token : { a: 1 }", "unexpected token, tokens: 3; token : { a: 1 }"],
])("a credential within a value: %s", (text, masked) => {
  expect(maskVariable("X", text)).toBe(masked);
  const line = JSON.stringify({ message: text, token: 5, secret: null, inner: { password: "p" } });
  const expected = { message: masked, token: 5, secret: null, inner: { password: "***" } };
  expect(JSON.parse(maskText(line))).toEqual(expected);
});

test("masking takes no longer for a text made to make it slow", () => {
  const parts = [
    "x",
    "a:",
    "://",
    "eyJ",
    "eyJ-",
    "eyJ.",
    "Basic ",
    " ",
    "-----BEGIN ",
    "-----BEGIN PRIVATE KEY-----",
    "@",
    "a://b:",
    "password=",
    "token: ",
    'secret":',
    "\\\\",
  ];
  const startMs = performance.now();
  for (const part of parts) maskText(part.repeat(200_000 / part.length));
  expect(performance.now() - startMs).toBeLessThan(5_000);
  expect(maskText("http://me:p@ss@host/x and http://host/a@b")).toBe("http://***@host/x and http://host/a@b");
});
