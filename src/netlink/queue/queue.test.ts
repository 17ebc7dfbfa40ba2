import { createServer, type Socket } from "node:net";
import fc from "fast-check";
import { expect, onTestFinished, test } from "vitest";
import { attr, attributes, be16, be32, concat, struct, u8 } from "#bytes";
import { closeDescriptor, connectAbstract, listenAbstract } from "#sys";
import { encodeMessage } from "../message.js";
import { parseQueueStates, VerdictBuffer } from "./index.js";

const header = struct("nfgenmsg", { family: u8, version: u8, resourceId: be16 });
const verdictHeader = struct("nfqnl_msg_verdict_hdr", { verdict: be32, packetId: be32 });
const verdict = attributes("NFQA", { verdict: attr(2, verdictHeader), mark: attr(3, be32) });

/** NFQNL_MSG_VERDICT and NFQNL_MSG_VERDICT_BATCH: one packet, or all up to it. */
type Kind = 1 | 3;

/** The declared codec: nfqlb's own messages (accept of packet 1 with mark 101) have these very attributes. */
function encodeVerdict(queueNumber: number, packetId: number, fwmark: number, kind: Kind = 1): Uint8Array {
  const isAccepted = fwmark >= 0;
  const body = [
    header.encode({ family: 0, version: 0, resourceId: queueNumber }, ""),
    verdict.encode({ verdict: { verdict: isAccepted ? 1 : 0, packetId }, mark: isAccepted ? fwmark : 0 }, ""),
  ];
  return encodeMessage((3 << 8) | kind, 1, 0, concat(body));
}

/** PacketBatch hands out packet ids as they stand in the message. */
const asInMessage = (packetId: number) =>
  new DataView(new Uint8Array(new Uint32Array([packetId]).buffer).buffer).getUint32(0) >>> 0;
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

const packetIds = fc.integer({ min: 1, max: 2 ** 32 - 1 });
const fwmarks = fc.integer({ min: -1, max: 2 ** 32 - 1 });
const holds = (answers: readonly (readonly [packetId: number, fwmark: number])[], queueNumber: number) => {
  const rows = answers.filter(([, fwmark], i) => i + 1 === answers.length || answers[i + 1]![1] !== fwmark);
  const expected = rows.map(([packetId, fwmark]) => {
    const before = answers.findIndex(([id]) => id === packetId) - 1;
    const isRow = before >= 0 && answers[before]![1] === fwmark;
    return hex(encodeVerdict(queueNumber, packetId, fwmark, isRow ? 3 : 1));
  });
  const buffer = new VerdictBuffer(queueNumber, 64);
  for (const [packetId, fwmark] of answers) buffer.put(asInMessage(packetId), fwmark);
  expect(hex(buffer.bytes())).toBe(expected.join(""));
};

test("VerdictBuffer writes what the declared codec writes", () => {
  const answers = fc.uniqueArray(fc.tuple(packetIds, fwmarks), { maxLength: 64, selector: ([packetId]) => packetId });
  fc.assert(fc.property(answers, fc.nat(65_535), holds), { numRuns: 300 });
});

test("packets in a row with one verdict are answered by one message, for all up to the last", () => {
  const marks = fc.constantFrom(-1, 0, 7, 2 ** 32 - 1);
  const answers = fc.array(marks, { maxLength: 64 }).map((all) => all.map((fwmark, i) => [100 + i, fwmark] as const));
  fc.assert(fc.property(answers, fc.nat(65_535), holds), { numRuns: 300 });
});

test("what a send that failed left without a verdict is dropped before later packets are answered up to an id", async () => {
  const name = `verdicts-${process.pid}`;
  let sent = "";
  const server = createServer((socket: Socket) =>
    socket.on("data", (bytes) => {
      sent += hex(bytes);
    }),
  );
  server.listen({ fd: listenAbstract(name) });
  const fd = connectAbstract(name);
  onTestFinished(() => {
    closeDescriptor(fd);
    server.close();
  });
  const EBADF = 9;
  const buffer = new VerdictBuffer(2, 64);
  const send = (to: number, ...answers: [packetId: number, fwmark: number][]) => {
    for (const [packetId, fwmark] of answers) buffer.put(asInMessage(packetId), fwmark);
    return buffer.send(to);
  };
  expect(send(-1, [1, 101], [2, 101], [3, 102])).toBe(EBADF);
  expect(send(-1, [4, 103])).toBe(EBADF); // in vain again: what is left reaches up to here
  expect(send(-1)).toBe(0); // nothing to send is no failure, and mends none
  expect(send(fd, [5, 104], [6, 104])).toBe(0);
  expect(send(fd, [7, 105])).toBe(0); // and only once
  const dropped = concat([
    header.encode({ family: 0, version: 0, resourceId: 2 }, ""),
    verdict.encode({ verdict: { verdict: 0, packetId: 4 } }, ""),
  ]);
  const expected = [encodeMessage((3 << 8) | 3, 1, 0, dropped), encodeVerdict(2, 6, 104, 3), encodeVerdict(2, 7, 105)];
  await expect.poll(() => sent).toBe(expected.map(hex).join(""));
});

test("the attributes of an accept with mark 101 are the bytes measured from nfqlb", () => {
  // nfqlb 1.2.0 on Linux 6.18, strace of its verdict for packet 1: NFQA_VERDICT_HDR, then NFQA_MARK
  expect(hex(encodeVerdict(2, 1, 101)).slice(40)).toBe("0c0002000000000100000001" + "0800030000000065");
});

test("the kernel's list of queues is read, and lines that are none are passed over", () => {
  // Linux 6.18.44: two queues bound, 300 packets sent to both, nobody receives; queue 4 holds 10 packets at most.
  const text =
    "    4 2764262628    10 2   256   152     0       10  1\n    5 3916138408   138 2  1500     0     0      138  1\n";
  expect([...parseQueueStates(`rubbish\n${text}`).values()]).toEqual([
    {
      queueNumber: 4,
      portId: 2764262628,
      waiting: 10,
      copyBytes: 256,
      queueDropped: 152,
      userDropped: 0,
      lastPacketId: 10,
    },
    {
      queueNumber: 5,
      portId: 3916138408,
      waiting: 138,
      copyBytes: 1500,
      queueDropped: 0,
      userDropped: 0,
      lastPacketId: 138,
    },
  ]);
  expect(parseQueueStates("").size).toBe(0);
});
