import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Agent } from "./agent.js";
import { ROOT } from "./bundled.js";
import { type Host, ip, makeHost, run } from "./namespace.js";
import { identity } from "./packets.js";

export const CLIENT = { 4: "192.168.1.2", 6: "fd01::2" } as const;
const ROUTER = { 4: "192.168.2.254", 6: "fd02::fe" } as const;
export const TARGET = { 4: "172.16.0.2", 6: "fd16::2" } as const;
export const LINE_VIPS = { 4: "10.0.0.1", 6: "2001:db8::1" } as const;
/** A second VIP of the target. */
export const OTHER_VIPS = { 4: "10.0.0.9", 6: "2001:db8::9" } as const;
/** Interface of this namespace to the target. */
export const TARGET_LINK = "load-balan-1";
const DEADLINE_MS = 10_000;

type Echo = { readonly isEqual: boolean; readonly problem?: string };

/**
 * client ── router ── this namespace ── target: all packets pass here, both ways, and nothing is queued. The target has the
 * VIPs; packets to them are routed to it.
 */
export class Line {
  readonly client: Host;
  readonly router: Host;
  readonly target: Host;
  readonly packets: Readonly<Record<"client" | "target", Agent>>;
  readonly sockets: Readonly<Record<"client" | "target", Agent>>;

  private constructor(hosts: readonly [Host, Host, Host], packets: Line["packets"], sockets: Line["sockets"]) {
    [this.client, this.router, this.target] = hosts;
    this.packets = packets;
    this.sockets = sockets;
  }

  /** Makes the hosts and starts what runs in them. The calling process is in fresh namespaces already. */
  static async create(): Promise<Line> {
    const [client, router, target] = await Promise.all([makeHost(), makeHost(), makeHost()]);
    connectHosts(client, router, target);
    const start = (host: Host, name: string) => Agent.start(host, join(ROOT, "build", `${name}-agent.cjs`));
    const agents = await Promise.all([
      start(client, "packet"),
      start(target, "packet"),
      start(client, "socket"),
      start(target, "socket"),
    ]);
    const [clientPackets, targetPackets, clientSockets, targetSockets] = agents;
    const packets = { client: clientPackets, target: targetPackets };
    const line = new Line([client, router, target], packets, { client: clientSockets, target: targetSockets });
    for (const address of [...Object.values(LINE_VIPS), ...Object.values(OTHER_VIPS)])
      await line.#untilReachable(address);
    return line;
  }

  /** Neighbors are found, and IPv6 addresses usable. */
  async #untilReachable(address: string): Promise<void> {
    await this.serve(address, 7);
    const endMs = performance.now() + DEADLINE_MS;
    while (!(await this.echo("udp", address, 7, 10, 100)).isEqual) {
      if (performance.now() > endMs) throw new Error(`${address} is not reachable`);
    }
  }

  /**
   * Sends packets from one end and waits until all of `expected` have come to the other.
   * @returns those of `expected` that have not, and what came instead, as text
   */
  async passes(
    from: "client" | "target",
    sent: readonly Uint8Array[],
    expected: readonly Uint8Array[],
  ): Promise<{ readonly missing: readonly string[]; readonly others: readonly string[] }> {
    const to = this.packets[from === "client" ? "target" : "client"];
    await this.captured(to);
    const hex = sent.map((bytes) => Buffer.from(bytes).toString("hex"));
    await this.packets[from].ask({ cmd: "send", packets: hex });
    const missing = new Set(expected.map(identity));
    const others: string[] = [];
    const endMs = performance.now() + DEADLINE_MS;
    while (missing.size > 0 && performance.now() < endMs) {
      for (const bytes of await this.captured(to)) {
        if (!missing.delete(identity(bytes))) others.push(identity(bytes));
      }
      if (missing.size > 0) await delay(5);
    }
    return { missing: [...missing], others };
  }

  /** What an end has got since the last call. */
  async captured(agent: Agent): Promise<Uint8Array[]> {
    const { packets } = await agent.ask<{ packets: string[] }>({ cmd: "captured" });
    return packets.map((hex) => Uint8Array.from(Buffer.from(hex, "hex")));
  }

  /** The target sends back what comes to this address and port. */
  async serve(address: string, port: number): Promise<void> {
    await this.sockets.target.ask({ cmd: "serve", address, port });
  }

  /** The client sends, and waits for the same to come back. */
  echo(cmd: "udp" | "tcp", address: string, port: number, bytes: number, waitMs = DEADLINE_MS): Promise<Echo> {
    return this.sockets.client.ask<Echo>({ cmd, address, port, bytes, waitMs });
  }

  /**
   * Path MTU of the router's way to the client. Not that of its link: a veth link drops what comes from the other side and
   * is larger, so the client's own packets would be lost.
   */
  narrowRouter(mtu: number): void {
    this.router.ip(
      `route replace ${CLIENT[4]}/32 dev client mtu lock ${mtu}`,
      `route replace ${CLIENT[6]}/128 dev client mtu ${mtu}`,
    );
  }

  /** The same of this namespace's way to the router. */
  narrowUplink(mtu: number): void {
    ip(`route replace default via ${ROUTER[4]} mtu lock ${mtu}`, `route replace default via ${ROUTER[6]} mtu ${mtu}`);
  }

  close(): void {
    for (const agent of [...Object.values(this.packets), ...Object.values(this.sockets)]) agent.close();
    for (const host of [this.client, this.router, this.target]) host.close();
  }
}

function connectHosts(client: Host, router: Host, target: Host): void {
  ip(
    `link add uplink type veth peer name lb netns ${router.pid}`,
    "addr add 192.168.2.1/24 dev uplink",
    "addr add fd02::1/64 dev uplink nodad",
    "link set uplink up",
    `link add ${TARGET_LINK} type veth peer name eth0 netns ${target.pid}`,
    `addr add 172.16.0.1/24 dev ${TARGET_LINK}`,
    `addr add fd16::1/64 dev ${TARGET_LINK} nodad`,
    `link set ${TARGET_LINK} up`,
  );
  router.ip(
    `link add client type veth peer name eth0 netns ${client.pid}`,
    "addr add 192.168.1.254/24 dev client",
    "addr add fd01::fe/64 dev client nodad",
    "link set client up",
    `addr add ${ROUTER[4]}/24 dev lb`,
    `addr add ${ROUTER[6]}/64 dev lb nodad`,
    "link set lb up",
    "route add default via 192.168.2.1",
    "route add default via fd02::1",
  );
  client.ip(
    `addr add ${CLIENT[4]}/24 dev eth0`,
    `addr add ${CLIENT[6]}/64 dev eth0 nodad`,
    "link set eth0 up",
    "route add default via 192.168.1.254",
    "route add default via fd01::fe",
  );
  target.ip(
    `addr add ${TARGET[4]}/24 dev eth0`,
    `addr add ${TARGET[6]}/64 dev eth0 nodad`,
    "link set eth0 up",
    ...[LINE_VIPS, OTHER_VIPS].flatMap((vips) => [
      `addr add ${vips[4]}/32 dev lo`,
      `addr add ${vips[6]}/128 dev lo nodad`,
    ]),
    "route add default via 172.16.0.1",
    "route add default via fd16::1",
  );
  ip(
    `route add default via ${ROUTER[4]}`,
    `route add default via ${ROUTER[6]}`,
    `route add 10.0.0.0/24 via ${TARGET[4]}`,
    `route add 2001:db8::/64 via ${TARGET[6]}`,
  );
  const sysctls = [
    "ipv4/ip_forward=1",
    "ipv6/conf/all/forwarding=1",
    "ipv4/fwmark_reflect=1",
    "ipv6/fwmark_reflect=1",
    "ipv4/icmp_ratelimit=0",
    "ipv6/icmp/ratelimit=0",
  ];
  const commands = sysctls
    .map((text) => text.split("="))
    .map(([path, value]) => `echo ${value} > /proc/sys/net/${path}`);
  const script = `${commands.join("; ")}; for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done`;
  run("sh", "-ec", script);
  router.run("sh", "-ec", script);
  for (const end of [client, target])
    end.run("sh", "-c", "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done");
}
