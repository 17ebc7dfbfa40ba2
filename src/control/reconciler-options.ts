import type { Steering } from "#steering";
import type { KernelPlace } from "./desired.js";
import type { OffsetPlacement } from "./offsets.js";
import type { TablePlace } from "./publish.js";
import type { Log } from "./turn-log.js";

export type ReconcilerOptions = {
  readonly steering: Steering;
  readonly place: TablePlace;
  readonly kernelPlace: KernelPlace;
  /** Where the ranges of streams go: fwmarks begin one above `start`. */
  readonly offsetPlacement: OffsetPlacement;
  /** The kernel and the tables are read back so often even when nothing tells of a change, in ms. */
  readonly verifyIntervalMs: number;
  /** Each target is asked once in this time whether it is there, in ms; 0: never. */
  readonly probeIntervalMs: number;
  /** Names of the interfaces to targets that are ours to set down begin so; null: no interface is ours. */
  readonly ownInterfaces: string | null;
  /** Whether every queue is served; until then no VIP is added, since its packets would be dropped. */
  readonly isDataPlaneReady: () => boolean;
  /** `status()` may say something else than before. */
  readonly onChange?: () => void;
  /** Told after each turn. */
  readonly onTurn?: (turn: Turn) => void;
  /** A clock that never goes back, in ms. */
  readonly nowMs: () => number;
  readonly log: Log;
};

/** What a turn cost and did, for metrics; what came of it says {@link Reconciler.status}. */
export type Turn = {
  readonly durationMs: number;
  /** Changes of the kernel that were tried. */
  readonly kernelSteps: number;
  /** Those that put right what was changed or gone. */
  readonly repairs: number;
  /** Changes that the kernel, or the shared memory, refused; they are tried again. Of a pending target each reason counts once. */
  readonly failedSteps: number;
  /** Why the turn broke off; null: it went through. */
  readonly error: string | null;
};
