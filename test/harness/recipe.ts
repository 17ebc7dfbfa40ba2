// The parts that upstream's recipes share, as an operator types them into the balancer of a Topology.
import { VIPS } from "./flows.js";

/**
 * A rule and a default route per target and family: fwmark 101 to target 1, and so on.
 * @param net second number of the targets' addresses on the balancer's links
 */
export const targetRoutes = (targets: number, net = 16) => `
  for n in $(seq 1 ${targets}); do
    fw=$((n + 100))
    ip rule add fwmark $fw table $fw
    ip -6 rule add fwmark $fw table $fw
    ip route add default via 172.${net}.$n.2 table $fw
    ip -6 route add default via fd${net}:$n::2 table $fw
  done`;

/** The same for another balancer of the tier. Fragments that it hands over go to the queue like those from outside. */
export const otherBalancer = (fwmark: number, via4: string, via6: string) => `
  ip rule add fwmark ${fwmark} table ${fwmark}
  ip -6 rule add fwmark ${fwmark} table ${fwmark}
  ip route add default via ${via4} table ${fwmark}
  ip -6 route add default via ${via6} table ${fwmark}
  iptables -t mangle -A PREROUTING -i tier -d ${VIPS[4]}/32 -j VIP
  ip6tables -t mangle -A PREROUTING -i tier -d ${VIPS[6]}/128 -j VIP`;

/** Packets to the VIPs that come in from outside go to queue 2. */
export const BALANCE = `
  for iptables in iptables ip6tables; do
    $iptables -t mangle -N VIP
    $iptables -t mangle -A VIP -j NFQUEUE --queue-num 2
  done
  iptables -t mangle -A PREROUTING -i uplink -d ${VIPS[4]}/32 -j VIP
  ip6tables -t mangle -A PREROUTING -i uplink -d ${VIPS[6]}/128 -j VIP`;

/**
 * A tun device through which held fragments come back: packets that come in there go to the queue like those from outside.
 * Its MTU is that of the traffic at least.
 */
export const TUN = `
  ip tuntap add mode tun name nfqlb0
  ip link set dev nfqlb0 up arp off mtu 1500
  iptables -t mangle -A PREROUTING -i nfqlb0 -d ${VIPS[4]}/32 -j VIP
  ip6tables -t mangle -A PREROUTING -i nfqlb0 -d ${VIPS[6]}/128 -j VIP`;

/** Takes back what recipes add to the kernel beside the routes, and their tables. */
export const FORGET = `
  for iptables in iptables ip6tables; do
    for table in mangle nat filter; do
      $iptables -t $table -F
      $iptables -t $table -X
    done
  done
  rm -f /dev/shm/*`;
