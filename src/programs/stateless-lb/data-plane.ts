import { spawn } from "node:child_process";
import { setTimeout as delay } from "node:timers/promises";
import type { Log } from "#control";
import { watchProcess } from "#sys";
import { CounterWatch, type DataPlane as Running } from "#tables";
import { differencesOf, type QueueRange } from "../nfqlb/running.js";
import { dataPlaneArguments, dataPlaneOptions } from "./data-plane-settings.js";
import { isTraced, Pulse } from "./pulse.js";

const COUNTERS = "nfqlb-counters";
/** A data plane that lived shorter than this counts as one that keeps dying. */
const STABLE_MS = 2_000;
const FIRST_BACKOFF_MS = 50;
const LAST_BACKOFF_MS = 5_000;
const READY_POLL_MS = 10;
/** So many deaths one after the other, in some 7 s, are no accident. */
const HOPELESS_DEATHS = 9;
/** A data plane that has begun to start is ready by then, or judged as it is. */
const READY_DEADLINE_MS = 5_000;
/** A data plane is looked at so often whether it lives. */
const LOOK_MS = 1_000;
/** Looks in a row without a sign of life after which it counts as hanging, and after which it is killed. */
const HANGING_LOOKS = 3;
const HOPELESS_LOOKS = 5;
/** Looks in a row without finding it in the folder after which it is replaced: nobody would ever see it again. */
const LOST_LOOKS = 2;
/** A data plane that has not ended by then after SIGTERM is killed. */
const STOP_DEADLINE_MS = 3_000;

export type DataPlaneOptions = {
  /** Path of the nfqlb program. */
  readonly program: string;
  /** Folder of the tables; one data plane per folder. */
  readonly folder: string;
  readonly queues: QueueRange;
  readonly queueLength: number;
  readonly log: Log;
  /** All queues are served (again). */
  readonly onReady: () => void;
  /** It hangs: nothing is answered until it goes on, or has been killed and another one is ready. */
  readonly onHang: () => void;
  /** It has ended unasked; another one is on its way. */
  readonly onDown: () => void;
  /** It died shortly after each of many starts; the next one is still tried. */
  readonly onGiveUp: (cause: string) => void;
};

/**
 * Keeps one data plane running: adopts one that was started just as we would, whenever one is found in the folder, replaces
 * one that was started otherwise (decision 0069), and starts one at once when there is none; one that hangs is killed
 * (decision 0072). The data plane lives in a session of its own and outlives us.
 */
export class DataPlane {
  readonly #options: DataPlaneOptions;
  readonly #counters: CounterWatch;
  #isStopping = false;
  #startedMs = 0;
  /** Deaths shortly after a start, one after the other. */
  #quickDeaths = 0;
  #onExit: (() => void) | null = null;
  /** Process of the data plane: of the start on, long before it is seen in the folder. */
  #pid: number | null = null;
  readonly #pulse = new Pulse();
  #isHanging = false;
  /** Whether the folder's data plane was ours at a look, and looks in a row since then at which it was not. */
  #wasFound = false;
  #lostLooks = 0;
  #looking: NodeJS.Timeout | null = null;

  constructor(options: DataPlaneOptions) {
    this.#options = options;
    this.#counters = new CounterWatch(options.folder, COUNTERS);
  }

  /** Whether all queues are served, by a data plane that is as it has to be. */
  get isReady(): boolean {
    const running = this.#counters.dataPlane();
    return !this.#isHanging && running?.isReady === true && running.pid === this.#pid;
  }

  /** Adopts or starts. Resolves when a data plane runs or is being started. */
  async start(): Promise<void> {
    this.#looking = setInterval(() => this.#look(), LOOK_MS).unref();
    await this.#adoptOrStart();
  }

  /** Ends the data plane after it has answered what is queued, also one that is still starting; resolves when it is gone. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    if (this.#looking !== null) clearInterval(this.#looking);
    const pid = this.#pid ?? this.#counters.dataPlane()?.pid ?? null;
    if (pid !== null) await this.#end(pid);
  }

  #look(): void {
    const { log, onHang, onReady } = this.#options;
    const running = this.#counters.dataPlane();
    const looks = this.#pulse.look(running?.isReady === true ? running : null);
    const wasHanging = this.#isHanging;
    this.#isHanging = looks >= HANGING_LOOKS;
    this.#lookForOurs(running?.pid ?? null);
    if (running === null || running.pid !== this.#pid) return;
    const { pid } = running;
    if (wasHanging && !this.#isHanging) {
      log.info("data plane goes on", { pid });
      onReady();
    } else if (this.#isHanging && !wasHanging) {
      log.error("data plane hangs", { pid });
      onHang();
    }
    if (looks !== HOPELESS_LOOKS) return;
    if (isTraced(pid)) log.error("data plane is left alone, a debugger holds it", { pid });
    else {
      log.error("data plane is killed, it hangs", { pid });
      signal(pid, "SIGKILL");
    }
  }

  /** The folder's data plane is held against what ours would be, whoever started it, and when. */
  async #adoptOrStart(): Promise<void> {
    const { log } = this.#options;
    const running = await this.#whenReady();
    if (this.#isStopping) return;
    if (running !== null) {
      const { pid } = running;
      const differences = differencesOf(running.settings, dataPlaneOptions(this.#options));
      if (differences.length === 0 && this.#follow(pid)) {
        log.info("data plane adopted", { pid });
        void this.#tellWhenReady();
        return;
      }
      if (differences.length > 0) log.info("data plane replaced, it was started otherwise", { pid, differences });
      await this.#end(pid);
      if (this.#isStopping) return;
    }
    this.#spawn();
  }

  /**
   * The folder's data plane, or null. One that is still starting is waited for: it may not have told its settings yet, and two
   * that start at once would be in each other's way. Of one of another version nothing is to be expected.
   */
  async #whenReady(): Promise<Running | null> {
    const endMs = performance.now() + READY_DEADLINE_MS;
    for (;;) {
      const running = this.#counters.dataPlane();
      const isSettled = running === null || running.isReady || running.workers === 0;
      if (isSettled || this.#isStopping || performance.now() >= endMs) return running;
      await delay(READY_POLL_MS);
    }
  }

  #spawn(): void {
    const { program, log } = this.#options;
    this.#startedMs = performance.now();
    // Its words go to our standard error: standard output is the log's.
    const env = { ...process.env, NFQLB_SHM_DIR: this.#options.folder };
    const child = spawn(program, dataPlaneArguments(this.#options), { detached: true, stdio: ["ignore", 2, 2], env });
    child.unref();
    child.on("error", (error) => log.error("data plane cannot be started", { program, error: error.message }));
    if (child.pid === undefined) {
      this.#ended("it could not be started");
      return;
    }
    this.#pid = child.pid;
    log.info("data plane started", { pid: child.pid });
    child.on("exit", (code, signal) => this.#ended(signal ?? `exit code ${code}`));
    void this.#tellWhenReady();
  }

  /** @returns false when there is no such process any more */
  #follow(pid: number): boolean {
    const isThere = watchProcess(pid, () => this.#ended("adopted, cause unknown")) !== null;
    if (!isThere) return false;
    this.#pid = pid;
    this.#startedMs = performance.now();
    return true;
  }

  /** Somebody deleted the counters, or another data plane has made its own: nobody can see ours then. */
  #lookForOurs(found: number | null): void {
    if (this.#pid === null) return;
    const isFound = found === this.#pid;
    this.#lostLooks = isFound || !this.#wasFound ? 0 : this.#lostLooks + 1;
    this.#wasFound ||= isFound;
    if (this.#lostLooks !== LOST_LOOKS) return;
    this.#options.log.error("data plane is replaced, the folder has lost it", { pid: this.#pid, found });
    void this.#end(this.#pid);
  }

  #ended(cause: string): void {
    this.#pid = null;
    this.#isHanging = false;
    this.#wasFound = false;
    this.#onExit?.();
    if (this.#isStopping) return;
    this.#options.onDown();
    const isStable = performance.now() - this.#startedMs >= STABLE_MS;
    this.#quickDeaths = isStable ? 0 : this.#quickDeaths + 1;
    const isFirst = this.#quickDeaths <= 1; // at once: packets are being lost
    const backoffMs = isFirst ? 0 : Math.min(LAST_BACKOFF_MS, FIRST_BACKOFF_MS * 2 ** (this.#quickDeaths - 2));
    this.#options.log.error("data plane ended, restarting", { cause, inMs: backoffMs });
    if (this.#quickDeaths === HOPELESS_DEATHS) this.#options.onGiveUp(cause);
    if (isFirst) void this.#adoptOrStart();
    else setTimeout(() => this.#isStopping || void this.#adoptOrStart(), backoffMs);
  }

  async #tellWhenReady(): Promise<void> {
    while (!this.#isStopping) {
      if (this.isReady) {
        this.#wasFound = true;
        this.#options.onReady();
        return;
      }
      await delay(READY_POLL_MS);
    }
  }

  async #end(pid: number): Promise<void> {
    const exited = new Promise<void>((resolve) => {
      this.#onExit = resolve;
      if (watchProcess(pid, resolve) === null) resolve();
    });
    signal(pid, "SIGTERM");
    const killer = setTimeout(() => signal(pid, "SIGKILL"), STOP_DEADLINE_MS);
    await exited;
    clearTimeout(killer);
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as { code?: string }).code !== "ESRCH") throw error;
  }
}
