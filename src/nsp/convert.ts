import { parseFlowRule } from "#flow";
import { type Configuration, isIpv4, PROTOCOLS, type Protocol, parseAddress, parsePrefix } from "#model";
import { MAX_TARGETS, targetAddress } from "./file.js";
import type { Conduit, Flow, Stream, Target, Vip } from "./gen/nsp/v1/model_pb.js";

/** What the watches have told so far; flows and targets by stream name. */
export type Snapshot = {
  readonly conduit: Conduit;
  readonly vips: readonly Vip[];
  readonly streams: readonly Stream[];
  readonly flows: ReadonlyMap<string, readonly Flow[]>;
  readonly targets: ReadonlyMap<string, readonly Target[]>;
};

/**
 * The contract's messages as our configuration. An object that breaks a rule is left out and named in `refused`, the
 * others go on.
 */
export function toConfiguration(snapshot: Snapshot): {
  readonly configuration: Configuration;
  readonly refused: readonly string[];
} {
  const refused: string[] = [];
  /** The objects that `read` accepts, with names that stand once; the reasons of the others are noted. */
  const each = <T extends { name: string }, R>(what: string, objects: readonly T[], read: (object: T) => R): R[] => {
    const names = new Set<string>();
    return objects.flatMap((object) => {
      try {
        if (object.name === "") throw new Error("it has no name");
        if (names.has(object.name)) throw new Error("its name is used twice");
        names.add(object.name);
        return [read(object)];
      } catch (error) {
        refused.push(`${what} ${object.name}: ${(error as Error).message}`);
        return [];
      }
    });
  };
  const toVip = ({ name, address }: Vip) => {
    parsePrefix(address);
    return { name, prefix: address };
  };
  const { conduit } = snapshot;
  const vips = each("VIP", snapshot.vips, toVip);
  const streams = each("stream", snapshot.streams, ({ name, maxTargets }) => {
    if (maxTargets < 1 || maxTargets > MAX_TARGETS)
      throw new Error(`maxTargets ${maxTargets}: 1..${MAX_TARGETS} is allowed`);
    if (!/^[^/\0\s]{1,180}$/.test(name)) throw new Error("a name has 1..180 characters without '/' and blanks");
    return { name, conduit: conduit.name, maxTargets };
  });
  const flows = streams.flatMap((stream) =>
    each(`flow of stream ${stream.name}:`, snapshot.flows.get(stream.name) ?? [], (flow) => {
      if (flow.vips.length === 0) throw new Error("it has no VIPs, so it matches nothing");
      const read = {
        name: flow.name,
        stream: stream.name,
        priority: flow.priority,
        protocols: flow.protocols.map(toProtocol),
        vips: flow.vips.map(toVip),
        sourcePrefixes: flow.sourceSubnets,
        destinationPorts: flow.destinationPortRanges,
        sourcePorts: flow.sourcePortRanges,
        byteMatches: flow.byteMatches,
      };
      checkFlow(read);
      return read;
    }),
  );
  const targets = streams.flatMap((stream) => toTargets(stream, snapshot.targets.get(stream.name) ?? [], refused));
  const portNats = conduit.destinationPortNats.map((nat) => ({
    protocol: nat.protocol.toLowerCase() as Protocol,
    port: nat.port,
    targetPort: nat.targetPort,
    vips: nat.vips.map(({ name, address }) => ({ name, prefix: address })),
  }));
  const own = { name: conduit.name, trench: conduit.trench?.name ?? "", portNats };
  return { configuration: { conduit: own, vips, streams, flows, targets }, refused };
}

function toProtocol(text: string): Protocol {
  const protocol = PROTOCOLS.find((known) => known === text.toLowerCase());
  if (protocol === undefined) throw new Error(`protocol "${text}": ${PROTOCOLS.join(", ")} are allowed`);
  return protocol;
}

/** Everything of a flow that the rules' syntax decides. @throws {ConfigError} */
function checkFlow(flow: {
  readonly name: string;
  readonly vips: readonly { readonly prefix: string }[];
  readonly sourcePrefixes: readonly string[];
  readonly destinationPorts: readonly string[];
  readonly sourcePorts: readonly string[];
  readonly byteMatches: readonly string[];
}): void {
  const ports = (ranges: readonly string[]) => ranges.filter((range) => range !== "0-65535").join(",");
  parseFlowRule({
    name: flow.name,
    target: "t",
    dsts: flow.vips.map(({ prefix }) => prefix).join(","),
    srcs: flow.sourcePrefixes.join(","),
    dports: ports(flow.destinationPorts),
    sports: ports(flow.sourcePorts),
    match: flow.byteMatches.join(","),
  });
}

function toTargets(
  stream: { readonly name: string; readonly maxTargets: number },
  targets: readonly Target[],
  refused: string[],
): Configuration["targets"][number][] {
  const used = new Set<number>();
  return targets.flatMap(({ ips, context }) => {
    const text = context["identifier"] ?? "";
    try {
      const identifier = /^[0-9]{1,5}$/.test(text) ? Number(text) : 0;
      if (identifier < 1 || identifier > stream.maxTargets) {
        throw new Error(`identifier "${text}": a whole number 1..${stream.maxTargets} is allowed`);
      }
      if (used.has(identifier)) throw new Error(`identifier ${identifier} is used twice`);
      const addresses = ips.filter((ip) => ip !== "").map(targetAddress);
      if (addresses.length === 0) throw new Error("it has no address");
      const families = new Set(addresses.map((address) => isIpv4(parseAddress(address))));
      if (families.size !== addresses.length) throw new Error("one address per family is allowed");
      used.add(identifier);
      return [{ stream: stream.name, identifier, addresses }];
    } catch (error) {
      refused.push(`target ${ips.join(",")} of stream ${stream.name}: ${(error as Error).message}`);
      return [];
    }
  });
}
