import { type Command, CommandError, type Io } from "./command.js";
import { DEFAULT_FLOW_ADDRESS, parseFlowAddress, sendFlowRequest } from "./flow-socket.js";
import type { OptionSpec, ParsedOptions } from "./options.js";

/** Exit code of a command whose request was refused, upstream's -1. */
const REFUSED = 255;
const MAX_LIST_CHARACTERS = 1000;
const MAX_TARGET_CHARACTERS = 255;
const LIST_OPTIONS = ["protocols", "dsts", "srcs", "dports", "sports", "match"];

const nameOption: OptionSpec = { name: "name", kind: "value", help: "Name of the flow" };

const set: Command = {
  name: "flow-set",
  summary: "Add or replace a flow rule",
  options: [
    { ...nameOption, isRequired: true },
    { name: "target", kind: "value", isRequired: true, help: "Table (shared memory) that takes the flow" },
    { name: "prio", kind: "value", default: "0", help: "Priority; higher is asked first" },
    { name: "protocols", kind: "value", help: "Protocols, of tcp,udp,sctp" },
    { name: "dsts", kind: "value", help: "Destination prefixes, a.b.c.d/n,v6/n" },
    { name: "srcs", kind: "value", help: "Source prefixes" },
    { name: "dports", kind: "value", help: "Destination ports, n or a-b" },
    { name: "sports", kind: "value", help: "Source ports" },
    { name: "match", kind: "value", help: "Byte matches, for example tcp[13:1]&0x12=0x02" },
    { name: "udpencap", kind: "value", help: "UDP port of encapsulated SCTP" },
  ],
  async run(options, io) {
    checkFlowOptions(options);
    const request = new Map([["action", "set"]]);
    for (const [name, value] of options.values) request.set(name === "prio" ? "priority" : name, value);
    return report(await send(io, request), io);
  },
};

const remove: Command = {
  name: "flow-delete",
  summary: "Delete a flow rule",
  options: [{ ...nameOption, isRequired: true }],
  async run(options, io) {
    return report(await send(io, new Map([["action", "delete"], ...options.values])), io);
  },
};

const list: Command = {
  name: "flow-list",
  summary: "Print the flow rules, or one, as JSON",
  options: [nameOption],
  async run(options, io) {
    io.out(await send(io, new Map([["action", "list"], ...options.values])));
    return 0;
  },
};

const listNames: Command = {
  name: "flow-list-names",
  summary: "Print the names of the flow rules as JSON",
  options: [],
  async run(_options, io) {
    io.out(await send(io, new Map([["action", "list-names"]])));
    return 0;
  },
};

/** What upstream's client refuses before it asks. @throws {CommandError} in upstream's words */
function checkFlowOptions({ values }: ParsedOptions): void {
  if (values.get("target")!.length > MAX_TARGET_CHARACTERS) throw new CommandError("target too long");
  for (const option of LIST_OPTIONS) {
    if ((values.get(option)?.length ?? 0) > MAX_LIST_CHARACTERS) throw new CommandError(`${option} too long`);
  }
  const protocols = values.get("protocols");
  if (protocols === undefined && (values.has("dports") || values.has("sports"))) {
    throw new CommandError("ports specified without protocols");
  }
  if (!values.has("udpencap")) return;
  if (protocols === undefined) throw new CommandError("udpencap specified without protocols");
  if (!protocols.toLowerCase().includes("sctp")) throw new CommandError("udpencap specified without sctp");
}

function send(io: Io, request: ReadonlyMap<string, string>): Promise<string> {
  return sendFlowRequest(parseFlowAddress(io.env["NFQLB_FLOW_ADDRESS"] || DEFAULT_FLOW_ADDRESS), request);
}

function report(reply: string, io: Io): number {
  io.out(`${reply}\n`);
  return reply.startsWith("OK") ? 0 : REFUSED;
}

export const FLOW_COMMANDS: readonly Command[] = [set, remove, list, listNames];
