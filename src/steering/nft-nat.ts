import {
  type Checksum,
  compare,
  counter,
  immediate,
  type NftFeatures,
  notrack,
  transportHeader,
  writePayload,
} from "#netlink/nftables";
import type { Family } from "#netlink/route";
import { intervalElements } from "./intervals.js";
import { makeRule, type WantedChain, type WantedRule, type WantedSet, type WantedTable } from "./nft-objects.js";
import {
  addressIn,
  be16,
  FAMILIES,
  IP,
  icmpErrorAbout,
  ofFamily,
  ofProtocol,
  type Part,
  QUOTED,
  quotedAddressIn,
  transportIs,
} from "./nft-rules.js";
import type { DesiredNat } from "./state.js";

export const NAT_TABLE = "meridio-nat";
/** Behind the queue at 0: the data plane sees the ports as they are outside, and errors are about those. */
const PRIORITY = 100;
const SOURCE_PORT = 0;
const DESTINATION_PORT = 2;

/**
 * Protocols, and how a write of a port keeps the checksum right. The kernel corrects those of TCP and UDP, and lets a UDP
 * checksum of zero, which says that there is none, be zero. `quoted`: where the checksum stands from the ports on, if it
 * can be corrected by a difference.
 */
const PROTOCOLS = {
  tcp: { number: 6, checksum: { type: "none", isTransport: true }, quoted: 16 },
  udp: { number: 17, checksum: { type: "none", isTransport: true }, quoted: 6 },
  sctp: { number: 132, checksum: { type: "sctp", offset: 8 }, quoted: null },
} as const satisfies Record<DesiredNat["protocol"], object>;
/** Where ICMP, and ICMPv6, have their checksum. */
const ICMP_CHECKSUM: Checksum = { type: "internet", offset: 2 };

/** Name of a port NAT's chain; its sets are called the same with `-ipv4` and `-ipv6`. */
export const natName = ({ port, targetPort, protocol }: Omit<DesiredNat, "vips">) =>
  `${port}-${targetPort}-${protocol}`;
const setName = (nat: DesiredNat, family: Family) => `${natName(nat)}-ipv${family}`;

/** The table that translates ports: of packets to VIPs, of answers that come by here, and in ICMP errors about either. */
export function natTable(nats: readonly DesiredNat[], { hasConntrack }: NftFeatures): WantedTable {
  const errors = nats.map((nat) => FAMILIES.flatMap((family) => errorsAbout(nat, family)));
  const chains = nats.map(
    (nat, i): WantedChain => ({
      chain: natName(nat),
      hook: { type: "filter", hook: "prerouting", priority: PRIORITY },
      rules: [
        ...FAMILIES.flatMap((family) => [
          translateRequest(nat, family, hasConntrack),
          translateAnswer(nat, family, hasConntrack),
        ]),
        ...errors[i]!,
      ],
    }),
  );
  // Errors of this host, for example because the way to the target or the client is too narrow, pass no prerouting.
  const local: WantedChain = {
    chain: "local-errors",
    hook: { type: "filter", hook: "output", priority: PRIORITY },
    rules: errors.flat(),
  };
  const sets = nats.flatMap((nat) =>
    FAMILIES.map((family): WantedSet => {
      const elements = intervalElements(nat.vips, family);
      return { set: setName(nat, family), type: IP[family].setType, elements };
    }),
  );
  return { table: NAT_TABLE, sets, chains: nats.length === 0 ? [] : [...chains, local] };
}

/** A port that is written over another. `isTracked`: the kernel tracks connections, which here it shall not. */
type Translation = {
  readonly address: Part;
  readonly field: "dport" | "sport";
  readonly at: number;
  readonly from: number;
  readonly to: number;
  readonly isTracked: boolean;
};

function translateRequest(nat: DesiredNat, family: Family, isTracked: boolean): WantedRule {
  const toVip = addressIn(family, "destination", setName(nat, family));
  return translate(nat, family, {
    address: toVip,
    field: "dport",
    at: DESTINATION_PORT,
    from: nat.port,
    to: nat.targetPort,
    isTracked,
  });
}

function translateAnswer(nat: DesiredNat, family: Family, isTracked: boolean): WantedRule {
  const fromVip = addressIn(family, "source", setName(nat, family));
  return translate(nat, family, {
    address: fromVip,
    field: "sport",
    at: SOURCE_PORT,
    from: nat.targetPort,
    to: nat.port,
    isTracked,
  });
}

/** Of a packet that comes in fragments the first one has the ports and the checksum; the others stay as they are. */
function translate(
  { protocol }: DesiredNat,
  family: Family,
  { address, field, at, from, to, isTracked }: Translation,
): WantedRule {
  const { number, checksum } = PROTOCOLS[protocol];
  return makeRule(
    `${address.text} ${protocol} ${field} ${from} ${protocol} ${field} set ${to} counter${isTracked ? " notrack" : ""}`,
    [
      ...ofFamily(family),
      ...address.expressions,
      ...ofProtocol(number),
      ...transportIs(at, be16(from)).expressions,
      immediate(be16(to)),
      writePayload("transport", at, 2, checksum),
      counter(),
      ...(isTracked ? [notrack()] : []),
    ],
  );
}

/**
 * An error on the way to a target quotes an answer as it left, and has to quote it as the target sent it. One on the way to
 * a client quotes a packet as the target got it, and has to quote it as the client sent it.
 */
function errorsAbout(nat: DesiredNat, family: Family): readonly WantedRule[] {
  const set = setName(nat, family);
  const { port, targetPort } = nat;
  return [
    ...translateQuoted(nat, family, quotedAddressIn(family, "source", set), SOURCE_PORT, port, targetPort),
    ...translateQuoted(nat, family, quotedAddressIn(family, "destination", set), DESTINATION_PORT, targetPort, port),
  ];
}

/**
 * Where the quoted packet's own checksum is quoted too, that is corrected: then the sum over both is what it was, and with
 * it the checksum of the error. Where it is not (of TCP often only 8 bytes are quoted), or is zero, or is a CRC, the
 * error's own checksum is corrected.
 */
function translateQuoted(
  { protocol }: DesiredNat,
  family: Family,
  address: Part,
  field: number,
  from: number,
  to: number,
): readonly WantedRule[] {
  const { number, quoted } = PROTOCOLS[protocol];
  const ports = QUOTED + IP[family].headerBytes;
  const error = icmpErrorAbout(family, number);
  const hasPort = transportIs(ports + field, be16(from));
  const rule = (condition: Part, checksum: Checksum) =>
    makeRule(
      `${[error, address, condition, hasPort].map(({ text }) => text).join(" ")} @th,${(ports + field) * 8},16 set ${to} counter`.replace(
        "  ",
        " ",
      ),
      [
        ...error.expressions,
        ...address.expressions,
        ...condition.expressions,
        ...hasPort.expressions,
        immediate(be16(to)),
        writePayload("transport", ports + field, 2, checksum),
        counter(),
      ],
    );
  const always: Part = { text: "", expressions: [] };
  if (quoted === null) return [rule(always, ICMP_CHECKSUM)];
  const at = ports + quoted;
  const isQuoted: Part = {
    text: `@th,${at * 8},16 ${protocol === "udp" ? "!= 0" : ">= 0"}`,
    expressions: [transportHeader(at, 2), compare(protocol === "udp" ? "!=" : ">=", be16(0))],
  };
  return [rule(isQuoted, { type: "internet", offset: at }), rule(always, ICMP_CHECKSUM)];
}
