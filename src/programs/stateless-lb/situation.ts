import { NetlinkError } from "#netlink";
import { RouteConnection } from "#netlink/route";
import { isQueueing } from "#steering";
import { readSnapshot, type Snapshot } from "../nfqlb/top-snapshot.js";
import { monotonicMs, readLife } from "./control-lock.js";
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
    readonly state: "running" | "hanging" | "ended" | "dead" | "never seen" | "hidden";
    /**
     * When it ended, or was last heard of; null while it runs. `hanging`: its process is there and does nothing. `hidden`: this
     * user may not see its files, so neither it nor a data plane is known of; `problem` has the file.
     */
    readonly since: string | null;
    /** What it said last; null: nothing that can be read. */
    readonly document: StatusDocument | null;
    /** Why the document cannot be read, or empty. */
    readonly problem: string;
    /** Why the control plane cannot write another document, so that this one is old; or empty. */
    readonly unwritten: string;
  };
  /** Whether the kernel hands packets to the VIPs of the document to a queue; null: it does not tell, or there are none. */
  readonly areVipsQueued: boolean | null;
  /** null: none runs. */
  readonly dataPlane: Snapshot | null;
  readonly targets: readonly TargetSituation[];
};

/** Whether the document tells how things are now, and not how they were. */
export function isCurrent({ controlPlane: { state, unwritten } }: Pick<Situation, "controlPlane">): boolean {
  return state === "running" && unwritten === "";
}

/** Looks at the folder of the tables and at the kernel; asks nobody and needs no rights. */
export function readSituation(folder: string): Situation {
  try {
    const controlPlane = readControlPlane(folder);
    const dataPlane = readSnapshot(folder);
    const vips = controlPlane.document?.vips ?? [];
    const areVipsQueued = vips.length === 0 ? null : askKernel(() => isQueueing(vips), null);
    return { controlPlane, dataPlane, areVipsQueued, targets: judgeTargets(controlPlane.document, dataPlane) };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== "EACCES") throw error;
    const controlPlane = { state: "hidden", since: null, document: null, problem: message, unwritten: "" } as const;
    return { controlPlane, dataPlane: null, areVipsQueued: null, targets: [] };
  }
}

/** What helps a user who may not see the files of the load balancer. */
export const SEE_HIDDEN = "run it as the user of the control plane, or as root";

function readControlPlane(folder: string): Situation["controlPlane"] {
  const life = readLife(folder, monotonicMs());
  let document: StatusDocument | null = null;
  let problem = "";
  try {
    document = readStatus(folder);
  } catch (error) {
    problem = (error as Error).message;
  }
  const told = { document, problem, unwritten: life?.unwritten ?? "" };
  if (life === null) return { state: "never seen", since: null, ...told };
  if (life.isAlive && !life.isHanging) return { state: "running", since: null, ...told };
  const state = life.isHanging ? "hanging" : document?.phase === "ended" ? "ended" : "dead";
  return { state, since: life.lastSeen.toISOString(), ...told };
}

function judgeTargets(document: StatusDocument | null, dataPlane: Snapshot | null): readonly TargetSituation[] {
  if (document === null) return [];
  const counted = new Map(dataPlane?.targets.map((one) => [one.fwmark, one.packets]) ?? []);
  const paths = findPaths(document);
  return document.targets.map((target) => {
    const own = target.fwmark === null ? [] : (paths.get(target.fwmark) ?? []);
    const broken = own.find(({ verdict }) => verdict === "broken");
    const common = { paths: own, packets: counted.get(target.fwmark ?? -1) ?? 0 };
    if (target.state !== "ready" || broken === undefined) return { ...target, ...common }; // its reason says more
    return { ...target, ...common, state: "unreachable", reason: broken.reason };
  });
}

/** The ways to all targets, by mark; none where the kernel cannot be asked. */
function findPaths({ vips, targets }: StatusDocument): ReadonlyMap<number, readonly Path[]> {
  return askKernel(() => {
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
  }, new Map<number, readonly Path[]>());
}

/** What the kernel answers, or `otherwise` where it cannot be asked. */
function askKernel<T>(ask: () => T, otherwise: T): T {
  try {
    return ask();
  } catch (error) {
    if (error instanceof NetlinkError || (error as { code?: string }).code === "ERR_SYS") return otherwise;
    throw error;
  }
}
