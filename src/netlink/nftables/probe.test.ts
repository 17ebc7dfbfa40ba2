import { expect, test } from "vitest";
import { bytesOf, fakeKernel } from "../../../test/fakes/fake-kernel.js";
import { splitMessages } from "../message.js";
import { nfgenmsg, payloadAttributes, ruleAttributes } from "./codecs.js";
import { NftConnection } from "./connection.js";
import { probeNftables } from "./probe.js";

const NEWRULE = 0x0a06;
const DELCHAIN = 0x0a05;
const ENOENT = 2;
const EOPNOTSUPP = 95;
const NFT_PAYLOAD_CSUM_SCTP = 2;

/** A kernel without some expressions: by name, or `sctp` for a payload write with that checksum. */
function kernelWithout(...missing: readonly string[]) {
  return fakeKernel((request) => {
    const acks: Uint8Array[] = [];
    for (const { type, sequence, body } of splitMessages(request).slice(1, -1)) {
      const errno = type === DELCHAIN ? ENOENT : type === NEWRULE ? refusal(body, missing) : 0;
      const ack = Buffer.from(
        bytesOf("24000000 02000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000"),
      );
      ack.writeUInt32LE(sequence, 8);
      ack.writeInt32LE(-errno, 16);
      acks.push(ack);
    }
    return acks;
  });
}

function refusal(body: Uint8Array, missing: readonly string[]): number {
  const { expressions = [] } = ruleAttributes.decode(body.subarray(nfgenmsg.size), "");
  const isSctp = expressions.some(
    ({ name, data }) =>
      name === "payload" && payloadAttributes.decode(data!, "").checksumType === NFT_PAYLOAD_CSUM_SCTP,
  );
  if (isSctp && missing.includes("sctp")) return EOPNOTSUPP;
  return expressions.some(({ name }) => missing.includes(name!)) ? ENOENT : 0;
}

test.each<readonly [readonly string[], object]>([
  [[], { queueStatement: "native", hasConntrack: true, hasSctpChecksum: true }],
  [["queue"], { queueStatement: "compat", hasConntrack: true, hasSctpChecksum: true }],
  [["notrack"], { queueStatement: "native", hasConntrack: false, hasSctpChecksum: true }],
  [["sctp"], { queueStatement: "native", hasConntrack: true, hasSctpChecksum: false }],
])("D2: what a kernel without %j can do", (missing, features) => {
  using connection = new NftConnection(kernelWithout(...missing));
  expect(probeNftables(connection)).toEqual(features);
});

test("a kernel that cannot queue is told with the options that would help", () => {
  using connection = new NftConnection(kernelWithout("queue", "target"));
  expect(() => probeNftables(connection)).toThrowError(/CONFIG_NFT_QUEUE, or CONFIG_NFT_COMPAT/);
});
