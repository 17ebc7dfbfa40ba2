import { DEFAULT_OPTIONS, type QueueRange, type RunningOptions } from "../nfqlb/running.js";

type Wish = { readonly queues: QueueRange; readonly queueLength: number };

/** What a data plane of ours is started with. */
export function dataPlaneArguments({ queues, queueLength }: Wish): readonly string[] {
  return [
    "flowlb",
    "--promiscuous_ping",
    `--queue=${queues.first}:${queues.last}`,
    `--qlength=${queueLength}`,
    "--hash_mode=0",
  ];
}

/** The same as such a data plane tells of itself; one that tells otherwise is not ours. */
export function dataPlaneOptions({ queues, queueLength }: Wish): RunningOptions {
  return { ...DEFAULT_OPTIONS, queues, queueLength, isPromiscuousPing: true, hashMode: 0 };
}
