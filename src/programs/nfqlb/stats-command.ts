import { OUTCOME } from "#dataplane";
import {
  COUNTER_BATCHES,
  COUNTER_FRAGMENT_EXPIRED,
  COUNTER_FRAGMENT_INSERTS,
  COUNTER_FRAGMENT_LOOKUPS,
  COUNTER_FRAGMENT_REJECTED,
  COUNTER_KERNEL_ERRORS,
  COUNTER_OUTCOMES,
  COUNTER_OVERRUNS,
  COUNTER_PACKETS,
  COUNTER_SEND_FAILURES,
  COUNTER_STARTS,
  CounterFile,
  SAMPLE_QUEUE_DROPPED,
  SAMPLE_USER_DROPPED,
  SAMPLE_WAITING,
} from "#tables";
import { type Command, CommandError, shmFolder } from "./command.js";
import { COUNTERS } from "./names.js";
import { runningOptions } from "./running.js";

/** `nfqlb stats`: the fragment statistics in upstream's keys and order (as valid JSON); `--all`: every counter. */
export const STATS_COMMAND: Command = {
  name: "stats",
  summary: "Print statistics as JSON: of fragments; with --all every counter",
  options: [
    { name: "ft_shm", kind: "value", default: "ftshm", help: "Accepted; the counters of the data plane are read" },
    { name: "all", kind: "switch", help: "Packets by outcome, batches, losses" },
  ],
  run({ values }, io) {
    const folder = shmFolder(io.env);
    using counters = openCounters(folder, values.get("ft_shm") ?? "ftshm");
    const { fragments } = runningOptions(folder);
    if (values.has("all")) {
      const outcomes = Object.entries(OUTCOME).map(([name, index]) => [name, counters.sum(COUNTER_OUTCOMES + index)]);
      const all = {
        packets: counters.sum(COUNTER_PACKETS),
        batches: counters.sum(COUNTER_BATCHES),
        outcomes: Object.fromEntries(outcomes),
        overruns: counters.sum(COUNTER_OVERRUNS),
        sendFailures: counters.sum(COUNTER_SEND_FAILURES),
        kernelErrors: counters.sum(COUNTER_KERNEL_ERRORS),
        lost: {
          queueFull: counters.sumSample(SAMPLE_QUEUE_DROPPED),
          bufferFull: counters.sumSample(SAMPLE_USER_DROPPED),
        },
        waiting: counters.sumSample(SAMPLE_WAITING),
        threadStarts: counters.sum(COUNTER_STARTS),
      };
      io.out(`${JSON.stringify(all, null, 2)}\n`);
      return 0;
    }
    const rejected = counters.sum(COUNTER_FRAGMENT_REJECTED);
    const fields: readonly (readonly [string, number])[] = [
      ["hsize", fragments.size],
      ["ttlMillis", fragments.lifetimeMs],
      ["collisions", 0],
      ["inserts", counters.sum(COUNTER_FRAGMENT_INSERTS)],
      ["rejected", rejected],
      ["lookups", counters.sum(COUNTER_FRAGMENT_LOOKUPS)],
      ["objGC", counters.sum(COUNTER_FRAGMENT_EXPIRED)],
      ["mtu", fragments.mtu],
      ["bucketsMax", fragments.buckets],
      ["bucketsAllocated", 0],
      ["bucketsUsed", 0],
      ["fragsMax", 0],
      ["fragsAllocated", 0],
      ["fragsDiscarded", 0],
      ["reAssembled", 0],
    ];
    const lines = fields.map(([name, value]) => `  ${`"${name}":`.padEnd(19)} ${value}`);
    io.out(`{\n${lines.join(",\n")}\n}\n`);
    return 0;
  },
};

function openCounters(folder: string, shownName: string): CounterFile {
  try {
    return CounterFile.open(folder, COUNTERS);
  } catch (error) {
    if ((error as { code?: string }).code !== "ENOENT") throw error;
    throw new CommandError(`FAILED mapSharedData: ${shownName}`);
  }
}
