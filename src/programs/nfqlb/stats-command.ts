import { OUTCOME } from "#dataplane";
import {
  COUNTER_BATCHES,
  COUNTER_FRAGMENT_BUCKETS,
  COUNTER_FRAGMENT_COLLISIONS,
  COUNTER_FRAGMENT_COMPLETED,
  COUNTER_FRAGMENT_CUT,
  COUNTER_FRAGMENT_DISCARDED,
  COUNTER_FRAGMENT_EXPIRED,
  COUNTER_FRAGMENT_HELD,
  COUNTER_FRAGMENT_HELD_NOW,
  COUNTER_FRAGMENT_INSERTS,
  COUNTER_FRAGMENT_LIVE,
  COUNTER_FRAGMENT_LIVE_EXTRA,
  COUNTER_FRAGMENT_LOOKUPS,
  COUNTER_FRAGMENT_REINJECT_FAILURES,
  COUNTER_FRAGMENT_REJECTED,
  COUNTER_FRAGMENT_STRAY,
  COUNTER_FRAGMENT_SWEPT,
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
import { optionsFrom } from "./running.js";

/** `nfqlb stats`: the fragment statistics in upstream's keys and order (as valid JSON); `--all`: every counter. */
export const STATS_COMMAND: Command = {
  name: "stats",
  summary: "Print statistics as JSON: of fragments; with --all every counter",
  options: [
    { name: "ft_shm", kind: "value", default: "ftshm", help: "Accepted; the counters of the data plane are read" },
    { name: "all", kind: "switch", isOwn: true, help: "Packets by outcome, batches, losses" },
  ],
  run({ values }, io) {
    const folder = shmFolder(io.env);
    using counters = openCounters(folder, values.get("ft_shm") ?? "ftshm");
    const { fragments } = optionsFrom(counters.settings);
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
        fragments: fragmentCounters(counters),
      };
      io.out(`${JSON.stringify(all, null, 2)}\n`);
      return 0;
    }
    const fields: readonly (readonly [string, number])[] = [
      ["hsize", fragments.size],
      ["ttlMillis", fragments.lifetimeMs],
      ["collisions", counters.sum(COUNTER_FRAGMENT_COLLISIONS)],
      ["inserts", counters.sum(COUNTER_FRAGMENT_INSERTS)],
      ["rejected", counters.sum(COUNTER_FRAGMENT_REJECTED)],
      ["lookups", counters.sum(COUNTER_FRAGMENT_LOOKUPS)],
      ["objGC", expired(counters)],
      ["mtu", fragments.mtu],
      ["bucketsMax", fragments.buckets],
      ["bucketsAllocated", counters.sum(COUNTER_FRAGMENT_BUCKETS)],
      ["bucketsUsed", counters.sum(COUNTER_FRAGMENT_LIVE_EXTRA)],
      ["fragsMax", fragments.slots * counters.workers],
      ["fragsAllocated", counters.sum(COUNTER_FRAGMENT_HELD)],
      ["fragsDiscarded", counters.sum(COUNTER_FRAGMENT_DISCARDED)],
      ["reAssembled", counters.sum(COUNTER_FRAGMENT_COMPLETED)],
    ];
    const lines = fields.map(([name, value]) => `  ${`"${name}":`.padEnd(19)} ${value}`);
    io.out(`{\n${lines.join(",\n")}\n}\n`);
    return 0;
  },
};

/** Records that outlived their time, whoever freed them. */
function expired(counters: CounterFile): number {
  return counters.sum(COUNTER_FRAGMENT_EXPIRED) + counters.sum(COUNTER_FRAGMENT_SWEPT);
}

/** Every counter about fragments, by its own name. */
function fragmentCounters(counters: CounterFile): Readonly<Record<string, number>> {
  return {
    lookups: counters.sum(COUNTER_FRAGMENT_LOOKUPS),
    records: counters.sum(COUNTER_FRAGMENT_INSERTS),
    recordsNow: counters.sum(COUNTER_FRAGMENT_LIVE),
    completed: counters.sum(COUNTER_FRAGMENT_COMPLETED),
    expired: expired(counters),
    displaced: counters.sum(COUNTER_FRAGMENT_REJECTED),
    held: counters.sum(COUNTER_FRAGMENT_HELD),
    heldNow: counters.sum(COUNTER_FRAGMENT_HELD_NOW),
    heldDiscarded: counters.sum(COUNTER_FRAGMENT_DISCARDED),
    tooLongToHold: counters.sum(COUNTER_FRAGMENT_CUT),
    reinjectFailures: counters.sum(COUNTER_FRAGMENT_REINJECT_FAILURES),
    reinjectedInVain: counters.sum(COUNTER_FRAGMENT_STRAY),
  };
}

function openCounters(folder: string, shownName: string): CounterFile {
  try {
    return CounterFile.open(folder, COUNTERS);
  } catch (error) {
    if ((error as { code?: string }).code !== "ENOENT") throw error;
    throw new CommandError(`FAILED mapSharedData: ${shownName}`);
  }
}
