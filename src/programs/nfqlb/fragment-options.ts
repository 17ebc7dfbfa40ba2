import { randomBytes } from "node:crypto";
import { createFragmentMemory, type FragmentMemory, FragmentSweeper, type TunDevice } from "#dataplane";
import { closeDescriptor, interfaceIndex, interfaceMtu, openTun } from "#sys";
import { COUNTER_FRAGMENT_LIVE, COUNTER_FRAGMENT_LIVE_EXTRA, COUNTER_FRAGMENT_SWEPT, type CounterFile } from "#tables";
import type { Beat } from "./beat.js";
import { CommandError, numberOption } from "./command.js";
import type { OptionSpec, ParsedOptions } from "./options.js";

const MAX_U32 = 2 ** 32 - 1;
const MAX_RECORDS = 1 << 22;
const MIN_MTU = 576;
const MAX_MTU = 65_535;
/** Memory for held fragments of all threads; beyond it a wish is a mistake. */
const MAX_HELD_BYTES = 2 ** 30;
/** How often records that are over are freed and counted; statistics are no older than this. */
const SWEEP_MS = 50;
/** Beats between rounds while none finds a record. */
const EMPTY_BEATS = 3;

/** Options about fragments, upstream's but for the last. */
export const FRAGMENT_OPTIONS: readonly OptionSpec[] = [
  { name: "mtu", kind: "value", default: "1500", help: "MTU of the traffic, at least 576" },
  { name: "tun", kind: "value", help: "Tun device that held fragments come back through; without it none are held" },
  { name: "reassembler", kind: "value", default: "0", help: "Not 0: a complete packet is forgotten at once" },
  { name: "lbshm", kind: "value", help: "Table of the load balancer tier, for fragments" },
  { name: "ft_shm", kind: "value", default: "ftshm", help: "Accepted; statistics are in the counters" },
  { name: "ft_size", kind: "value", default: "500", help: "Fragment records" },
  { name: "ft_buckets", kind: "value", default: "500", help: "Further fragment records, where several meet" },
  {
    name: "ft_frag",
    kind: "value",
    default: "100",
    help: "Fragments held at most, per queue; with --tun; each for some ft_frag / (early fragments a second)",
  },
  { name: "ft_ttl", kind: "value", default: "200", help: "Lifetime of records and held fragments in ms" },
  {
    name: "tier_dev",
    kind: "value",
    isOwn: true,
    help: "Devices, by comma, on which other balancers of the tier hand over fragments",
  },
];

/** How a data plane treats fragments; it leaves this beside its counters. */
export type FragmentSettings = {
  /** Records: --ft_size and --ft_buckets; their lifetime, which is that of held fragments as well. */
  readonly size: number;
  readonly buckets: number;
  readonly lifetimeMs: number;
  /** --reassembler is given and not 0. */
  readonly isForgetful: boolean;
  readonly mtu: number;
  /** Fragments held at most, per queue; 0 = none are held. */
  readonly slots: number;
};

/** @throws {CommandError} a value that cannot be */
export function readFragmentSettings(options: ParsedOptions, queues: number): FragmentSettings {
  const slots = numberOption(options, "ft_frag", 100, 0, MAX_RECORDS);
  const settings: FragmentSettings = {
    size: numberOption(options, "ft_size", 500, 1, MAX_RECORDS),
    buckets: numberOption(options, "ft_buckets", 500, 0, MAX_RECORDS),
    lifetimeMs: numberOption(options, "ft_ttl", 200, 1, MAX_U32),
    isForgetful: numberOption(options, "reassembler", 0, 0, MAX_U32) > 0,
    mtu: numberOption(options, "mtu", 1500, MIN_MTU, MAX_MTU),
    slots: options.values.has("tun") ? slots : 0,
  };
  const heldBytes = settings.slots * settings.mtu * queues;
  if (heldBytes > MAX_HELD_BYTES)
    throw new CommandError(
      `--ft_frag=${slots}: ${queues} queues would take ${heldBytes} bytes, ${MAX_HELD_BYTES} at most`,
    );
  return settings;
}

/** Upstream's line at the start. */
export function fragmentLine({ size, buckets, slots, mtu, lifetimeMs }: FragmentSettings): string {
  return `FragTable; size=${size}, buckets=${buckets}, frag=${slots}, mtu=${mtu}, ttl=${lifetimeMs}\n`;
}

const TUN_ERRORS: Readonly<Record<string, string>> = {
  ENODEV: "no such device; make it with: ip tuntap add NAME mode tun",
  EINVAL: "no tun device",
  EBUSY: "another program is attached to it",
};

/** The device of --tun, or null without it. The caller disposes of it. @throws {CommandError} it cannot be used */
export function openTunDevice(options: ParsedOptions, { mtu }: FragmentSettings): (TunDevice & Disposable) | null {
  const name = options.values.get("tun");
  if (name === undefined) return null;
  try {
    const deviceMtu = interfaceMtu(name);
    if (deviceMtu < mtu) throw new CommandError(`Tun mtu too small; ${deviceMtu} < ${mtu}`);
    const index = interfaceIndex(name);
    const fd = openTun(name);
    return { fd, interfaceIndex: index, [Symbol.dispose]: () => closeDescriptor(fd) };
  } catch (error) {
    const { errno } = error as { errno?: string };
    if (errno === undefined) throw error;
    const advice = (TUN_ERRORS[errno] ?? errno).replace("NAME", name);
    throw new CommandError(`--tun=${name}: ${advice}`);
  }
}

/** Numbers of the interfaces of --tier_dev. @throws {CommandError} one does not exist */
export function readTierInterfaces(options: ParsedOptions): readonly number[] {
  const names = options.values.get("tier_dev")?.split(",") ?? [];
  return names.map((name) => {
    try {
      return interfaceIndex(name);
    } catch {
      throw new CommandError(`--tier_dev: no device [${name}]`);
    }
  });
}

/** The memory that the threads share. */
export function makeFragmentMemory(settings: FragmentSettings, queues: number): FragmentMemory {
  return createFragmentMemory(settings, queues, randomBytes(4).readUInt32LE());
}

/** Frees outlived records and publishes how many there are, until the result is called. */
export function sweepFragments(memory: FragmentMemory, counters: CounterFile, beat: Beat): () => void {
  const sweeper = new FragmentSweeper(memory);
  const block = counters.block(0).counters;
  let timer: NodeJS.Timeout | null = null;
  const sweep = () => {
    const isRoundOver = sweeper.step();
    block[COUNTER_FRAGMENT_SWEPT] = sweeper.expired;
    block[COUNTER_FRAGMENT_LIVE] = sweeper.live;
    block[COUNTER_FRAGMENT_LIVE_EXTRA] = sweeper.liveExtra;
    timer = isRoundOver && sweeper.live === 0 ? null : setTimeout(sweep, SWEEP_MS);
  };
  sweep();
  const endBeats = beat.every(EMPTY_BEATS, () => {
    if (timer === null) sweep();
  });
  return () => {
    endBeats();
    if (timer !== null) clearTimeout(timer);
  };
}
