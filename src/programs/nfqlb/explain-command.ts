import { readFileSync } from "node:fs";
import { Decider, type DeciderOptions, QuotedFragments, StreamTables, soloFragments, TableView } from "#dataplane";
import { Classification } from "#flow";
import { COUNTER_RULE_SLOTS, readFlows } from "#tables";
import { type CapturedPacket, ipLength, readCapture } from "./capture.js";
import { type Command, CommandError, numberOption, regionName, shmFolder } from "./command.js";
import { decisionOf, describeDecision, type Explanation, formatExplanation } from "./decision.js";
import { DEFAULT_FLOWS } from "./names.js";
import type { OptionSpec, ParsedOptions } from "./options.js";
import { runningOptions } from "./running.js";
import { parseEndpoint, parsePortProtocol, tuplePacket } from "./tuple.js";

/** A capture may hold many packets, and its fragments are as far apart as they are in the file. */
const FRAGMENTS = { size: 65_536, buckets: 0, lifetimeMs: 60_000, isForgetful: true };

const options: readonly OptionSpec[] = [
  { name: "proto", kind: "value", help: "tcp, udp or sctp" },
  { name: "src", kind: "value", help: "Source, a.b.c.d:port or [v6]:port" },
  { name: "dst", kind: "value", help: "Destination, a.b.c.d:port or [v6]:port" },
  { name: "hex", kind: "value", help: "A packet from its IP header on, in hexadecimal" },
  { name: "pcap", kind: "value", help: "Every packet of a pcap or pcapng file" },
  { name: "json", kind: "switch", help: "One JSON object per packet and line" },
  { name: "flow_shm", kind: "value", default: DEFAULT_FLOWS, help: "Region of the flow rules" },
  { name: "tshm", kind: "value", help: "Decide as `lb` does, with this table for every packet" },
  { name: "sctp_encap", kind: "value", default: "0", help: "With --tshm: UDP port whose payload is SCTP" },
  { name: "lbshm", kind: "value", help: "Table of the load balancer tier" },
  { name: "hash_mode", kind: "value", help: "1 = SCTP on its ports only, else the whole tuple" },
  { name: "nolb_fwmark", kind: "value", help: "fwmark of packets that no flow takes" },
  { name: "notargets_fwmark", kind: "value", help: "fwmark of packets without an active target" },
  { name: "promiscuous_ping", kind: "switch", help: "Echo requests match flows by addresses alone" },
];

/**
 * `nfqlb explain`: decides with the packet path's own code, on the tables in force, where packets would go. Options
 * that are not given are those of the running data plane, else the defaults of `flowlb`.
 */
export const EXPLAIN_COMMAND: Command = {
  name: "explain",
  summary: "Say where packets would go, and why, on the tables in force",
  positionals: "[hex]",
  options,
  run(parsed, io) {
    const explainer = openExplainer(parsed, io.env);
    const isJson = parsed.values.has("json");
    for (const packet of packetsOf(parsed)) {
      const { missing } = packet;
      const explanation = explainer.explain(packet);
      if (isJson) io.out(`${JSON.stringify(missing > 0 ? { ...explanation, missing } : explanation)}\n`);
      else
        io.out(formatExplanation(explanation) + (missing > 0 ? `  capture cut: ${missing} bytes are missing\n` : ""));
    }
    explainer.close();
    return 0;
  },
};

function packetsOf({ values, positionals }: ParsedOptions): Iterable<CapturedPacket> {
  const hex = values.get("hex") ?? positionals[0];
  const pcap = values.get("pcap");
  const src = values.get("src");
  const dst = values.get("dst");
  const ways = [hex, pcap, src ?? dst].filter((way) => way !== undefined).length;
  if (ways !== 1) throw new CommandError("give one of: --proto with --src and --dst; a packet in hex; --pcap FILE");
  if (pcap !== undefined) return readCapture(readFileOrFail(pcap));
  if (hex !== undefined) return [hexPacket(hex)];
  if (src === undefined || dst === undefined) throw new CommandError("--src and --dst go together");
  const protocol = values.get("proto");
  if (protocol === undefined) throw new CommandError("Missing option [--proto]");
  return [{ n: 1, missing: 0, ...tuplePacket(parsePortProtocol(protocol), parseEndpoint(src), parseEndpoint(dst)) }];
}

function readFileOrFail(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new CommandError(`--pcap: ${(error as Error).message}`);
  }
}

function hexPacket(text: string): CapturedPacket {
  const digits = text.replace(/[\s:]/g, "");
  if (digits.length === 0 || digits.length % 2 !== 0 || /[^0-9a-f]/i.test(digits)) {
    throw new CommandError(`not a packet in hex [${text.slice(0, 60)}]; an even number of hexadecimal digits`);
  }
  const bytes = new Uint8Array(Buffer.from(digits, "hex"));
  const version = bytes[0]! >> 4;
  const etherType = version === 4 ? 0x0800 : version === 6 ? 0x86dd : 0;
  return { n: 1, etherType, bytes: bytes.subarray(0, ipLength(etherType, bytes)), missing: 0 };
}

function openExplainer(parsed: ParsedOptions, env: NodeJS.ProcessEnv) {
  const folder = shmFolder(env);
  const running = runningOptions(folder);
  const fwmarkOption = (name: string, fallback: number) => numberOption(parsed, name, fallback, -1, 2 ** 31 - 1);
  const deciderOptions: DeciderOptions = {
    hashMode: numberOption(parsed, "hash_mode", running.hashMode, 0, 65_535),
    noFlowFwmark: fwmarkOption("nolb_fwmark", running.noFlowFwmark),
    noTargetFwmark: fwmarkOption("notargets_fwmark", running.noTargetFwmark),
    isPromiscuousPing: parsed.values.has("promiscuous_ping") || running.isPromiscuousPing,
  };
  const isFlows = parsed.values.has("flow_shm") || (running.streamName === null && !parsed.values.has("tshm"));
  const single = isFlows ? null : regionName(parsed, "tshm", running.streamName ?? "");
  const flowsName = isFlows ? regionName(parsed, "flow_shm", running.flowsName ?? DEFAULT_FLOWS) : null;
  const flows = flowsName === null ? null : readFlowsOrFail(folder, flowsName);
  const streams = new StreamTables(folder);
  if (single !== null) streams.setNames([single]);
  const tierName = parsed.values.has("lbshm") ? regionName(parsed, "lbshm", "") : running.tierName;
  const tier = tierName === null ? null : new StreamTables(folder);
  tier?.setNames([tierName!]);
  const view = new TableView(folder, flowsName, streams, tier);
  const decider = new Decider({
    options: deciderOptions,
    classification: new Classification(),
    program: single === null ? new Int32Array(0) : null,
    udpEncapPort: single === null ? 0 : numberOption(parsed, "sctp_encap", running.udpEncapPort, 0, 65_535),
    streams,
    fragments: soloFragments(FRAGMENTS, () => performance.now()),
    quoted: new QuotedFragments(FRAGMENTS.lifetimeMs, () => performance.now()),
    tier,
    isHandedOver: () => false,
    hits: new Float64Array(COUNTER_RULE_SLOTS),
  });
  const explain = ({ n, etherType, bytes }: CapturedPacket): Explanation => {
    view.enter(decider);
    const fwmark = decider.decide(bytes, 0, bytes.length, etherType);
    const rule = flows?.rules[decider.rule]?.rule;
    const target = decider.stream < 0 ? null : (single ?? rule?.target ?? null);
    view.leave();
    return describeDecision(n, decisionOf(decider, fwmark), rule?.name ?? null, target);
  };
  const close = () => {
    view[Symbol.dispose]();
    streams[Symbol.dispose]();
    tier?.[Symbol.dispose]();
  };
  return { explain, close };
}

function readFlowsOrFail(folder: string, name: string): ReturnType<typeof readFlows> {
  try {
    return readFlows(folder, name);
  } catch (error) {
    if ((error as { code?: string }).code !== "ENOENT") throw error;
    throw new CommandError(`no flow rules [${name}] in ${folder}: no data plane has run; --tshm NAME asks one table`);
  }
}
