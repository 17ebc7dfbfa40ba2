import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { VIPS } from "./flows.js";
import { type Host, ip, makeHost } from "./namespace.js";
import type { Topology } from "./topology.js";
import { shell, stopServing } from "./wire.js";

/**
 * Another balancer beside that of a topology: with links of its own to the router and to each target (172.18.N.0/24), and
 * one between the balancers (`tier`). The router sends later fragments to it and everything else to the first one.
 */
export class SecondBalancer {
  /** Its tables and counters. */
  readonly folder: string;
  readonly #host: Host;
  readonly #topology: Topology;

  private constructor(host: Host, topology: Topology) {
    this.#host = host;
    this.#topology = topology;
    this.folder = join(topology.folder, "second");
  }

  static async create(topology: Topology): Promise<SecondBalancer> {
    const second = new SecondBalancer(await makeHost(), topology);
    mkdirSync(second.folder);
    second.#connect();
    return second;
  }

  /** Runs commands as an operator types them, on this balancer. */
  shell(script: string): string {
    return shell(script, { NFQLB_SHM_DIR: this.folder }, ["nsenter", "-t", String(this.#host.pid), "-n"]);
  }

  #connect(): void {
    const { router, targets } = this.#topology.hosts;
    const host = this.#host;
    this.shell(`for f in ipv4/ip_forward ipv6/conf/all/forwarding; do echo 1 > /proc/sys/net/$f; done
      for f in all default; do echo 0 > /proc/sys/net/ipv4/conf/$f/rp_filter; done`);
    ip(
      `link add tier type veth peer name tier netns ${host.pid}`,
      "addr add 192.168.4.1/24 dev tier",
      "addr add fd04::1/64 dev tier nodad",
      "link set tier up",
    );
    host.ip("addr add 192.168.4.2/24 dev tier", "addr add fd04::2/64 dev tier nodad", "link set tier up");
    host.ip(
      `link add uplink type veth peer name lb2 netns ${router.pid}`,
      "addr add 192.168.3.1/24 dev uplink",
      "addr add fd03::1/64 dev uplink nodad",
      "link set uplink up",
    );
    router.ip("addr add 192.168.3.254/24 dev lb2", "addr add fd03::fe/64 dev lb2 nodad", "link set lb2 up");
    host.ip("route add default via 192.168.3.254", "route add default via fd03::fe");
    targets.forEach((target, i) => {
      const n = i + 1;
      host.ip(
        `link add t${n} type veth peer name eth2 netns ${target.pid}`,
        `addr add 172.18.${n}.1/24 dev t${n}`,
        `addr add fd18:${n}::1/64 dev t${n} nodad`,
        `link set t${n} up`,
      );
      target.ip(`addr add 172.18.${n}.2/24 dev eth2`, `addr add fd18:${n}::2/64 dev eth2 nodad`, "link set eth2 up");
      target.run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/conf/eth2/rp_filter");
    });
    router.run(
      "sh",
      "-euc",
      `nft add table inet split
      nft add chain inet split pre '{ type filter hook prerouting priority -450; policy accept; }'
      nft add rule inet split pre 'ip daddr ${VIPS[4]} ip frag-off & 0x1fff != 0 meta mark set 2'
      nft add rule inet split pre 'ip6 daddr ${VIPS[6]} frag frag-off != 0 meta mark set 2'
      ip rule add fwmark 2 table 2
      ip -6 rule add fwmark 2 table 2
      ip route add default via 192.168.3.1 table 2
      ip -6 route add default via fd03::1 table 2`,
    );
  }

  /** Ends its data plane, and the router's preference for it. */
  async close(): Promise<void> {
    await stopServing(this.folder);
    this.#topology.hosts.router.run("nft", "delete", "table", "inet", "split");
    this.#host.close();
  }
}
