import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Changes whenever a reader of the last version would misread; readers refuse any other. */
const VERSION = 4;
const NAME = "stateless-lb-status.json";

/** A target as the control plane sees it. */
export type TargetStatus = {
  readonly stream: string;
  readonly identifier: number;
  /** Its mark and routing table; null: its stream has none. */
  readonly fwmark: number | null;
  readonly addresses: readonly string[];
  /** `ready`: it gets packets; `pending`: the kernel has no way to it; `unreachable`: it has, and it leads nowhere. */
  readonly state: "ready" | "pending" | "unreachable";
  /** Why it is not ready; empty when it is. */
  readonly reason: string;
};

/**
 * What the control plane tells other processes of itself: a file beside the tables, for `status`, `--debug` and `doctor`.
 * Times are UTC in ISO 8601.
 */
export type StatusDocument = {
  readonly version: typeof VERSION;
  /** Version of the program. */
  readonly program: string;
  readonly pid: number;
  readonly startedAt: string;
  readonly writtenAt: string;
  /** `ending`: an end was asked for, and packets are served for the drain time. */
  readonly phase: "starting" | "serving" | "ending" | "ended";
  /** Why it gave up; null: it did not. */
  readonly failure: string | null;
  readonly source: {
    readonly address: string;
    readonly trench: string;
    readonly conduit: string;
    /** Configuration file of an embedded NSP, or null. */
    readonly file: string | null;
    /** Why what that file says now is not in force; empty when it is. */
    readonly fileFault: string;
  };
  /** `since`: null until it was heard or lost once. */
  readonly nsp: { readonly isConnected: boolean; readonly since: string | null; readonly reason: string };
  /** Lists that a connected NSP has not told though a first configuration waits for them; empty when none does. */
  readonly waitingFor: readonly string[];
  /** Objects of the NSP that were left out, each with its reason. */
  readonly refusals: readonly string[];
  /** Last turn of the reconcile loop; null before the first. `error`: it broke off. */
  readonly lastTurn: { readonly at: string; readonly durationMs: number; readonly error: string | null } | null;
  /** Changes that made good what somebody else had undone, since the start; `commands`: of the last turn that had some. */
  readonly repairs: {
    readonly count: number;
    readonly last: { readonly at: string; readonly commands: readonly string[] } | null;
    /** What was put right more than ten times within a minute, and when last. */
    readonly storms: readonly { readonly what: string; readonly count: number; readonly lastAt: string }[];
  };
  /** Who told the configuration in force; null: there is none yet. */
  readonly configurationFrom: "nsp" | "saved state" | null;
  /** Whether the frontend of this host is announced; null: nobody asks for one, or it is not known yet. */
  readonly isFrontendAnnounced: boolean | null;
  /** Whether packets to the VIPs are queued. */
  readonly isServed: boolean;
  /** Whether frontends are told that packets reach a target here. */
  readonly isAvailable: boolean;
  /** Steps that the kernel refused and that belong to no target. */
  readonly faults: readonly string[];
  readonly vips: readonly string[];
  readonly streams: readonly { readonly name: string; readonly maxTargets: number; readonly offset: number | null }[];
  /** Those in force. */
  readonly flows: readonly { readonly name: string; readonly stream: string; readonly priority: number }[];
  /** Those that are not, with the reason. */
  readonly refusedFlows: readonly { readonly name: string; readonly stream: string; readonly reason: string }[];
  readonly targets: readonly TargetStatus[];
};

/** What a writer has to give; the rest is the document's own. */
export type StatusContent = Omit<StatusDocument, "version" | "writtenAt">;

/** Replaces the document in one step: a reader sees the old one or the new one. @throws no room, no right: the old one stays */
export function writeStatus(folder: string, content: StatusContent, now: Date): void {
  const path = join(folder, NAME);
  const document: StatusDocument = { version: VERSION, writtenAt: now.toISOString(), ...content };
  try {
    writeFileSync(`${path}.new`, `${JSON.stringify(document)}\n`, { mode: 0o600 });
    renameSync(`${path}.new`, path);
  } catch (error) {
    rmSync(`${path}.new`, { force: true }); // half of one would hold the last room there is
    throw error;
  }
}

/** The document of this folder, null when there is none. @throws what cannot be read, or is of another version */
export function readStatus(folder: string): StatusDocument | null {
  const path = join(folder, NAME);
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if ((error as { code?: string }).code === "ENOENT") return null;
    throw error;
  }
  const document = JSON.parse(text) as StatusDocument;
  const version: number = document.version;
  if (version === VERSION) return document;
  throw new Error(`${path}: version ${version} of the status document, version ${VERSION} is known here`);
}
