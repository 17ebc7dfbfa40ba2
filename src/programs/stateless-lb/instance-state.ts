import type { ServiceState } from "#availability";
import type { Reconciler, Status, Turn } from "#control";
import type { NspUpdate } from "#nsp";
import type { ControlNumbers } from "./metrics/control-metrics.js";
import type { Labels } from "./metrics/family.js";
import type { TargetView } from "./metrics/stream-metrics.js";

/** Bounds in seconds of the turns' durations; the last bucket has none. */
const TURN_BOUNDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5] as const;

const REFUSABLE = ["VIP", "stream", "flow", "target", "port NAT"] as const;

/** What the parts of this program told last, and what they told in all: for health, availability and metrics. */
export class InstanceState {
  isNspConnected = false;
  areSocketsAnswering = false;
  readonly #place: Labels;
  readonly #hostName: string;
  readonly #hasFrontend: boolean;
  #update: NspUpdate | null = null;
  readonly #control: () => Pick<Reconciler, "status" | "inForce"> | null;
  /** What metrics need of the status, which is large; kept until the next turn. */
  #view: StatusView | null = null;
  /** Turns by duration. */
  readonly #turnCounts = new Float64Array(TURN_BOUNDS.length + 1);
  #turnSeconds = 0;
  #failedTurns = 0;
  #kernelSteps = 0;
  #failedSteps = 0;
  #repairs = 0;
  #dataPlaneDeaths = 0;

  /**
   * @param place trench and conduit that are served
   * @param hostName identifier of the frontend of this host; null when there is none to wait for
   * @param control the control loop, once there is one
   */
  constructor(place: Labels, hostName: string | null, control: () => Pick<Reconciler, "status" | "inForce"> | null) {
    this.#place = place;
    this.#control = control;
    this.#hostName = hostName ?? "";
    this.#hasFrontend = hostName !== null;
  }

  takeUpdate(update: NspUpdate): void {
    this.#update = update;
  }

  takeTurn(turn: Turn): void {
    this.#view = null;
    const seconds = turn.durationMs / 1_000;
    const bucket = TURN_BOUNDS.findIndex((bound) => seconds <= bound);
    this.#turnCounts[bucket < 0 ? TURN_BOUNDS.length : bucket]!++;
    this.#turnSeconds += seconds;
    this.#failedTurns += Number(turn.error !== null);
    this.#kernelSteps += turn.kernelSteps;
    this.#failedSteps += turn.failedSteps;
    this.#repairs += turn.repairs;
  }

  dataPlaneDied(): void {
    this.#dataPlaneDeaths++;
  }

  get isFrontendAnnounced(): boolean | null {
    return this.#hasFrontend ? this.#update?.frontends.includes(this.#hostName) === true : null;
  }

  /** Targets as of the last turn. */
  targets(): readonly TargetView[] {
    return this.#lastView()?.targets ?? [];
  }

  /** Names of the streams in force: those with a range of fwmarks, while somebody asks for packets. */
  streams(): readonly string[] {
    return (this.#control()?.inForce() ?? []).map(({ name }) => name);
  }

  #lastView(): StatusView | null {
    const status = this.#view === null ? this.#control()?.status() : undefined;
    if (status !== undefined) this.#view = viewOf(status, this.#place);
    return this.#view;
  }

  /** For metrics. */
  numbers(isAvailable: boolean): ControlNumbers {
    const { configuration, refusals } = this.#update ?? { configuration: null, refusals: [] };
    const view = this.#lastView();
    const all = [...refusals.map(({ kind }) => kind), ...(view?.refusals ?? [])];
    const { vips = [], streams = [], flows = [], targets = [] } = configuration ?? {};
    return {
      turns: { bounds: TURN_BOUNDS, counts: this.#turnCounts, seconds: this.#turnSeconds },
      failedTurns: this.#failedTurns,
      kernelSteps: this.#kernelSteps,
      failedSteps: this.#failedSteps,
      repairs: this.#repairs,
      overruns: view?.overruns ?? 0,
      drifts: view?.drifts ?? 0,
      interfacesSetDown: view?.interfacesSetDown ?? 0,
      streams: view?.streams ?? [],
      dataPlaneDeaths: this.#dataPlaneDeaths,
      isNspConnected: this.isNspConnected,
      isFrontendAnnounced: this.isFrontendAnnounced,
      isAvailable,
      objects: { vip: vips.length, stream: streams.length, flow: flows.length, target: targets.length },
      refused: Object.fromEntries(REFUSABLE.map((kind) => [kind, all.filter((one) => one === kind).length])),
    };
  }

  serviceState(isDataPlaneReady: boolean): ServiceState {
    const streams = this.#control()?.inForce() ?? [];
    return {
      isNspConnected: this.isNspConnected,
      isDataPlaneReady,
      isFrontendAnnounced: this.isFrontendAnnounced,
      areSocketsAnswering: this.areSocketsAnswering,
      streams: streams.map(({ flows, ready }) => ({ flows, targets: ready })),
    };
  }
}

type StatusView = Pick<ControlNumbers, "overruns" | "drifts" | "interfacesSetDown" | "streams"> & {
  readonly targets: readonly TargetView[];
  /** Kinds of the objects that this kernel cannot serve. */
  readonly refusals: readonly string[];
};

function viewOf(status: Status, place: Labels): StatusView {
  return {
    overruns: status.overruns,
    drifts: status.driftsFound,
    interfacesSetDown: status.interfacesSetDown.length,
    streams: status.streams.map(({ name, offset, fault }) => {
      const isInForce = status.isFrontendAnnounced !== false && offset !== null && fault === "";
      return { labels: { ...place, stream: name }, isInForce };
    }),
    refusals: status.refusals.map(({ what }) => what),
    targets: status.targets.flatMap(({ stream, identifier, fwmark, addresses, ips = addresses, state, cause }) => {
      return fwmark === null ? [] : [{ stream, identifier, fwmark, ips, state, reason: cause }];
    }),
  };
}
