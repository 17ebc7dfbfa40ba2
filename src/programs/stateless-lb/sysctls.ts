import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const FOLDER = "/proc/sys";

/** A kernel parameter of the network namespace and what it has to be. */
export type Sysctl = {
  /** As sysctl(8) has it: a dot in the name of an interface is a slash. */
  readonly name: string;
  readonly path: string;
  readonly value: string;
  /** `needed`: packets are lost otherwise; `wanted`: something works less well. */
  readonly need: "needed" | "wanted";
  readonly why: string;
};

/** What every namespace with a load balancer needs; the reference's init container sets the same. */
const FIXED: readonly Omit<Sysctl, "path">[] = [
  { name: "net.ipv4.conf.all.forwarding", value: "1", need: "needed", why: "packets to VIPs are forwarded" },
  { name: "net.ipv6.conf.all.forwarding", value: "1", need: "needed", why: "packets to VIPs are forwarded" },
  { name: "net.ipv4.conf.default.forwarding", value: "1", need: "needed", why: "the same for interfaces to come" },
  { name: "net.ipv4.conf.all.rp_filter", value: "0", need: "needed", why: "answers do not come back this way" },
  { name: "net.ipv4.conf.default.rp_filter", value: "0", need: "needed", why: "the same for interfaces to come" },
  { name: "net.ipv4.fwmark_reflect", value: "1", need: "wanted", why: "path MTU answers find the target's route" },
  { name: "net.ipv6.fwmark_reflect", value: "1", need: "wanted", why: "path MTU answers find the target's route" },
  { name: "net.ipv4.fib_multipath_hash_policy", value: "1", need: "wanted", why: "gateways share flows by ports too" },
  { name: "net.ipv6.fib_multipath_hash_policy", value: "1", need: "wanted", why: "gateways share flows by ports too" },
  {
    name: "net.ipv4.ip_local_port_range",
    value: "49152 65535",
    need: "wanted",
    why: "own ports stay clear of services",
  },
];

/** Of each interface. IPv6 goes by net.ipv6.conf.all.forwarding alone (ip6_forward, net/ipv6/ip6_output.c, v6.18). */
const PER_INTERFACE = [
  { key: "forwarding", value: "1", why: "packets to VIPs that come in here are forwarded" },
  { key: "rp_filter", value: "0", why: "answers do not come back this way" },
] as const;

/** All of them for this namespace, those of the interfaces that are there included. Families it lacks are left out. */
export function wantedSysctls(): readonly Sysctl[] {
  const fixed = FIXED.map((one) => ({ ...one, path: join(FOLDER, one.name.replaceAll(".", "/")) }));
  const interfaces = list(join(FOLDER, "net/ipv4/conf")).filter((name) => name !== "all" && name !== "default");
  const perInterface = interfaces.flatMap((name) =>
    PER_INTERFACE.map(({ key, ...rest }): Sysctl => {
      const path = join(FOLDER, "net/ipv4/conf", name, key);
      return { name: `net.ipv4.conf.${name.replaceAll(".", "/")}.${key}`, path, need: "needed", ...rest };
    }),
  );
  return [...fixed, ...perInterface].filter(({ path }) => readSysctl(path) !== null);
}

/** The value in force, words separated by single blanks; null: there is no such parameter. */
export function readSysctl(path: string): string | null {
  try {
    return readFileSync(path, "utf8").trim().replace(/\s+/g, " ");
  } catch (error) {
    if ((error as { code?: string }).code === "ENOENT") return null;
    throw error;
  }
}

/** @throws EROFS, EACCES, EPERM: /proc/sys cannot be written to here */
export function writeSysctl({ path, value }: Sysctl): void {
  writeFileSync(path, value);
}

function list(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
