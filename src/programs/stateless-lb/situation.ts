import { NetlinkError } from "#netlink";
import { RouteConnection } from "#netlink/route";
import { readSnapshot, type Snapshot } from "../nfqlb/top-snapshot.js";
import { readLife } from "./control-lock.js";
import { type Path, PathFinder } from "./reachability.js";
import { readStatus, type StatusDocument, type TargetStatus } from "./status-document.js";

/** A target with everything known of it: what the control plane says, what the tables hold, what the kernel says. */
export type TargetSituation = Omit<TargetStatus, "state"> & {
  /**
   * `ready`: it gets packets and they reach it; `pending`: it gets none yet; `unreachable`: it gets packets, but the
   * kernel knows no working way to it.
   */
  readonly state: "ready" | "pending" | "unreachable";
  readonly paths: readonly Path[];
  /** Packets given to it since its table was made. */
  readonly packets: number;
};

/** The load balancer of this host at one moment, as another process sees it. */
export type Situation = {
  readonly controlPlane: {
    readonly state: "running" | "hanging" | "ended" | "dead" | "never seen";
    /** When it ended, or was last heard of; null while it runs. `hanging`: its process is there and does nothing. */
    readonly since: string | null;
    /** What it said last; null: nothing that can be read. */
    readonly document: StatusDocument | null;
    /** Why the document cannot be read, or empty. */
    readonly problem: string;
  };
  /** null: none runs. */
  readonly dataPlane: Snapshot | null;
  readonly targets: readonly TargetSituation[];
};

/** Looks at the folder of the tables and at the kernel; asks nobody and needs no rights. */
export function readSituation(folder: string): Situation {
  const controlPlane = readControlPlane(folder);
  const dataPlane = readSnapshot(folder);
  return { controlPlane, dataPlane, targets: judgeTargets(controlPlane.document, dataPlane) };
}

function readControlPlane(folder: string): Situation["controlPlane"] {
  const life = readLife(folder, new Date());
  let document: StatusDocument | null = null;
  let problem = "";
  try {
    document = readStatus(folder);
  } catch (error) {
    problem = (error as Error).message;
  }
  if (life === null) return { state: "never seen", since: null, document, problem };
  if (life.isAlive && !life.isHanging) return { state: "running", since: null, document, problem };
  const state = life.isHanging ? "hanging" : document?.phase === "ended" ? "ended" : "dead";
  return { state, since: life.lastSeen.toISOString(), document, problem };
}

function judgeTargets(document: StatusDocument | null, dataPlane: Snapshot | null): readonly TargetSituation[] {
  if (document === null) return [];
  const counted = new Map(dataPlane?.targets.map((one) => [one.fwmark, one.packets]) ?? []);
  const paths = findPaths(document);
  return document.targets.map((target) => {
    const own = target.fwmark === null ? [] : (paths.get(target.fwmark) ?? []);
    const broken = own.find(({ verdict }) => verdict === "broken");
    const common = { paths: own, packets: counted.get(target.fwmark ?? -1) ?? 0 };
    if (target.state === "pending" || broken === undefined) return { ...target, ...common };
    return { ...target, ...common, state: "unreachable", reason: broken.reason };
  });
}

/** The ways to all targets, by mark; none where the kernel cannot be asked. */
function findPaths({ vips, targets }: StatusDocument): ReadonlyMap<number, readonly Path[]> {
  try {
    using route = new RouteConnection();
    const finder = new PathFinder(route, vips);
    const found = new Map<number, readonly Path[]>();
    for (const { fwmark, addresses } of targets) {
      if (fwmark !== null)
        found.set(
          fwmark,
          addresses.map((address) => finder.find(address, fwmark)),
        );
    }
    return found;
  } catch (error) {
    if (error instanceof NetlinkError || (error as { code?: string }).code === "ERR_SYS") return new Map();
    throw error;
  }
}
