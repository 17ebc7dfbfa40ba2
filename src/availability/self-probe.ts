import { checkHealth, type Security } from "#rpc";

const PROBE_EVERY_MS = 5_000;

/** Asks our own sockets, as a stranger would, whether they answer: at once and then every five seconds. */
export class SelfProbe implements Disposable {
  readonly #servers: readonly { readonly address: string; readonly security: Security }[];
  readonly #timeoutMs: number;
  readonly #onResult: (fault: string | null) => void;
  readonly #timer: NodeJS.Timeout;
  #isEnded = false;
  #isRunning = false;

  /**
   * @param servers gRPC servers with a health service
   * @param timeoutMs for one answer. Meridio: NSM_GRPC_PROBE_RPC_TIMEOUT
   * @param onResult told after each round; the fault names the socket that did not answer
   */
  constructor(
    servers: readonly { readonly address: string; readonly security: Security }[],
    timeoutMs: number,
    onResult: (fault: string | null) => void,
    everyMs = PROBE_EVERY_MS,
  ) {
    this.#servers = servers;
    this.#timeoutMs = timeoutMs;
    this.#onResult = onResult;
    this.#timer = setInterval(() => void this.#probe(), everyMs);
    this.#timer.unref();
    void this.#probe();
  }

  async #probe(): Promise<void> {
    if (this.#isRunning) return;
    this.#isRunning = true;
    const faults = await Promise.all(this.#servers.map((server) => this.#ask(server)));
    this.#isRunning = false;
    if (!this.#isEnded) this.#onResult(faults.find((fault) => fault !== null) ?? null);
  }

  async #ask(server: { readonly address: string; readonly security: Security }): Promise<string | null> {
    try {
      const status = await checkHealth(server, "", { deadlineMs: this.#timeoutMs });
      return status === "SERVING" ? null : `${server.address}: ${status}`;
    } catch (error) {
      return `${server.address}: ${(error as Error).message}`;
    }
  }

  [Symbol.dispose](): void {
    this.#isEnded = true;
    clearInterval(this.#timer);
  }
}
