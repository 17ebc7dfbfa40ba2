/** Parts of the health statuses, by the names that probes ask for. */
export const SUB_SERVICES = ["NSPCli", "NSMEndpoint", "Egress", "Stream", "Flow"] as const;
export type SubService = (typeof SUB_SERVICES)[number];

/** What the parts mean together: an aggregate serves when all of its parts do. */
export const AGGREGATES: Readonly<Record<"Readiness" | "Liveness", readonly SubService[]>> = {
  Readiness: SUB_SERVICES,
  Liveness: ["NSMEndpoint"],
};

/** The state of one instance, as far as others are told of it. */
export type ServiceState = {
  /** All watches of the NSP are answered. */
  readonly isNspConnected: boolean;
  /** Every queue is served. */
  readonly isDataPlaneReady: boolean;
  /** The frontend of this host is registered; null when this instance has none. */
  readonly isFrontendAnnounced: boolean | null;
  /** Our own sockets answer, as the self-probe found. */
  readonly areSocketsAnswering: boolean;
  /** Streams in force: with their flows in force and the targets that get packets. */
  readonly streams: readonly { readonly flows: number; readonly targets: number }[];
};

export type Assessment = {
  readonly parts: Readonly<Record<SubService, boolean>>;
  /** Packets to our VIPs reach a target, so the frontend may attract them. */
  readonly isAvailable: boolean;
};

/**
 * What the state means to others. Nothing is remembered: a status that was reached goes back with its reason. Without the
 * mesh there is no endpoint to register, so `NSMEndpoint` is the self-probe alone and `Egress` the frontend alone.
 */
export function assess({
  isNspConnected,
  isDataPlaneReady,
  isFrontendAnnounced,
  areSocketsAnswering,
  streams,
}: ServiceState): Assessment {
  return {
    parts: {
      NSPCli: isNspConnected,
      NSMEndpoint: areSocketsAnswering,
      Egress: isFrontendAnnounced ?? true,
      Stream: streams.length > 0,
      Flow: isDataPlaneReady && streams.some(({ flows }) => flows > 0), // in force where nobody answers it is not
    },
    isAvailable: isDataPlaneReady && streams.some(({ targets }) => targets > 0),
  };
}
