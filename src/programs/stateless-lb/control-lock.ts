import { closeSync, constants, fstatSync, futimesSync, openSync, readFileSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";
import { closeDescriptor, isRangeLocked, listenAbstract, tryLockRange } from "#sys";
import { holderOfName, isNameTaken } from "./name-holder.js";

const NAME = "stateless-lb.lock";
/**
 * What the owner writes, a line each: its pid, the time of its last sign of life (CLOCK_MONOTONIC in ms, which all processes
 * of a host share and nobody sets back), and why its status document is old. Of one size from the start, so that it can be
 * written over when the folder is full. The file's own time is the sign of life for people.
 */
const RECORD_BYTES = 512;
/** A sign of life is so old at most. */
const BEAT_MS = 2_000;
/** An owner that has not given a sign of life for so long hangs. */
const HANG_MS = 3 * BEAT_MS;
/** Abstract unix socket that is a network namespace's lock. */
const NETWORK_NAME = "stateless-lb";

/**
 * Whether a control plane works on a folder, and when it was last heard of. `isHanging`: it lives, and does nothing;
 * `unwritten`: why it cannot write its status, or empty.
 */
export type Life = {
  readonly isAlive: boolean;
  readonly isHanging: boolean;
  readonly lastSeen: Date;
  readonly unwritten: string;
};

/**
 * The right to be the control plane of a folder: a lock that dies with its holder, and the sign of life for those who
 * ask. Two control planes on one folder would undo each other's work.
 */
export class ControlLock implements Disposable {
  readonly #fd: number;
  readonly #timer: NodeJS.Timeout;
  #unwritten = "";

  private constructor(fd: number) {
    this.#fd = fd;
    this.#write();
    this.#timer = setInterval(() => this.#beat(), BEAT_MS).unref();
  }

  /** @returns null: another process holds it */
  static take(folder: string): ControlLock | null {
    const fd = openSync(join(folder, NAME), constants.O_RDWR | constants.O_CREAT, 0o600);
    if (tryLockRange(fd, 0, 1)) return new ControlLock(fd);
    closeSync(fd);
    return null;
  }

  /** Says for those who look why the status document cannot be written; empty: it can. Needs no room in the folder. */
  tell(unwritten: string): void {
    this.#unwritten = unwritten.replaceAll("\n", " ");
    this.#beat();
  }

  #beat(): void {
    const now = new Date();
    futimesSync(this.#fd, now, now);
    try {
      this.#write();
    } catch {
      // Only a folder on a full disk, which copies when it writes over: there this owner is taken for one that hangs.
    }
  }

  #write(): void {
    const record = Buffer.alloc(RECORD_BYTES, " ");
    record.write(`${process.pid}\n${String(monotonicMs()).padStart(16, "0")}\n${this.#unwritten}`);
    writeSync(this.#fd, record, 0, RECORD_BYTES, 0);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#beat();
    closeSync(this.#fd);
  }
}

/**
 * The right to be the control plane of this network namespace: the name of an abstract unix socket, which belongs to the
 * namespace and is free again the moment its holder is gone. Two control planes there would take each other's rules for
 * leftovers, whatever their folders.
 */
export class NetworkLock implements Disposable {
  readonly #fd: number;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** @returns null: another process holds it */
  static take(): NetworkLock | null {
    try {
      return new NetworkLock(listenAbstract(NETWORK_NAME));
    } catch (error) {
      if ((error as { errno?: unknown }).errno === "EADDRINUSE") return null;
      throw error;
    }
  }

  [Symbol.dispose](): void {
    closeDescriptor(this.#fd);
  }
}

/**
 * Who keeps this network namespace's lock: a control plane, or anybody else, for any process in the namespace can take the
 * name. null: nobody does.
 */
export function networkHolder(): string | null {
  if (!isNameTaken(NETWORK_NAME)) return null;
  const holder = holderOfName(NETWORK_NAME);
  if (holder === null) return "a process that is not seen from here (of another pid namespace, or another user)";
  return holder.command === "" ? `pid ${holder.pid}` : `pid ${holder.pid}: ${holder.command}`;
}

/** CLOCK_MONOTONIC in ms. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint() / 1_000_000n);
}

/** @param nowMs CLOCK_MONOTONIC @returns null: none has ever worked on this folder */
export function readLife(folder: string, nowMs: number): Life | null {
  let fd: number;
  try {
    fd = openSync(join(folder, NAME), "r");
  } catch (error) {
    if ((error as { code?: string }).code === "ENOENT") return null;
    throw error;
  }
  try {
    const isAlive = isRangeLocked(fd, 0, 1);
    const lastSeen = fstatSync(fd).mtime;
    const record = Buffer.alloc(RECORD_BYTES);
    const [, beatMs, unwritten = ""] = record.toString("utf8", 0, readSync(fd, record)).split("\n");
    return { isAlive, isHanging: isAlive && nowMs - Number(beatMs) > HANG_MS, lastSeen, unwritten: unwritten.trim() };
  } finally {
    closeSync(fd);
  }
}

/** Pid of the control plane that holds the folder, as it wrote it; for messages. */
export function holderOf(folder: string): string {
  return readFileSync(join(folder, NAME), "utf8").split("\n")[0]!.trim();
}
