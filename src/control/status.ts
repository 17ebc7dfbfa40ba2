import { type Configuration, type Flow, ruleName, type Stream, type Target, type Vip } from "#model";
import type { Refusal } from "#steering";
import { type InForce, isInTable } from "./in-force.js";
import type { Offsets } from "./offsets.js";
import type { TargetState } from "./target-state.js";
import type { KnownTarget, KnownTargets } from "./targets.js";

/** What the control plane does and why, as plain data: for `status`, `--debug`, metrics, health and availability. */
export type Status = {
  /** Whether a configuration has been heard at all. */
  readonly isConfigured: boolean;
  /** Whether the local frontend is announced; null: nobody asks for one. */
  readonly isFrontendAnnounced: boolean | null;
  readonly isStopping: boolean;
  readonly isDataPlaneReady: boolean;
  /** What the frontend is to be told: packets that come now reach a target, and go on to do so. */
  readonly isAvailable: boolean;
  readonly streams: readonly StreamStatus[];
  /** Flows whose rules are in force. */
  readonly flows: readonly Flow[];
  /** Flows that are not, with the reason; what the NSP says wrongly is refused before and is not among them. */
  readonly refusedFlows: readonly { readonly flow: Flow; readonly reason: string }[];
  readonly vips: readonly Vip[];
  readonly targets: readonly TargetStatus[];
  /** What cannot be served as it is configured: flows that are too much beside the others, targets with several addresses of a family, port NATs that collide. */
  readonly refusals: readonly Refused[];
  readonly interfacesSetDown: readonly string[];
  readonly lastTurn: TurnReport | null;
  readonly turns: number;
  /** Turns that ended with something undone. */
  readonly failedTurns: number;
  /** Steps that put right what was changed or gone in the kernel. */
  readonly repairs: number;
  /** Commands of the turn that last did so, and how long ago in ms; null: none has. */
  readonly lastRepair: { readonly agoMs: number; readonly commands: readonly string[] } | null;
  /** What was put right so often in the last minute that somebody must be undoing it; when last, in ms. */
  readonly repairStorms: readonly { readonly what: string; readonly count: number; readonly agoMs: number }[];
  /** How often the kernel's events ran over, and how often a reading differed from them. */
  readonly overruns: number;
  readonly driftsFound: number;
};

/** What the kernel's part refuses, and flows. */
export type Refused = Refusal | (Omit<Refusal, "what"> & { readonly what: "flow" });

export type StreamStatus = {
  readonly name: string;
  readonly maxTargets: number;
  /** fwmarks of its targets are offset + identifier; null: there is no room for its range. */
  readonly offset: number | null;
  readonly ready: number;
  readonly pending: number;
  readonly unreachable: number;
  /** No target is ready, so those that have a way at all get the packets. */
  readonly isDesperate: boolean;
  /** Why its table or marks are missing, or "". */
  readonly fault: string;
};

export type TargetStatus = Target & {
  /** null: its stream has no range, or nobody asks for its stream. */
  readonly fwmark: number | null;
  readonly state: TargetState["kind"];
  readonly cause: TargetState["cause"] | "notServed";
  /** "" for one that is ready. */
  readonly reason: string;
  /** For how long it has been in this state, in ms. */
  readonly forMs: number;
  /** It is healed and comes back in so many ms; null otherwise. */
  readonly returnsInMs: number | null;
  readonly flaps: number;
  readonly isServed: boolean;
};

/** What one turn of the loop did. */
type TurnReport = {
  readonly durationMs: number;
  /** How long ago it ended, in ms. */
  readonly agoMs: number;
  readonly steps: number;
  readonly failures: readonly string[];
};

export function groupByStream(targets: readonly TargetStatus[]): ReadonlyMap<string, readonly TargetStatus[]> {
  const groups = new Map<string, TargetStatus[]>();
  for (const target of targets) {
    const group = groups.get(target.stream);
    if (group === undefined) groups.set(target.stream, [target]);
    else group.push(target);
  }
  return groups;
}

/**
 * Parts of a status that the configuration tells.
 * @param rulesFault why the flow rules could not be published
 */
export function configurationStatus(
  configuration: Configuration | null,
  streams: readonly StreamStatus[],
  isBlocked: boolean,
  { rules, refusedRules }: InForce,
  rulesFault = "wait for their turn",
): Pick<Status, "isConfigured" | "vips" | "flows" | "refusedFlows"> {
  const flows = configuration?.flows ?? [];
  const faults = new Map(streams.map(({ name, fault }) => [name, fault]));
  const reasonOf = (flow: Flow) => {
    if (isBlocked) return "no frontend is announced";
    const name = ruleName(flow);
    const fault = faults.get(flow.stream) ?? `there is no stream ${flow.stream}`;
    if (fault !== "") return fault;
    return refusedRules.get(name) ?? (rules.has(name) ? "" : `flow rules: ${rulesFault}`);
  };
  return {
    isConfigured: configuration !== null,
    vips: configuration?.vips ?? [],
    flows: flows.filter((flow) => reasonOf(flow) === ""),
    refusedFlows: flows.flatMap((flow) => (reasonOf(flow) === "" ? [] : [{ flow, reason: reasonOf(flow) }])),
  };
}

/** Targets of the configuration that are not even tried. */
export function idleTargets(
  configuration: Configuration | null,
  offsets: Offsets,
  known: KnownTargets,
  isBlocked: boolean,
): readonly TargetStatus[] {
  const isTried = ({ stream, identifier }: Target) => {
    const range = offsets.get(stream);
    const tried = range && known.get(range.offset + identifier);
    return tried?.target.stream === stream && tried.target.identifier === identifier;
  };
  const reason = isBlocked ? "no frontend is announced" : "its stream has no range of fwmarks, or waits for its turn";
  const idle = (configuration?.targets ?? []).filter((target) => !isTried(target));
  return idle.map((target) => ({
    ...target,
    fwmark: null,
    state: "pending",
    cause: "notServed",
    reason,
    forMs: 0,
    returnsInMs: null,
    flaps: 0,
    isServed: false,
  }));
}

/** @param tableFault why its table could not be published */
export function streamStatus(
  { name, maxTargets }: Stream,
  offset: number | null,
  own: readonly TargetStatus[],
  tableFault: string | undefined,
): StreamStatus {
  const count = (kind: TargetState["kind"]) => own.filter(({ state }) => state === kind).length;
  const counts = { ready: count("ready"), pending: count("pending"), unreachable: count("unreachable") };
  const isDesperate = counts.ready === 0 && own.some(({ isServed }) => isServed);
  const fault = offset === null ? "no range of fwmarks is left for it" : (tableFault ?? "");
  return { name, maxTargets, offset, ...counts, isDesperate, fault };
}

const UNPUBLISHED = { state: "pending", cause: "notServed", reason: "its stream's table is not in force" } as const;

export function targetStatus(
  one: KnownTarget,
  served: ReadonlySet<number>,
  inForce: InForce,
  nowMs: number,
): TargetStatus {
  const { target, state } = one;
  const { stream, identifier, addresses, ips = addresses, fwmark } = target;
  const { kind, cause, reason, sinceMs, returnsAtMs, flaps } = state;
  const isPublished = isInTable(one, inForce);
  const said = kind === "ready" && !isPublished ? UNPUBLISHED : { state: kind, cause, reason };
  return {
    stream,
    identifier,
    addresses,
    ips,
    fwmark,
    state: said.state,
    cause: said.cause,
    reason: said.reason,
    forMs: nowMs - sinceMs,
    returnsInMs: returnsAtMs === null ? null : Math.max(0, returnsAtMs - nowMs),
    flaps,
    isServed: isPublished && served.has(fwmark),
  };
}
