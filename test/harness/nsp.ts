import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type FollowOptions, followConfiguration, formatRefusal, NspStore, type NspUpdate, startNspServer } from "#nsp";
import { parseConfiguration } from "../../src/nsp/file.js";

export const example = readFileSync(new URL("../../examples/stateless-lb.yaml", import.meta.url), "utf8");

/** What a follower was told. */
export type Seen = {
  readonly updates: NspUpdate[];
  /** Lines of `newRefusals`, one list per update that had any. */
  readonly refused: (readonly string[])[];
  readonly connections: boolean[];
  readonly faults: string[];
  readonly waiting: (readonly string[])[];
  /** Ends it; resolves when it has ended. */
  readonly stop: () => Promise<void>;
};

/** A place for sockets and state, and everything that has to end with a test, last first. */
export class NspStage {
  readonly folder = mkdtempSync(join(tmpdir(), "nsp-"));
  readonly #cleanups: (() => unknown)[] = [];
  #sockets = 0;

  /** An address that nobody listens on yet. */
  address(): string {
    return `unix:${join(this.folder, `s${this.#sockets++}`)}`;
  }

  later(clean: () => unknown): void {
    this.#cleanups.push(clean);
  }

  /** For afterEach. */
  async clear(): Promise<void> {
    for (const clean of this.#cleanups.splice(0).reverse()) await clean();
  }

  /** For afterAll. */
  remove(): void {
    rmSync(this.folder, { recursive: true });
  }

  /** Serves a store; returns what stops it. */
  async serve(store: NspStore, address: string): Promise<() => Promise<void>> {
    const server = await startNspServer(store, { listen: [address], security: "plain-text" });
    let isClosed = false;
    const close = async () => {
      if (!isClosed) await server.close();
      isClosed = true;
    };
    this.later(close);
    return close;
  }

  /** Follows load-balancer in trench-a at an address. */
  follow(address: string, options: Partial<FollowOptions> = {}): Seen {
    const controller = new AbortController();
    const { signal } = controller;
    let ended: Promise<void> = Promise.resolve();
    const stop = () => {
      controller.abort();
      return ended;
    };
    const seen: Seen = { updates: [], refused: [], connections: [], faults: [], waiting: [], stop };
    this.later(stop);
    const updates = followConfiguration({
      server: { address, security: "plain-text", maxBackoffMs: 100 },
      trench: "trench-a",
      conduit: "load-balancer",
      state: null,
      onConnection: (isConnected) => seen.connections.push(isConnected),
      onWaiting: (what) => seen.waiting.push(what),
      onStateFault: (message) => seen.faults.push(message),
      signal,
      ...options,
    });
    ended = (async () => {
      for await (const update of updates) {
        seen.updates.push(update);
        if (update.newRefusals.length > 0) seen.refused.push(update.newRefusals.map(formatRefusal));
      }
    })();
    return seen;
  }
}

/** A store with the configuration of a file's text. */
export function storeOf(text: string): NspStore {
  const store = new NspStore({ nowMs: () => performance.now() });
  store.configure(parseConfiguration("test.yaml", text).configuration);
  return store;
}
