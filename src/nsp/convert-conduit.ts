import { fromBinary } from "@bufbuild/protobuf";
import { type Conduit, ConfigError, type PortNat, parsePrefix, prefixContains, type Vip } from "#model";
import { toProtocol, toVip } from "./convert.js";
import { type Conduit_PortNat, ConduitSchema } from "./gen/nsp/v1/model_pb.js";
import { compareText } from "./list-reader.js";
import { type Refusal, toRefusal } from "./refusal.js";
import { MalformedAnswer } from "./wire.js";

/** A conduit with those of its port NATs that keep the rules, in the order of protocol, port and target port. */
export type ReadConduit = { readonly conduit: Conduit; readonly refusals: readonly Refusal[] };

/** @throws {MalformedAnswer} no conduit at all */
export function readConduit(bytes: Uint8Array): ReadConduit {
  const refusals: Refusal[] = [];
  const { name, trench, destinationPortNats } = decode(bytes);
  const nats = destinationPortNats.flatMap((message) => {
    try {
      return [toPortNat(message)];
    } catch (error) {
      refusals.push(toRefusal("port NAT", natName(message), "", error));
      return [];
    }
  });
  const portNats = withoutCollisions(merged(nats), refusals);
  return { conduit: { name, trench: trench?.name ?? "", portNats }, refusals };
}

function decode(bytes: Uint8Array) {
  try {
    return fromBinary(ConduitSchema, bytes);
  } catch (error) {
    throw new MalformedAnswer(`conduit: ${(error as Error).message}`);
  }
}

const natName = ({ port, targetPort, protocol }: Pick<PortNat, "port" | "targetPort"> & { protocol: string }) =>
  `${port}-${targetPort}-${protocol}`;

function toPortNat(message: Conduit_PortNat): PortNat {
  for (const field of ["port", "targetPort"] as const) {
    const port = message[field];
    if (port < 1 || port > 65_535) throw new ConfigError(field, String(port), "1..65535 is allowed");
  }
  if (message.vips.length === 0) throw new ConfigError("vips", "", "it has no VIPs, so it translates nothing");
  const { port, targetPort } = message;
  return { protocol: toProtocol(message.protocol), port, targetPort, vips: message.vips.map(toVip) };
}

/** NATs of one protocol, port and target port as one, with every VIP once; in an order that follows from what they say. */
function merged(nats: readonly PortNat[]): readonly PortNat[] {
  const byName = new Map<string, PortNat[]>();
  for (const nat of nats) byName.set(natName(nat), [...(byName.get(natName(nat)) ?? []), nat]);
  const union = [...byName.values()].map((same) => {
    const vips = new Map(same.flatMap((nat) => nat.vips).map((vip) => [`${vip.prefix} ${vip.name}`, vip]));
    return { ...same[0]!, vips: [...vips].toSorted(([a], [b]) => compareText(a, b)).map(([, vip]) => vip) };
  });
  return union.toSorted(
    (a, b) => compareText(a.protocol, b.protocol) || a.port - b.port || a.targetPort - b.targetPort,
  );
}

/** Of NATs that would translate one packet, or one answer, in two ways the first stays. */
function withoutCollisions(nats: readonly PortNat[], refusals: Refusal[]): readonly PortNat[] {
  const taken = new Map<string, PortNat[]>();
  return nats.filter((nat) => {
    const keys = [`to ${nat.protocol} ${nat.port}`, `from ${nat.protocol} ${nat.targetPort}`];
    const other = keys.flatMap((key) => taken.get(key) ?? []).find(({ vips }) => overlap(vips, nat.vips));
    if (other !== undefined) {
      const rule = `collides with port NAT ${natName(other)}, they share VIPs and a port`;
      const value = nat.vips.map(({ prefix }) => prefix).join(",");
      refusals.push(toRefusal("port NAT", natName(nat), "", new ConfigError("vips", value, rule)));
      return false;
    }
    for (const key of keys) taken.set(key, [...(taken.get(key) ?? []), nat]);
    return true;
  });
}

function overlap(a: readonly Vip[], b: readonly Vip[]): boolean {
  const others = b.map(({ prefix }) => parsePrefix(prefix));
  return a.some(({ prefix }) => {
    const one = parsePrefix(prefix);
    return others.some((other) => prefixContains(one, other.address) || prefixContains(other, one.address));
  });
}
