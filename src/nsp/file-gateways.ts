import { create } from "@bufbuild/protobuf";
import { isIpv4, parseAddress } from "#model";
import { checked, nameOf, resolveAll } from "./file-fields.js";
import {
  type Attractor,
  AttractorSchema,
  type Gateway,
  GatewaySchema,
  type Trench,
  type Vip,
} from "./gen/nsp/v1/model_pb.js";
import type { Reader } from "./yaml-reader.js";

// What a frontend learns from the NSP. Keys and defaults are those of Meridio's Gateway and Attractor.

const BGP_PORT = 179;
const HOLD_TIME_S = 240;

const GATEWAY_KEYS = [
  "name",
  "address",
  "ip-family",
  "protocol",
  "remote-asn",
  "local-asn",
  "remote-port",
  "local-port",
  "hold-time",
  "bfd",
  "bfd-spec",
  "bgp-auth",
] as const;

export function readGateway(item: Reader, trench: Trench): Gateway {
  const fields = item.fields(GATEWAY_KEYS);
  const address = checked(fields.address, parseAddress, "an address");
  const protocol = fields.protocol.isPresent ? oneOf(fields.protocol, ["bgp", "static"]) : "bgp";
  const isBgp = protocol !== "static";
  const asn = (reader: Reader) => (isBgp ? reader.number(1, 2 ** 32 - 1) : reader.number(0, 2 ** 32 - 1, 0));
  const port = (reader: Reader) => reader.number(1, 65_535, BGP_PORT);
  const spec = fields["bfd-spec"].fields(["min-tx", "min-rx", "multiplier"]);
  const auth = fields["bgp-auth"].fields(["key-name", "key-source"]);
  return create(GatewaySchema, {
    name: nameOf(fields.name),
    address,
    ipFamily: familyOf(fields["ip-family"], address),
    protocol,
    remoteASN: asn(fields["remote-asn"]),
    localASN: asn(fields["local-asn"]),
    remotePort: port(fields["remote-port"]),
    localPort: port(fields["local-port"]),
    holdTime: fields["hold-time"].number(3, 65_535, HOLD_TIME_S),
    bfd: fields.bfd.flag(false),
    ...(fields["bfd-spec"].isPresent
      ? {
          bfdSpec: {
            MinTx: spec["min-tx"].number(1, 2 ** 32 - 1),
            MinRx: spec["min-rx"].number(1, 2 ** 32 - 1),
            Multiplier: spec.multiplier.number(1, 255),
          },
        }
      : {}),
    ...(fields["bgp-auth"].isPresent
      ? { bgpAuth: { keyName: auth["key-name"].text(), keySource: auth["key-source"].text() } }
      : {}),
    trench,
  });
}

/** The family follows from the address; one that is named has to fit. */
function familyOf(reader: Reader, address: string): string {
  const family = address.includes(":") && !isMapped(address) ? "ipv6" : "ipv4";
  if (reader.isPresent && oneOf(reader, ["ipv4", "ipv6"]) !== family) reader.fault(`the address is ${family}`);
  return family;
}

function isMapped(address: string): boolean {
  try {
    return isIpv4(parseAddress(address));
  } catch {
    return false; // told already
  }
}

function oneOf(reader: Reader, allowed: readonly string[]): string {
  const check = (text: string) => {
    if (!allowed.includes(text)) throw new Error();
  };
  return checked(reader, check, allowed.join(", "));
}

export function readAttractor(
  item: Reader,
  trench: Trench,
  vips: ReadonlyMap<string, Vip>,
  gateways: ReadonlyMap<string, Gateway>,
): Attractor {
  const fields = item.fields(["name", "vips", "gateways"]);
  return create(AttractorSchema, {
    name: nameOf(fields.name),
    trench,
    vips: resolveAll(fields.vips, vips, "VIP"),
    gateways: resolveAll(fields.gateways, gateways, "gateway"),
  });
}
