import { expect, test } from "vitest";
import { BALANCER_COMMANDS } from "./nfqlb/balancer-commands.js";
import { FLOW_COMMANDS } from "./nfqlb/flow-commands.js";
import { FWMARK_COMMAND } from "./nfqlb/fwmark-command.js";
import { type OptionSpec, parseOptions } from "./nfqlb/options.js";
import { STATS_COMMAND } from "./nfqlb/stats-command.js";
import { TABLE_COMMANDS } from "./nfqlb/table-commands.js";
import { TRACE_COMMAND } from "./nfqlb/trace-command.js";

const COMMANDS = [
  ...TABLE_COMMANDS,
  FWMARK_COMMAND,
  ...BALANCER_COMMANDS,
  ...FLOW_COMMANDS,
  TRACE_COMMAND,
  STATS_COMMAND,
];

const balancer =
  "mtu tun reassembler lbshm notargets_fwmark hash_mode queue qlength ft_shm ft_size ft_buckets ft_frag ft_ttl trace_address";
const rule = "name protocols dsts srcs dports sports match";
/** Options of nfqlb 1.2.0 by command; those that we have besides are marked as own. */
const UPSTREAM: Readonly<Record<string, string>> = {
  init: "shm M N ownfw",
  delete: "shm",
  show: "shm",
  activate: "shm index",
  deactivate: "shm index",
  fwmark: "shm proto src dst hash_mode",
  lb: `${balancer} sctp_encap tshm`,
  flowlb: `${balancer} promiscuous_ping nolb_fwmark`,
  "flow-set": `${rule} target prio udpencap`,
  "flow-delete": "name",
  "flow-list": "name",
  "trace-flow-set": rule,
  "trace-flow-delete": "name",
  "trace-flow-list": "name",
  trace: "mask selection trace_address",
  stats: "ft_shm",
};

/** What an option's beginning means, or null: unknown or ambiguous. */
function meaning(specs: readonly OptionSpec[], given: string): string | null {
  try {
    return [...parseOptions("x", specs, [`--${given}`, "value"]).values.keys()][0]!;
  } catch {
    return null;
  }
}

test("every abbreviation that upstream takes means the same here, whatever options we have besides", () => {
  for (const [name, text] of Object.entries(UPSTREAM)) {
    const { options } = COMMANDS.find((command) => command.name === name)!;
    const upstream = text.split(" ");
    const own = options.filter((spec) => spec.isOwn !== true).map((spec) => spec.name);
    expect(own.toSorted(), name).toEqual(upstream.toSorted());
    for (const option of upstream) {
      for (let length = 1; length <= option.length; length++) {
        const given = option.slice(0, length);
        const fitting = upstream.filter((other) => other.startsWith(given));
        if (fitting.length === 1 || given === option)
          expect(meaning(options, given), `${name} --${given}`).toBe(option);
      }
    }
  }
  expect(meaning(BALANCER_COMMANDS[0]!.options, "trace_r")).toBe("trace_rate");
  expect(meaning(BALANCER_COMMANDS[0]!.options, "ft")).toBeNull();
});

test("trace: a duration that no timer has is refused, not cut", async () => {
  const io = { out: () => {}, error: () => {}, isOutClosed: () => false, env: { NFQLB_SHM_DIR: "/nowhere" } };
  const run = async (duration: string) =>
    await TRACE_COMMAND.run(parseOptions("trace", TRACE_COMMAND.options, ["--mask=2", `--duration=${duration}`]), io);
  const refused = "seconds, for example 10 or 0.5, 2147483 at most";
  for (const duration of ["2147484", "9999999", "0", "-1"])
    await expect(run(duration), duration).rejects.toThrow(`Invalid --duration [${duration}]; ${refused}`);
  await expect(run("2147483")).rejects.not.toThrow("Invalid --duration");
});
