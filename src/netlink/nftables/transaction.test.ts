// Our transactions beside what nft and iptables-nft send for the same: equal after decoding, since the order of attributes is free.
import { expect, test } from "vitest";
import { message } from "#bytes";
import { fakeKernel } from "../../../test/fakes/fake-kernel.js";
import { bytesNamed } from "../../../test/vectors/netlink/vectors.js";
import { splitMessages } from "../message.js";
import {
  chainAttributes,
  elementListAttributes,
  expressionCodecs,
  nfgenmsg,
  ruleAttributes,
  setAttributes,
  tableAttributes,
} from "./codecs.js";
import type { NftCommand } from "./command.js";
import { NftConnection } from "./connection.js";
import {
  accept,
  bitAnd,
  type Checksum,
  compare,
  compatQueue,
  conntrackState,
  counter,
  type Expression,
  immediate,
  inSet,
  meta,
  nativeQueue,
  networkHeader,
  notInSet,
  notrack,
  outsideRange,
  setMark,
  transportHeader,
  verdictOf,
  writePayload,
} from "./expressions.js";
import { decodeRule, doesTheSame } from "./rule.js";

const tableMessage = message(nfgenmsg, tableAttributes);
const chainMessage = message(nfgenmsg, chainAttributes);
const setMessage = message(nfgenmsg, setAttributes);
const ruleMessage = message(nfgenmsg, ruleAttributes);
const elementsMessage = message(nfgenmsg, elementListAttributes);

/** What a connection sends for commands: the bodies between the marks of the batch. Each is acknowledged. */
function sent(...commands: readonly NftCommand[]): readonly Uint8Array[] {
  const kernel = fakeKernel((request) =>
    splitMessages(request).map(({ sequence }) => {
      const bytes = Buffer.alloc(36); // nlmsghdr, error 0, the request's header
      bytes.writeUInt32LE(36, 0);
      bytes.writeUInt16LE(2, 4);
      bytes.writeUInt32LE(sequence, 8);
      return bytes;
    }),
  );
  using connection = new NftConnection(kernel);
  connection.transaction(commands);
  const messages = splitMessages(kernel.sent[0]!);
  expect([messages[0]!.type, messages.at(-1)!.type]).toEqual([0x10, 0x11]); // NFNL_MSG_BATCH_BEGIN, …_END
  return messages.slice(1, -1).map(({ body }) => body);
}

const table = "t";
const say = (...commands: readonly NftCommand[]) => sent(...commands)[0]!;

test("tables and chains", () => {
  const hooked = {
    kind: "addChain",
    table,
    chain: "nfqlb",
    hook: { type: "filter", hook: "prerouting", priority: -5 },
  } as const;
  expect(tableMessage.decode(say({ kind: "addTable", table }), "")).toEqual(
    tableMessage.decode(bytesNamed("nft-table", "nft 'add table inet t'"), ""),
  );
  expect(tableMessage.decode(say({ kind: "deleteTable", table }), "")).toEqual(
    tableMessage.decode(bytesNamed("nft-table", "nft 'delete table inet t'"), ""),
  );
  const nftHooked = "nft 'add chain inet t nfqlb { type filter hook prerouting priority -5; policy accept; }'";
  expect(chainMessage.decode(say(hooked), "")).toEqual(chainMessage.decode(bytesNamed("nft-chain", nftHooked), ""));
  expect(chainMessage.decode(say({ kind: "addChain", table, chain: "fwmark-5001" }), "")).toEqual(
    chainMessage.decode(bytesNamed("nft-chain", "nft 'add chain inet t fwmark-5001'"), ""),
  );
  expect(chainMessage.decode(say({ kind: "deleteChain", table, chain: "nfqlb" }), "")).toEqual(
    chainMessage.decode(bytesNamed("nft-chain", "nft 'delete chain inet t nfqlb'"), ""),
  );
  const routing = { kind: "addChain", table: "u", chain: "snat-local" } as const;
  const nftRouting = "nft 'add chain inet u snat-local { type route hook output priority -300; policy accept; }'";
  expect(chainMessage.decode(say({ ...routing, hook: { type: "route", hook: "output", priority: -300 } }), "")).toEqual(
    chainMessage.decode(bytesNamed("nft-chain", nftRouting), ""),
  );
  expect(chainMessage.decode(say({ kind: "acceptByDefault", table: "u", chain: "pre" }), "")).toEqual(
    chainMessage.decode(bytesNamed("nft-chain", "nft 'add chain inet u pre { policy accept; }'"), ""),
  );
  const renamed = { kind: "renameChain", table: "u", chain: "pre", handle: 1n, newName: "behind" } as const;
  expect(chainMessage.decode(say(renamed), "")).toEqual(
    chainMessage.decode(bytesNamed("nft-chain", "nft 'rename chain inet u pre behind'"), ""),
  );
  expect(setMessage.decode(say({ kind: "deleteSet", table: "u", set: "spare" }), "")).toEqual(
    setMessage.decode(bytesNamed("nft-set", "nft 'delete set inet u spare'"), ""),
  );
  expect(ruleMessage.decode(say({ kind: "flushChain", table, chain: "fwmark-5001" }), "")).toEqual(
    ruleMessage.decode(bytesNamed("nft-rule", "nft 'flush chain inet t fwmark-5001'"), ""),
  );
});

test.for([
  ["ipv4-vips", "ipv4Interval", "add set inet t ipv4-vips { type ipv4_addr; flags interval; }"],
  ["ipv6-vips", "ipv6Interval", "add set inet t ipv6-vips { type ipv6_addr; flags interval; }"],
  ["fwmark-verdict", "markToVerdict", "add map inet t fwmark-verdict { type mark : verdict; }"],
] as const)("set %s", ([set, type, command]) => {
  const nft = setMessage.decode(bytesNamed("nft-set", `nft '${command}'`), "");
  const ours = setMessage.decode(say({ kind: "addSet", table, set, type }), "");
  // User data is nft's own note of how to show the set; where we have one, it begins as nft's does.
  const note = ours.attributes.userData ?? new Uint8Array(0);
  expect(nft.attributes.userData!.subarray(0, note.length)).toEqual(note);
  expect({ ...ours, attributes: { ...ours.attributes, userData: nft.attributes.userData } }).toEqual(nft);
});

test("elements: bounds of intervals, marks that jump", () => {
  const nft = (command: string) => elementsMessage.decode(bytesNamed("nft-setelem", `nft '${command}'`), "").attributes;
  const ours = (command: NftCommand) => elementsMessage.decode(say(command), "").attributes;
  const bound = (key: string, isEnd: boolean) => ({ key: new Uint8Array(Buffer.from(key, "hex")), isEnd });
  const vips = [bound("0a000000", false), bound("0a000002", true), bound("ffffffff", false)];
  const added = ours({ kind: "addElements", table, set: "ipv4-vips", elements: vips });
  const expected = nft("add element inet t ipv4-vips { 10.0.0.0/31, 255.255.255.255 }");
  // nft also says that everything below the first bound is outside, and notes on the last that it has no end.
  const bounds = (elements: typeof expected.elements) => elements?.map(({ key, flags }) => ({ key, flags }));
  expect(bounds(added.elements)).toEqual(bounds(expected.elements?.slice(1)));
  const jump = { key: new Uint8Array([0x89, 0x13, 0, 0]), jump: "fwmark-5001" };
  const mapped = ours({ kind: "addElements", table, set: "fwmark-verdict", elements: [jump] });
  const nftMapped = nft("add element inet t fwmark-verdict { 5001 : jump fwmark-5001 }");
  expect(mapped.elements).toEqual(nftMapped.elements);
});

/** A rule's expressions, decoded, and its comment's bytes. */
function ruleOf(body: Uint8Array) {
  const { expressions, userData } = ruleMessage.decode(body, "").attributes;
  const decoded = (expressions ?? []).map(({ name, data }) => {
    const codec = expressionCodecs[name as keyof typeof expressionCodecs];
    return { name, data: codec === undefined ? data : { ...codec.decode(data!, ""), setId: undefined } };
  });
  return { decoded, userData };
}

test("rules: VIP matches, marks, counters, comments", () => {
  const nft = (rule: string) => ruleOf(bytesNamed("nft-rule", `nft 'add rule inet t ${rule}'`));
  const ours = (...expressions: Parameters<typeof ruleWith>[0]) => ruleOf(say(ruleWith(expressions)));
  const ruleWith = (expressions: Extract<NftCommand, { kind: "addRule" }>["expressions"], comment = "") =>
    ({ kind: "addRule", table, chain: "nfqlb", expressions, comment }) as const;
  const toVip4 = [meta("nfproto"), compare("==", new Uint8Array([2])), networkHeader(16, 4), inSet("ipv4-vips")];
  expect(ours(...toVip4).decoded).toEqual(nft("nfqlb ip daddr @ipv4-vips counter drop").decoded.slice(0, 4));
  const isIcmp = [meta("l4proto"), compare("==", new Uint8Array([58]))];
  const toVip6 = [meta("nfproto"), compare("==", new Uint8Array([10])), networkHeader(24, 16), inSet("ipv6-vips")];
  expect(ours(...isIcmp, ...toVip6).decoded).toEqual(
    nft("nfqlb meta l4proto ipv6-icmp ip6 daddr @ipv6-vips counter accept").decoded.slice(0, 6),
  );
  const marked = [meta("mark"), compare("!=", new Uint8Array(4)), meta("mark"), verdictOf("fwmark-verdict")];
  expect(ours(...marked).decoded).toEqual(nft("nfqlb meta mark != 0 meta mark vmap @fwmark-verdict").decoded);
  const commented = ruleOf(say(ruleWith([counter()], "a target")));
  const nftCommented = nft('fwmark-5001 counter comment "a target"');
  expect(commented.userData).toEqual(nftCommented.userData);
  expect(commented.decoded.map(({ name }) => name)).toEqual(nftCommented.decoded.map(({ name }) => name));
});

test("rules: both queue statements", () => {
  const only = (command: string) => ruleOf(bytesNamed("nft-rule", command)).decoded.at(-1);
  const ours = (expression: ReturnType<typeof nativeQueue>) =>
    ruleOf(say({ kind: "addRule", table, chain: "nfqlb", expressions: [expression], comment: "" })).decoded[0];
  const fanout = { first: 0, last: 3, isFanout: true };
  expect(ours(nativeQueue(fanout))).toEqual(only("nft 'add rule inet t nfqlb queue num 0-3 fanout'"));
  const iptables =
    "iptables-nft -t mangle -A PREROUTING -d 10.0.0.1/32 -j NFQUEUE --queue-balance 0:3 --queue-cpu-fanout";
  expect(ours(compatQueue(fanout))).toEqual(only(iptables));
});

const bytes = (...values: number[]) => new Uint8Array(values);
const ip4 = [meta("nfproto"), compare("==", bytes(2))];
/** What nft says for `ip ADDRESS @v4 PROTOCOL PORT … set …`; it takes the checksum of UDP for always there. */
const portRewrite = (
  address: Expression[],
  protocol: number,
  at: number,
  from: number[],
  to: number[],
  checksum: Checksum,
) => [
  ...ip4,
  ...address,
  meta("l4proto"),
  compare("==", bytes(protocol)),
  transportHeader(at, 2),
  compare("==", bytes(...from)),
  immediate(bytes(...to)),
  writePayload("transport", at, 2, checksum),
];
const toV4 = [networkHeader(16, 4), inSet("v4")];
const icmpType = transportHeader(0, 1);

/** Rules as nft writes them, and ours. */
const RULES: readonly (readonly [string, readonly Expression[]])[] = [
  [
    "pre ip daddr @v4 udp dport 80 udp dport set 8080 counter notrack",
    [...portRewrite(toV4, 17, 2, [0, 80], [0x1f, 0x90], { type: "internet", offset: 6 }), counter(), notrack()],
  ],
  [
    "pre ip daddr @v4 tcp dport 80 tcp dport set 8080 counter notrack",
    [...portRewrite(toV4, 6, 2, [0, 80], [0x1f, 0x90], { type: "internet", offset: 16 }), counter(), notrack()],
  ],
  [
    "pre ip saddr != @v4 sctp sport 8080 sctp sport set 80",
    portRewrite([networkHeader(12, 4), notInSet("v4")], 132, 0, [0x1f, 0x90], [0, 80], { type: "sctp", offset: 8 }),
  ],
  ['pre iifname "load-balan*" notrack', [meta("iifname"), compare("==", Buffer.from("load-balan")), notrack()]],
  [
    "pre ct state untracked accept",
    [conntrackState(), bitAnd(bytes(64, 0, 0, 0)), compare("!=", new Uint8Array(4)), accept()],
  ],
  [
    "pre icmp type >= 3 icmp type != 8-10 icmp type <= 12 @th,112,16 & 0x1fff == 0 @th,224,16 set 8080",
    [
      ...ip4,
      meta("l4proto"),
      compare("==", bytes(1)),
      icmpType,
      compare(">=", bytes(3)),
      icmpType,
      outsideRange(bytes(8), bytes(10)),
      icmpType,
      compare("<=", bytes(12)),
      transportHeader(14, 2),
      bitAnd(bytes(0x1f, 0xff)),
      compare("==", bytes(0, 0)),
      immediate(bytes(0x1f, 0x90)),
      writePayload("transport", 28, 2, { type: "none" }),
    ],
  ],
  [
    "snat-local ip saddr set 192.0.2.1 meta mark set 0",
    [
      ...ip4,
      immediate(bytes(192, 0, 2, 1)),
      writePayload("network", 12, 4, { type: "internet", offset: 10, isTransport: true }),
      immediate(new Uint8Array(4)),
      setMark(),
    ],
  ],
  [
    "snat-local ip6 saddr set 2001:db8::1",
    [
      meta("nfproto"),
      compare("==", bytes(10)),
      immediate(new Uint8Array(Buffer.from("20010db8000000000000000000000001", "hex"))),
      writePayload("network", 8, 16, { type: "none", isTransport: true }),
    ],
  ],
];
/** In the order in which nft lists them. */
const LISTED = [6, 7, 0, 1, 2, 3, 4, 5];

test.for(RULES)("rule %s is what nft sends, and is recognised in the kernel's listing alone", ([text, expressions]) => {
  const [chain = ""] = text.split(" ", 1);
  const ours = say({ kind: "addRule", table: "u", chain, expressions, comment: "" });
  const sentByNft = decodeRule(bytesNamed("nft-rule", `nft 'add rule inet u ${text}'`).subarray(nfgenmsg.size));
  expect(doesTheSame(decodeRule(ours.subarray(nfgenmsg.size)).expressions, sentByNft.expressions)).toBe(true);
  const recognised = RULES.map((_, i) => {
    const listed = bytesNamed("nft-rule", `nft list table inet u, message ${LISTED.indexOf(i) + 1}`);
    return doesTheSame(decodeRule(listed.subarray(nfgenmsg.size)).expressions, expressions);
  });
  expect(recognised).toEqual(RULES.map(([other]) => other === text));
});

test("a rule that differs in one field of one expression is not the same; in what it counted, it is", () => {
  const checksum = { type: "internet", offset: 6 } as const;
  const write = writePayload("transport", 2, 2, checksum);
  const others: readonly (readonly [Expression, readonly Expression[]])[] = [
    [meta("nfproto"), [meta("l4proto"), meta("mark"), setMark()]],
    [compare("==", bytes(2)), [compare("!=", bytes(2)), compare("==", bytes(3)), compare("==", bytes(2, 0))]],
    [inSet("v4"), [notInSet("v4"), inSet("v6"), verdictOf("v4")]],
    [immediate(bytes(1)), [immediate(bytes(0)), accept()]],
    [bitAnd(bytes(1)), [bitAnd(bytes(3)), bitAnd(bytes(1, 0))]],
    [outsideRange(bytes(8), bytes(10)), [outsideRange(bytes(8), bytes(11)), outsideRange(bytes(7), bytes(10))]],
    [transportHeader(2, 2), [transportHeader(0, 2), transportHeader(2, 4), networkHeader(2, 2), write]],
    [
      write,
      [
        writePayload("transport", 2, 2, { ...checksum, offset: 16 }),
        writePayload("transport", 2, 2, { ...checksum, type: "none" }),
        writePayload("transport", 2, 2, { ...checksum, isTransport: true }),
        writePayload("network", 2, 2, checksum),
      ],
    ],
    [notrack(), [counter()]],
  ];
  for (const [one, differing] of others) {
    expect(doesTheSame([one], [one])).toBe(true);
    for (const other of differing) expect(doesTheSame([other], [one]), `${other.name} ${one.name}`).toBe(false);
  }
  const counted = { name: "counter", data: new Uint8Array(counter().data).fill(1, 4, 12) };
  expect(doesTheSame([counted], [counter()])).toBe(true);
  expect(doesTheSame([], [counter()])).toBe(false);
});
