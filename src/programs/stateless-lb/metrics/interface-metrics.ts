import { formatAddress } from "#model";
import { type LinkStatistics, RouteConnection } from "#netlink/route";
import { type Definition, type Labels, labelText, type Source } from "./family.js";
import { OTEL_SCOPE } from "./process-metrics.js";

const LINK_LOCAL = [0xfe, 0x80] as const;

/** Meridio's names: `meridio.interface.rx_packets` and so on, a counter each. */
const COUNTERS: readonly (readonly [keyof LinkStatistics, Definition])[] = (
  [
    ["rxPackets", "rx_packets", "Packets received"],
    ["txPackets", "tx_packets", "Packets sent"],
    ["rxBytes", "rx_bytes", "Bytes received"],
    ["txBytes", "tx_bytes", "Bytes sent"],
    ["rxErrors", "rx_errors", "Packets received with an error"],
    ["txErrors", "tx_errors", "Packets not sent for an error"],
    ["rxDropped", "rx_dropped", "Packets received and dropped"],
    ["txDropped", "tx_dropped", "Packets not sent but dropped"],
  ] as const
).map(([key, name, help]) => {
  const utf8 = { name: `meridio.interface.${name}_total` };
  return [key, { name: `meridio_interface_${name}_total`, type: "counter", help: `${help} by the interface`, utf8 }];
});

const UP: Definition = {
  name: "stateless_lb_interface_up",
  type: "gauge",
  help: "1 while the interface is up and its carrier is there",
};

/**
 * Which interfaces are up, and what those have counted that are set up.
 * @param prefix of their names
 * @param labels trench and conduit
 */
export function interfaceSource(prefix: string, labels: Labels): Source {
  let connection: RouteConnection | null = null; // kept, for its buffers
  return {
    name: "interfaces",
    write: (out) => {
      connection ??= new RouteConnection();
      const route = connection;
      const own = route.countedLinks().filter(({ name }) => name.startsWith(prefix));
      const links = own.filter(({ isUp }) => isUp);
      const addresses = links.length === 0 ? [] : route.addresses();
      const counted = links.map(({ name, index, linkLayerAddress, statistics }) => {
        const ownAddresses = addresses.filter(({ linkIndex, address }) => linkIndex === index && !isLinkLocal(address));
        const ips = ownAddresses.map(({ address, prefixLength }) => `${formatBytes(address)}/${prefixLength}`);
        const mac = Buffer.from(linkLayerAddress)
          .toString("hex")
          .replace(/..(?=.)/g, "$&:");
        const more = { interface_name: name, mac_address: mac, ips: JSON.stringify(ips) };
        return { labels: labelText({ ...labels, ...more, ...OTEL_SCOPE }), statistics };
      });
      for (const [key, definition] of COUNTERS) {
        out.family(definition);
        for (const link of counted) out.sample(link.labels, link.statistics[key]);
      }
      out.family(UP);
      for (const { name, isUp, hasCarrier } of own)
        out.sample(labelText({ ...labels, interface_name: name }), Number(isUp && hasCarrier));
    },
    close: () => connection?.[Symbol.dispose](),
  };
}

function isLinkLocal(address: Uint8Array): boolean {
  return address.length === 16 && address[0] === LINK_LOCAL[0] && (address[1]! & 0xc0) === LINK_LOCAL[1];
}

function formatBytes(address: Uint8Array): string {
  return address.length === 4 ? address.join(".") : formatAddress(address);
}
