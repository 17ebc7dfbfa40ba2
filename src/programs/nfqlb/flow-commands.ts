import { type Command, CommandError, type Io } from "./command.js";
import { DEFAULT_FLOW_ADDRESS, parseFlowAddress } from "./flow-address.js";
import { sendFlowRequest } from "./flow-client.js";
import type { OptionSpec, ParsedOptions } from "./options.js";

/** Exit code of a command whose request was refused, upstream's -1. */
const REFUSED = 255;
const MAX_LIST_CHARACTERS = 1000;
const MAX_TARGET_CHARACTERS = 255;
const LIST_OPTIONS = ["protocols", "dsts", "srcs", "dports", "sports", "match"];

const nameOption: OptionSpec = { name: "name", kind: "value", help: "Name of the flow" };

/** What packets a rule takes. */
const matchOptions: readonly OptionSpec[] = [
  { name: "protocols", kind: "value", help: "Protocols, of tcp,udp,sctp" },
  { name: "dsts", kind: "value", help: "Destination prefixes, a.b.c.d/n,v6/n" },
  { name: "srcs", kind: "value", help: "Source prefixes" },
  { name: "dports", kind: "value", help: "Destination ports, n or a-b" },
  { name: "sports", kind: "value", help: "Source ports" },
  { name: "match", kind: "value", help: "Byte matches, for example tcp[13:1]&0x12=0x02" },
];

/** What only a rule that leads to a table has. */
const targetOptions: readonly OptionSpec[] = [
  { name: "target", kind: "value", isRequired: true, help: "Table (shared memory) that takes the flow" },
  { name: "prio", kind: "value", default: "0", help: "Priority; higher is asked first" },
  { name: "udpencap", kind: "value", help: "UDP port of encapsulated SCTP" },
];

/**
 * Set, delete, list and list-names of one kind of rules.
 * @param kind `flow`, or `trace-flow` for rules that select what `trace` prints
 * @param prefix what the flow socket's actions begin with
 */
function ruleCommands(
  kind: string,
  prefix: string,
  what: string,
  setOptions: readonly OptionSpec[],
): readonly Command[] {
  const request = (io: Io, action: string, values: Iterable<readonly [string, string]> = []) =>
    send(io, new Map([["action", `${prefix}${action}`], ...values]));
  return [
    {
      name: `${kind}-set`,
      summary: `Add or replace a ${what}`,
      options: [{ ...nameOption, isRequired: true }, ...setOptions],
      async run(options, io) {
        checkFlowOptions(options);
        const values = [...options.values].map(
          ([name, value]) => [name === "prio" ? "priority" : name, value] as const,
        );
        return report(await request(io, "set", values), io);
      },
    },
    {
      name: `${kind}-delete`,
      summary: `Delete a ${what}`,
      options: [{ ...nameOption, isRequired: true }],
      async run({ values }, io) {
        return report(await request(io, "delete", values), io);
      },
    },
    {
      name: `${kind}-list`,
      summary: `Print the ${what}s, or one, as JSON`,
      options: [nameOption],
      async run({ values }, io) {
        io.out(await request(io, "list", values));
        return 0;
      },
    },
    {
      name: `${kind}-list-names`,
      summary: `Print the names of the ${what}s as JSON`,
      options: [],
      async run(_options, io) {
        io.out(await request(io, "list-names"));
        return 0;
      },
    },
  ];
}

/** What upstream's client refuses before it asks. @throws {CommandError} in upstream's words */
function checkFlowOptions({ values }: ParsedOptions): void {
  if ((values.get("target")?.length ?? 0) > MAX_TARGET_CHARACTERS) throw new CommandError("target too long");
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

export const FLOW_COMMANDS: readonly Command[] = [
  ...ruleCommands("flow", "", "flow rule", [...targetOptions, ...matchOptions]),
  ...ruleCommands("trace-flow", "trace-", "trace rule", matchOptions),
];
