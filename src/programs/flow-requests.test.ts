import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { CounterFile, createStreamTable, ensureFlows, FlowTableReader, readFlows, TraceFile } from "#tables";
import { flowInput, inPieces, xorshift } from "../../test/harness/flow-request-fuzz.js";
import { parseFlowAddress } from "./nfqlb/flow-address.js";
import { type FlowInput, FlowRequestReader, MAX_LINE_BYTES, MAX_REQUEST_BYTES } from "./nfqlb/flow-protocol.js";
import { answerFlowRequest } from "./nfqlb/flow-requests.js";
import { PlaneLog } from "./nfqlb/plane-log.js";

const folder = mkdtempSync(join(tmpdir(), "flow-requests-"));
afterAll(() => rmSync(folder, { recursive: true }));

const read = (...chunks: (string | Uint8Array)[]): FlowInput => {
  const reader = new FlowRequestReader();
  let input: FlowInput = { kind: "more" };
  for (const chunk of chunks) input = reader.feed(typeof chunk === "string" ? new TextEncoder().encode(chunk) : chunk);
  return input;
};
const params = (input: FlowInput) => (input.kind === "request" ? Object.fromEntries(input.request) : input);

/** What the reader must say, written plainly and on the whole input at once. */
function slowRead(bytes: Uint8Array): unknown {
  const request: Record<string, string> = Object.create(null) as Record<string, string>;
  const known = /^(action|name|target|priority|protocols|dsts|srcs|dports|sports|match|udpencap)$/;
  let from = 0;
  for (;;) {
    const feed = bytes.indexOf(10, from);
    const line = bytes.subarray(from, feed < 0 ? bytes.length : feed);
    const latin = Buffer.from(line).toString("latin1");
    const isEnd = latin.startsWith("eoc:");
    const whole = feed < 0 ? bytes.length : feed + 1;
    const isLineFirst = from + MAX_LINE_BYTES < MAX_REQUEST_BYTES;
    if (line.length > MAX_LINE_BYTES && !isEnd && isLineFirst) return "line too long";
    if (!isEnd && whole > MAX_REQUEST_BYTES) return "request too long";
    if (isEnd) return from + 4 > MAX_REQUEST_BYTES ? "request too long" : { ...request };
    if (feed < 0) return "more";
    const colon = line.indexOf(58);
    if (colon < 0) return "closed";
    const text = Buffer.from(line).toString("utf8");
    if (!Buffer.from(text, "utf8").equals(Buffer.from(line))) return "not UTF-8";
    const [name, value] = [text.slice(0, text.indexOf(":")), text.slice(text.indexOf(":") + 1)];
    if (known.test(name) && (!(name in request) || name === "priority" || name === "udpencap")) request[name] = value;
    from = feed + 1;
  }
}

function summary(input: FlowInput): unknown {
  if (input.kind === "request") return Object.fromEntries(input.request);
  if (input.kind !== "refused") return input.kind;
  return /(line|request) too long|not UTF-8/.exec(input.reply)?.[0] ?? input.reply;
}

test("requests: first wins but for priority and udpencap, unknown parameters are ignored, a line without colon closes", () => {
  expect(params(read("action:set\nname:a\nname:b\npriority:1\nfoo:1\npriority:2\neoc:\n"))).toEqual({
    action: "set",
    name: "a",
    priority: "2",
  });
  expect(read("action:set\n")).toEqual({ kind: "more" });
  expect(read("action:set\nrubbish\neoc:\n")).toEqual({ kind: "closed" });
  expect(read("action:set\n\neoc:\n")).toEqual({ kind: "closed" });
  expect(params(read("action:li", "st\neo", "c", ":"))).toEqual({ action: "list" });
  expect(params(read("action:list\neoc:whatever\nname:x\n"))).toEqual({ action: "list" });
  expect(params(read("match:tcp[13:1]=2\neoc:"))).toEqual({ match: "tcp[13:1]=2" });
});

test("requests: lines and requests that are too long, and bytes that are no text, are refused with a reason", () => {
  const refused = (...chunks: (string | Uint8Array)[]) => summary(read(...chunks));
  expect(params(read(`name:${"n".repeat(MAX_LINE_BYTES - 5)}\neoc:`))).toHaveProperty("name");
  expect(refused(`name:${"n".repeat(MAX_LINE_BYTES - 4)}\neoc:`)).toBe("line too long");
  expect(refused("a:b\n".repeat(MAX_REQUEST_BYTES / 4), "eoc:")).toBe("request too long");
  expect(refused(new Uint8Array([...Buffer.from("name:"), 0xff, 10]))).toBe("not UTF-8");
  expect(read(`name:${"n".repeat(9_000)}`)).toMatchObject({
    reply: `FAIL: line too long; at most ${MAX_LINE_BYTES} bytes`,
  });
});

test("requests: a byte at a time costs no more than bytes at once", () => {
  const bytes = new TextEncoder().encode("unknown:0123456789\n".repeat(3_400));
  const reader = new FlowRequestReader();
  const startMs = performance.now();
  for (let i = 0; i < bytes.length; i++) reader.feed(bytes.subarray(i, i + 1));
  expect(performance.now() - startMs).toBeLessThan(1_000); // some 10 ms; a scan of all that is there each time takes minutes
});

test("100,000 generated inputs: the reader says what the plain one says, however the bytes come", () => {
  const random = xorshift(20_261);
  const kinds = new Map<string, number>();
  for (let n = 0; n < 100_000; n++) {
    const bytes = flowInput(random);
    const got = read(...inPieces(random, bytes));
    const want = slowRead(bytes);
    kinds.set(got.kind, (kinds.get(got.kind) ?? 0) + 1);
    const found = summary(got);
    const isEqual = typeof want === "string" ? found === want : JSON.stringify(found) === JSON.stringify(want);
    if (!isEqual) expect({ n, found }, Buffer.from(bytes).toString("hex").slice(0, 2_000)).toEqual({ n, found: want });
  }
  for (const kind of ["more", "request", "refused", "closed"]) expect(kinds.get(kind), kind).toBeGreaterThan(500);
}, 60_000);

test("answers: one reply per request, and the rules in force stay well-formed", () => {
  const flowsName = "flows";
  ensureFlows(folder, flowsName);
  for (const name of ["t1", "t2"]) createStreamTable(folder, name, { size: 97, targets: 4, ownFwmark: 0 });
  using counters = CounterFile.create(folder, "counters", 1, "{}");
  ensureFlows(folder, "trace-flows");
  using trace = TraceFile.own(folder, "trace", 2, 1_024);
  const state = {
    folder,
    flowsName,
    traceFlowsName: "trace-flows",
    counters,
    trace,
    log: new PlaneLog(trace, () => {}),
  };
  const random = xorshift(7);
  let before = readFlows(folder, flowsName);
  const replies = new Map<string, number>();
  let most = 0;
  for (let n = 0; n < 5_000; n++) {
    const input = read(flowInput(random));
    if (input.kind !== "request") continue;
    const reply = answerFlowRequest(input.request, state);
    const isList = ["list", "list-names"].includes(input.request.get("action") ?? "");
    replies.set(reply.slice(0, 12), (replies.get(reply.slice(0, 12)) ?? 0) + 1);
    if (isList) {
      if (reply !== "") JSON.parse(reply);
    } else expect(reply).toMatch(/^[^\0]+\0$/);
    const after = readFlows(folder, flowsName);
    if (reply !== "OK\0") expect(after.generation).toBe(before.generation);
    const names = after.rules.map(({ rule }) => rule.name);
    const slots = new Set(after.rules.map(({ slot }) => slot));
    expect([new Set(names).size, slots.size]).toEqual([names.length, names.length]);
    expect(after.rules.every(({ rule }, i) => i === 0 || rule.priority <= after.rules[i - 1]!.rule.priority)).toBe(
      true,
    );
    before = after;
    most = Math.max(most, names.length);
  }
  expect(replies.get("OK\0")).toBeGreaterThan(200);
  expect(most).toBeGreaterThan(4);
  using reader = new FlowTableReader(folder, flowsName); // and it is a program that the packet path takes
  expect(reader.program.length).toBeGreaterThan(0);
}, 60_000);

test("flow addresses", () => {
  expect(parseFlowAddress("unix:nfqlb")).toEqual({ kind: "abstract", name: "nfqlb" });
  expect(parseFlowAddress("unix:/run/x")).toEqual({ kind: "path", path: "/run/x" });
  expect(parseFlowAddress("tcp:[::1]:80")).toEqual({ kind: "tcp", host: "::1", port: 80 });
  const long = "x".repeat(107);
  expect(parseFlowAddress(`unix:${long}`)).toEqual({ kind: "abstract", name: long });
  for (const text of ["", "unix:", `unix:${long}x`, `unix:/${long}`, "tcp:host:1", "tcp:1.2.3.4", "tcp:1.2.3.4:70000"])
    expect(() => parseFlowAddress(text), text).toThrow(/NFQLB_FLOW_ADDRESS/);
});
