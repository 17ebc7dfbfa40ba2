import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { listenAbstract } from "#sys";
import { parseFlowAddress } from "./nfqlb/flow-address.js";
import { sendFlowRequest } from "./nfqlb/flow-client.js";
import { type FlowInput, FlowRequestReader, MAX_LINE_BYTES, MAX_REQUEST_BYTES } from "./nfqlb/flow-protocol.js";
import { serveFlowSocket } from "./nfqlb/flow-server.js";

const read = (...chunks: (string | Uint8Array)[]): FlowInput => {
  const reader = new FlowRequestReader();
  let input: FlowInput = { kind: "more" };
  for (const chunk of chunks) input = reader.feed(typeof chunk === "string" ? new TextEncoder().encode(chunk) : chunk);
  return input;
};
const params = (input: FlowInput) => (input.kind === "request" ? Object.fromEntries(input.request) : input);

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

test("flow addresses", () => {
  expect(parseFlowAddress("unix:nfqlb")).toEqual({ kind: "abstract", name: "nfqlb" });
  expect(parseFlowAddress("unix:/run/x")).toEqual({ kind: "path", path: "/run/x" });
  expect(parseFlowAddress("tcp:[::1]:80")).toEqual({ kind: "tcp", host: "::1", port: 80 });
  const long = "x".repeat(107);
  expect(parseFlowAddress(`unix:${long}`)).toEqual({ kind: "abstract", name: long });
  for (const text of ["", "unix:", `unix:${long}x`, `unix:/${long}`, "tcp:host:1", "tcp:1.2.3.4", "tcp:1.2.3.4:70000"])
    expect(() => parseFlowAddress(text), text).toThrow(/NFQLB_FLOW_ADDRESS/);
});

test("a client that is refused, has no socket or no folder for one is told what is the matter", async () => {
  const name = `refusing-${process.pid}`;
  const refusing = createServer((socket) => socket.destroy()); // as the data plane does with other users
  refusing.listen({ fd: listenAbstract(name) });
  const folder = mkdtempSync(join(tmpdir(), "flow-"));
  onTestFinished(() => {
    refusing.close();
    rmSync(folder, { recursive: true });
  });
  const request = new Map([["action", "list"]]);
  const refused = /^Connect failed\. Closed by the data plane \((EPIPE|ECONNRESET)\): it serves root and its own user/;
  for (let i = 0; i < 20; i++)
    await expect(sendFlowRequest({ kind: "abstract", name }, request)).rejects.toThrow(refused);
  const path = join(folder, "none", "flow");
  await expect(sendFlowRequest({ kind: "path", path }, request)).rejects.toThrow("Connect failed. No such socket");
  const nobody = { kind: "abstract", name: `${name}-nobody` } as const;
  await expect(sendFlowRequest(nobody, request)).rejects.toThrow("Connect failed. Connection refused");
  await expect(serveFlowSocket({ kind: "path", path }, () => "")).rejects.toThrow(`${path}: no folder ${folder}/none`);
});
