import { release } from "node:os";
import { NetlinkError } from "#netlink";
import { type Link, RouteConnection } from "#netlink/route";
import { Steering } from "#steering";
import { hasLargeReceiveOffload } from "#sys";
import { advice, type Check, fault, ok, unknown } from "./doctor-check.js";
import { readSysctl } from "./sysctls.js";

const OLDEST_KERNEL = [5, 6] as const;
/** Packets put together beyond this have no length in their IP header (BIG TCP). */
const LARGEST_IP_PACKET = 65_536;
const NEARLY_FULL = 0.9;

/** Kernel version, policy routing, queueing, connection tracking, offloads. */
export function checkKernel(): readonly Check[] {
  using route = new RouteConnection();
  const offloads = checkOffloads(route.links(), hasLargeReceiveOffload);
  return [checkVersion(), ...checkRouting(route), checkQueueing(), checkConntrack(readSysctl), ...offloads];
}

function checkVersion(): Check {
  const [major = 0, minor = 0] = release().split(".").map(Number);
  const [oldestMajor, oldestMinor] = OLDEST_KERNEL;
  const isNewEnough = major > oldestMajor || (major === oldestMajor && minor >= oldestMinor);
  const what = "kernel version";
  return isNewEnough ? ok(what, release()) : fault(what, release(), `a kernel of ${OLDEST_KERNEL.join(".")} or later`);
}

function checkRouting(route: RouteConnection): readonly Check[] {
  return ([4, 6] as const).map((family) => {
    const what = `policy routing, IPv${family}`;
    try {
      return ok(what, `${route.rules(family).length} rules`);
    } catch (error) {
      const option = family === 4 ? "CONFIG_IP_MULTIPLE_TABLES" : "CONFIG_IPV6 and CONFIG_IPV6_MULTIPLE_TABLES";
      return fault(what, (error as Error).message, `a kernel with ${option}`);
    }
  });
}

/** Tries it in a transaction that leaves nothing behind. */
function checkQueueing(): Check {
  const what = "packets can be queued (nftables)";
  try {
    using steering = new Steering();
    return ok(what, `by the ${steering.features.queueStatement} statement`);
  } catch (error) {
    const { message } = error as Error;
    if (error instanceof NetlinkError && error.errno === "EPERM")
      return unknown(what, "not permitted to look", "run doctor with CAP_NET_ADMIN");
    return fault(what, message, "modprobe nfnetlink_queue nft_queue (or nft_compat xt_NFQUEUE) on the host");
  }
}

/**
 * A load balancer sees one direction of a connection only, and its table of connections fills up under load.
 * @param read the text of a sysctl, or null
 */
export function checkConntrack(read: (path: string) => string | null): Check {
  const what = "connection tracking";
  const count = Number(read("/proc/sys/net/netfilter/nf_conntrack_count") ?? 0);
  const most = Number(read("/proc/sys/net/netfilter/nf_conntrack_max") ?? 0);
  if (count === 0) return ok(what, "tracks nothing here");
  const found = `${count} of at most ${most} connections are tracked in this namespace`;
  const mend = "no NAT and no ct rules in this namespace (nft list ruleset), or notrack for the VIPs ahead of them";
  return count >= most * NEARLY_FULL
    ? fault(
        what,
        `${found}: nearly full, new ones are dropped`,
        `${mend}; else sysctl -w net.netfilter.nf_conntrack_max=…`,
      )
    : advice(what, found, mend);
}

/** @param hasLro whether large receive offload is on, of an interface */
export function checkOffloads(
  all: readonly Pick<Link, "name" | "isUp" | "groMaxBytes">[],
  hasLro: (name: string) => boolean,
): readonly Check[] {
  const links = all.filter(({ isUp, name }) => isUp && name !== "lo");
  const traps = links.flatMap(({ name, groMaxBytes }) => checkLink(name, groMaxBytes, hasLro(name)));
  return traps.length > 0 ? traps : [ok("offloads", `no traps on ${links.length} interfaces`)];
}

function checkLink(name: string, groMaxBytes: number, hasLro: boolean): readonly Check[] {
  const what = `offloads of ${name}`;
  const found: Check[] = [];
  if (hasLro)
    found.push(fault(what, "large receive offload is on: forwarded packets are damaged", `ethtool -K ${name} lro off`));
  if (groMaxBytes > LARGEST_IP_PACKET) {
    const mend = `ip link set ${name} gro_max_size ${LARGEST_IP_PACKET}`;
    found.push(advice(what, `BIG TCP: packets of up to ${groMaxBytes} bytes are put together`, mend));
  }
  return found;
}
