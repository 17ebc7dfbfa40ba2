import type { Conduit, Flow, Stream, Target, Trench, Vip } from "./gen/nsp/v1/model_pb.js";

// A watch's argument is a filter: names are compared where both have one, parents one after the other; a parent that is
// missing on one side makes two objects different.

const isName = (filter: string, name: string) => filter === "" || name === "" || filter === name;

export function matchesTrench(filter: Trench, trench: Trench): boolean {
  return isName(filter.name, trench.name);
}

export function matchesConduit(filter: Conduit, conduit: Conduit): boolean {
  return isName(filter.name, conduit.name) && both(filter.trench, conduit.trench, matchesTrench);
}

export function matchesStream(filter: Stream, stream: Stream): boolean {
  return isName(filter.name, stream.name) && both(filter.conduit, stream.conduit, matchesConduit);
}

export function matchesFlow(filter: Flow, flow: Flow): boolean {
  return isName(filter.name, flow.name) && both(filter.stream, flow.stream, matchesStream);
}

/** VIPs, attractors and gateways: a name in a trench. */
export function matchesInTrench(filter: Pick<Vip, "name" | "trench">, object: Pick<Vip, "name" | "trench">): boolean {
  return isName(filter.name, object.name) && both(filter.trench, object.trench, matchesTrench);
}

/** Type and stream of a target, all of a filter but the status. No stream means any. */
export function matchesTargetGroup(filter: Target, target: Target): boolean {
  if (filter.type !== target.type) return false;
  if (filter.stream === undefined) return true;
  const { name, conduit } = filter.stream;
  if (!isName(name, target.stream?.name ?? "")) return false;
  if (!isName(conduit?.name ?? "", target.stream?.conduit?.name ?? "")) return false;
  return isName(conduit?.trench?.name ?? "", target.stream?.conduit?.trench?.name ?? "");
}

function both<T>(filter: T | undefined, parent: T | undefined, matches: (filter: T, parent: T) => boolean): boolean {
  return filter !== undefined && parent !== undefined && matches(filter, parent);
}
